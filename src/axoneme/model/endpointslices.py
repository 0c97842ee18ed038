"""EndpointSlice (discovery.k8s.io/v1): where a Service is, as a controller or somebody else says.

What is left out has a meaning of its own: an endpoint that says nothing of ``ready`` is ready, and so with
``serving``; one that says nothing of ``terminating`` is not. A port without name has the empty one (the API
server writes it so); one without number means every port, which a Service cannot use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from axoneme.model import checks
from axoneme.model.addresses import FAMILIES, Address, unicast
from axoneme.model.metadata import Metadata, naming, parse_metadata
from axoneme.model.paths import Fields, Place
from axoneme.model.pods import PROTOCOLS

KIND = "EndpointSlice"
#: The label that names the Service of a slice.
SERVICE_NAME = "kubernetes.io/service-name"
#: Cilium's annotation with the weight of all endpoints of a slice.
WEIGHT = "service.cilium.io/weight"

_MOST_ENDPOINTS, _MOST_PORTS, _MOST_ADDRESSES, _MOST_WEIGHT = 1000, 20_000, 100, 65_535


class Endpoint(msgspec.Struct, frozen=True, gc=False):  # a cluster has a hundred thousand of them
    """``addresses`` are all of one pod: who balances takes the first. ``target``: the name of that pod.

    ``zones`` and ``nodes`` are hints: who is in one of them should come here.
    """

    addresses: tuple[Address, ...]
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    node: str = ""
    zone: str = ""
    zones: frozenset[str] = frozenset()
    nodes: frozenset[str] = frozenset()
    target: str = ""
    hostname: str = ""


@dataclass(frozen=True, slots=True)
class EndpointPort:
    """``port`` 0: not said."""

    port: int
    name: str = ""
    protocol: str = "TCP"
    app_protocol: str = ""


@dataclass(frozen=True, slots=True)
class EndpointSlice:
    """Of the Service ``service`` of its namespace, or of none. ``version`` of IP.

    ``weight``: the share of each endpoint, in proportion; 0: no new connections.
    """

    metadata: Metadata
    service: str
    version: int
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[EndpointPort, ...] = ()
    weight: int = 1


def parse_endpoint_slice(object: Mapping[str, object]) -> EndpointSlice:
    """Raises `ManifestError`."""
    with naming(object) as fields:
        metadata = parse_metadata(fields)
        version = _version(fields.need("addressType"))
        endpoints, ports = fields.items("endpoints"), fields.items("ports")
        if len(endpoints) > _MOST_ENDPOINTS:
            fields.place("endpoints").refuse(
                f"a slice has at most {_MOST_ENDPOINTS} endpoints: make more slices"
            )
        if len(ports) > _MOST_PORTS:
            fields.place("ports").refuse(f"a slice has at most {_MOST_PORTS} ports")
        return EndpointSlice(
            metadata,
            metadata.labels.get(SERVICE_NAME, ""),
            version,
            tuple(_endpoint(item.fields(), version) for item in endpoints),
            _ports(ports),
            _weight(fields),
        )


def _version(place: Place) -> int:
    if place.value == "FQDN":
        place.refuse(
            "a slice of names cannot be balanced (nor does kube-proxy): give addresses, and IPv4 or IPv6 as "
            "their type, or make a Service of type ExternalName"
        )
    return FAMILIES[place.one_of(FAMILIES)]


def _endpoint(fields: Fields, version: int) -> Endpoint:
    places = fields.need("addresses").items()
    if not 1 <= len(places) <= _MOST_ADDRESSES:
        fields.place("addresses").refuse(f"an endpoint has 1 to {_MOST_ADDRESSES} addresses")
    conditions, hints = _part(fields, "conditions"), _part(fields, "hints")
    return Endpoint(
        tuple(_address(place, version) for place in places),
        conditions.flag("ready", True),
        conditions.flag("serving", True),
        conditions.flag("terminating"),
        fields.text("nodeName"),
        fields.text("zone"),
        _names(hints, "forZones"),
        _names(hints, "forNodes"),
        _target(_part(fields, "targetRef")),
        fields.text("hostname"),
    )


def _part(fields: Fields, name: str) -> Fields:
    place = fields.get(name)
    return place.fields() if place else Fields({}, "")


def _address(place: Place, version: int) -> Address:
    found = unicast(place)
    if found.version != version:
        place.refuse(f"the slice's addressType is IPv{version}: its addresses are of that family")
    return found


def _names(hints: Fields, name: str) -> frozenset[str]:
    return frozenset(item.fields().need("name").name() for item in hints.items(name))


def _target(reference: Fields) -> str:
    return reference.text("name") if reference.text("kind") == "Pod" else ""


def _ports(items: list[Place]) -> tuple[EndpointPort, ...]:
    names: set[tuple[str, str]] = set()
    ports = []
    for item in items:
        fields = item.fields()
        found = EndpointPort(
            fields.number("port", 0, 0, checks.LAST_PORT),
            fields.text("name"),
            fields.one_of("protocol", PROTOCOLS, "TCP"),
            fields.text("appProtocol"),
        )
        if found.name:
            checks.dns_label(fields.place("name"))
        if (found.name, found.protocol) in names:
            fields.place("name").refuse("each port of a slice has a name of its own")
        names.add((found.name, found.protocol))
        ports.append(found)
    return tuple(ports)


def _weight(object: Fields) -> int:
    annotations = object.need("metadata").fields().get("annotations")
    place = annotations.fields().get(WEIGHT) if annotations else None
    if place is None:
        return 1
    text = place.text()
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and int(text) <= _MOST_WEIGHT):
        place.refuse(f"a weight from 0 to {_MOST_WEIGHT} belongs here")
    return int(text)
