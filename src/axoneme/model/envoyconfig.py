"""CiliumEnvoyConfig and CiliumClusterwideEnvoyConfig (cilium.io/v2): listeners that people write for Envoy
themselves, and to which policies send connections (``listener`` in ``toPorts``).

Here an object is taken apart; what the resources say is Envoy's to understand (`axoneme.proxy.envoy.given`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from axoneme.model.metadata import naming, parse_metadata
from axoneme.model.paths import Place

NAMESPACED, CLUSTERWIDE = "CiliumEnvoyConfig", "CiliumClusterwideEnvoyConfig"
KINDS = (NAMESPACED, CLUSTERWIDE)

_ENVOY = "type.googleapis.com/envoy.config."
LISTENER = f"{_ENVOY}listener.v3.Listener"
ROUTES = f"{_ENVOY}route.v3.RouteConfiguration"
CLUSTER = f"{_ENVOY}cluster.v3.Cluster"
ENDPOINTS = f"{_ENVOY}endpoint.v3.ClusterLoadAssignment"
#: The types of resources that are taken, and the field that has the name of each.
TYPES = {LISTENER: "name", ROUTES: "name", CLUSTER: "name", ENDPOINTS: "clusterName"}

#: What could reach beyond the network: sockets and files of the machine on which Envoy runs.
_OUT_OF_REACH = frozenset(
    {"pipe", "filename", "environmentVariable", "pathConfigSource", "watchedDirectory", "googleGrpc"}
)


class EnvoyResource(msgspec.Struct, frozen=True):
    """``content`` is protobuf's JSON of the message ``type``, its own name left in it."""

    type: str
    name: str
    content: dict[str, Any]


class EnvoyConfig(msgspec.Struct, frozen=True):
    """Without a namespace it is cluster-wide."""

    namespace: str
    name: str
    resources: tuple[EnvoyResource, ...]


def parse_envoy_config(object: Mapping[str, object]) -> EnvoyConfig:
    """Raises `ManifestError`."""
    with naming(object) as fields:
        kind = fields.need("kind").one_of(KINDS)
        fields.only(("apiVersion", "kind", "metadata", "spec", "status"))
        metadata = parse_metadata(fields, namespaced=kind == NAMESPACED, strict=True)
        spec = fields.need("spec").fields(("services", "backendServices", "nodeSelector", "resources"))
        for name in ("services", "backendServices"):
            if spec.stated_items(name):
                spec.place(name).refuse("traffic of Services is not sent to listeners: policies do that")
        if (nodes := spec.stated("nodeSelector")) is not None:
            nodes.refuse("a configuration is for all nodes")
        resources: dict[tuple[str, str], EnvoyResource] = {}
        for place in spec.need("resources").items():
            resource = _resource(place)
            if (resource.type, resource.name) in resources:
                place.refuse("another one has this type and name", resource.name)
            resources[resource.type, resource.name] = resource
        return EnvoyConfig(metadata.namespace, metadata.name, tuple(resources.values()))


def _resource(place: Place) -> EnvoyResource:
    fields = place.fields()
    type = fields.need("@type").one_of(tuple(TYPES))
    field = TYPES[type]
    name = fields.get(field) or fields.need(_snake(field))
    for found in _keys(place):
        if camel(found.path.rpartition(".")[2]) in _OUT_OF_REACH:
            found.refuse("files and sockets of the node are out of a configuration's reach")
    content = {key: value for key, value in _mapping(place).items() if key != "@type"}
    return EnvoyResource(type, name.name(), content)


def _mapping(place: Place) -> Mapping[str, Any]:
    assert isinstance(place.value, Mapping)
    return place.value


def _keys(place: Place) -> Iterator[Place]:
    """Every member of every object below."""
    if isinstance(place.value, Mapping):
        for key, value in place.value.items():
            below = Place(value, f"{place.path}.{key}")
            yield below
            yield from _keys(below)
    elif isinstance(place.value, list):
        for index, value in enumerate(place.value):
            yield from _keys(Place(value, f"{place.path}[{index}]"))


def camel(name: str) -> str:
    """How protobuf's JSON spells a field's name."""
    first, *others = name.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in others)


def _snake(name: str) -> str:
    return "".join(f"_{each.lower()}" if each.isupper() else each for each in name)
