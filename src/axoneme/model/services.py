"""A Service's view: the name under which pods are reached, and how."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field

from axoneme.model import checks
from axoneme.model.metadata import Metadata, naming, parse_metadata
from axoneme.model.paths import Fields, Place
from axoneme.model.pods import PROTOCOLS, port_or_name

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

TYPES = ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")
#: What stands in ``clusterIP`` when a service has no address of its own.
_NO_ADDRESS = "None"
_POLICIES = ("Cluster", "Local")


@dataclass(frozen=True, slots=True)
class ServicePort:
    """``target`` is a port of the pods, by number or by a container port's name."""

    port: int
    target: int | str
    name: str = ""
    protocol: str = "TCP"
    node_port: int = 0


@dataclass(frozen=True, slots=True)
class Service:
    """Without ``selector`` its endpoints are told by somebody else; type ExternalName never has one.

    ``cluster_ips`` are empty for a headless service, and for one that has not got its addresses yet.
    ``affinity_timeout`` in seconds; 0 without session affinity.
    """

    metadata: Metadata
    type: str = "ClusterIP"
    selector: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[ServicePort, ...] = ()
    cluster_ips: tuple[Address, ...] = ()
    headless: bool = False
    external_ips: tuple[Address, ...] = ()
    external_name: str = ""
    affinity_timeout: int = 0
    internal_policy: str = "Cluster"
    external_policy: str = "Cluster"
    publish_not_ready: bool = False

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Whether a pod of its namespace with these labels is behind it."""
        return bool(self.selector) and self.selector.items() <= labels.items()


def parse_service(object: Mapping[str, object]) -> Service:
    """Raises `ManifestError`."""
    with naming(object) as fields:
        metadata = parse_metadata(fields, name=checks.dns_1035_label)
        spec = fields.need("spec").fields()
        type_ = spec.one_of("type", TYPES, "ClusterIP")
        addresses, headless = _cluster_ips(spec)
        external_name = spec.text("externalName")
        if type_ == "ExternalName" and not external_name:
            spec.place("externalName").refuse("a service of type ExternalName has one")
        ports = _ports(spec.items("ports"))
        if not ports and not headless and type_ != "ExternalName":
            spec.place("ports").refuse("a service has at least one port, unless it is headless")
        return Service(
            metadata,
            type_,
            {} if type_ == "ExternalName" else checks.labels(spec.get("selector")),
            ports,
            addresses,
            headless,
            tuple(_address(item) for item in spec.items("externalIPs")),
            external_name,
            _affinity(spec),
            spec.one_of("internalTrafficPolicy", _POLICIES, "Cluster"),
            spec.one_of("externalTrafficPolicy", _POLICIES, "Cluster"),
            spec.flag("publishNotReadyAddresses"),
        )


def _cluster_ips(spec: Fields) -> tuple[tuple[Address, ...], bool]:
    """The addresses, and whether there shall be none."""
    several = spec.items("clusterIPs")
    one = spec.get("clusterIP")
    places = [place for place in several or ([one] if one else []) if place.value != ""]
    if [place.value for place in places] == [_NO_ADDRESS]:
        return (), True
    return tuple(_address(place) for place in places), False


def _address(place: Place) -> Address:
    try:
        return ipaddress.ip_address(place.text())
    except ValueError:
        place.refuse("an IP address belongs here")


def _affinity(spec: Fields) -> int:
    if spec.one_of("sessionAffinity", ("None", "ClientIP"), "None") == "None":
        return 0
    config = spec.get("sessionAffinityConfig")
    client = config.fields().get("clientIP") if config else None
    return client.fields().number("timeoutSeconds", 10_800, 1, 86_400) if client else 10_800


def _ports(items: list[Place]) -> tuple[ServicePort, ...]:
    names: set[str] = set()
    numbers: set[tuple[int, str]] = set()
    ports = []
    for item in items:
        fields = item.fields()
        port = fields.need("port")
        target, name = fields.get("targetPort"), fields.place("name")
        if len(items) > 1 and name.value in (None, ""):
            name.refuse("the ports of a service that has several need names", "nothing")
        if name.value not in (None, "") and checks.dns_label(name) in names:
            name.refuse("each port of a service has a name of its own")
        found = ServicePort(
            checks.port_number(port),
            port_or_name(target) if target else checks.port_number(port),
            fields.text("name"),
            fields.one_of("protocol", PROTOCOLS, "TCP"),
            fields.number("nodePort", 0, 0, checks.LAST_PORT),
        )
        if (found.port, found.protocol) in numbers:
            port.refuse(f"the service has this port for {found.protocol} already")
        names.add(found.name)
        numbers.add((found.port, found.protocol))
        ports.append(found)
    return tuple(ports)
