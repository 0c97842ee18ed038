"""Listeners that people have written (`axoneme.model.envoyconfig`), as resources that serve here.

A listener is taken as it is, but for how connections come and go: it listens where the datapath sends them,
on transparent sockets, and calls from the client's address. It may not reach beyond (`reach`). Names that a
configuration defines mean its own resources: they get its name in front. Filters of Cilium's Envoy are left
out: the datapath does what they do.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm
from google.protobuf import json_format

from axoneme.model.envoyconfig import (
    CLUSTER,
    ENDPOINTS,
    LISTENER,
    ROUTES,
    EnvoyConfig,
    EnvoyResource,
    camel,
)
from axoneme.proxy.envoy import accesslogs, reach
from axoneme.proxy.envoy.protos import Message, from_parent, packed

_PREFIX: Final = "type.googleapis.com/"
_CILIUM: Final = f"{_PREFIX}cilium."
_MESSAGES: Final = {
    LISTENER: listener_pb2.Listener,
    ROUTES: route_pb2.RouteConfiguration,
    CLUSTER: cluster_pb2.Cluster,
    ENDPOINTS: endpoint_pb2.ClusterLoadAssignment,
}
#: Members that name a resource, and the types of which it may be.
_REFERENCES: Final = {
    "cluster": (CLUSTER,),
    "routeConfigName": (ROUTES,),
    "clusterName": (CLUSTER, ENDPOINTS),
    "serviceName": (ENDPOINTS,),
}


class Given:
    """What a configuration says, understood. ValueError where it cannot be; it names the resource."""

    def __init__(self, config: EnvoyConfig) -> None:
        self._owner = f"{config.namespace}/{config.name}"
        self._defined = {(each.type, each.name) for each in config.resources}
        made = {(each.type, each.name): self._message(each) for each in config.resources}
        self._listeners = {name: message for (type, name), message in made.items() if type == LISTENER}
        #: Type, name and message of all that is no listener.
        self.others = [
            (type, self._own(name), message) for (type, name), message in made.items() if type != LISTENER
        ]

    def listener(self, name: str, direction: str, headers: Iterable[str]) -> Message:
        """A message of the caller's own, without an address. ValueError where there is none of this name."""
        if name not in self._listeners:
            there = ", ".join(sorted(self._listeners)) or "none"
            raise ValueError(f"{self._owner.removeprefix('/')} has no listener {name}; it has {there}")
        made = listener_pb2.Listener()
        made.CopyFrom(self._listeners[name])
        log = accesslogs.of_given(direction, headers)
        for chain in (*made.filter_chains, made.default_filter_chain):
            for each in chain.filters:
                if each.typed_config.Is(hcm.HttpConnectionManager.DESCRIPTOR):
                    manager = hcm.HttpConnectionManager()
                    each.typed_config.Unpack(manager)
                    manager.access_log.append(log)
                    if manager.HasField("rds") and not manager.rds.HasField("config_source"):
                        manager.rds.config_source.CopyFrom(from_parent())
                    each.typed_config.CopyFrom(packed(manager))
        return made

    def _message(self, resource: EnvoyResource) -> Message:
        where = f"{resource.type.rpartition('.')[2]} {resource.name}"
        try:
            content = self._with_own_names(resource.content)
            for type in _types(content):
                _learn(type)
            message = json_format.ParseDict(content, _MESSAGES[resource.type]())
            reach.check(message, {self._own(name) for _, name in self._defined})
        except Exception as error:  # protobuf has many for what it did not expect: only this one is affected
            raise ValueError(f"{where}: {error}") from None
        if resource.type == CLUSTER:
            message.name = self._own(resource.name)
            if message.HasField("eds_cluster_config"):
                eds = message.eds_cluster_config
                eds.service_name = eds.service_name or message.name
                if not eds.HasField("eds_config"):
                    eds.eds_config.CopyFrom(from_parent())
        elif resource.type == ROUTES:
            message.name = self._own(resource.name)
        return message

    def _own(self, name: str) -> str:
        return f"{self._owner}/{name}"

    def _with_own_names(self, value: Any, key: str = "") -> Any:
        """The same JSON with what is defined here under its full name, and without Cilium's filters."""
        if isinstance(value, Mapping):
            return {name: self._with_own_names(each, camel(name)) for name, each in value.items()}
        if isinstance(value, list):
            # Those of weightedClusters.
            key = "cluster" if key == "clusters" else ""
            items = (item for item in value if not _is_ciliums(item))
            if key:
                return [
                    {name: self._named(each, key) if name == "name" else each for name, each in item.items()}
                    for item in items
                ]
            return [self._with_own_names(item) for item in items]
        return self._named(value, key)

    def _named(self, value: Any, key: str) -> Any:
        types = _REFERENCES.get(key, ())
        return self._own(value) if any((type, value) in self._defined for type in types) else value


def _is_ciliums(item: Any) -> bool:
    """A filter, by the type of its configuration."""
    if not isinstance(item, Mapping):
        return False
    config = item.get("typed_config", item.get("typedConfig"))
    return isinstance(config, Mapping) and str(config.get("@type", "")).startswith(_CILIUM)


def _types(value: Any) -> Iterator[str]:
    """Of all messages of any type below."""
    if isinstance(value, Mapping):
        if isinstance(type := value.get("@type"), str):
            yield type
        for each in value.values():
            yield from _types(each)
    elif isinstance(value, list):
        for each in value:
            yield from _types(each)


def _learn(type: str) -> None:
    """Has protobuf know the messages of the package in which a type is."""
    package = type.removeprefix(_PREFIX).rpartition(".")[0]
    if not package.startswith("envoy."):
        return
    try:
        module = importlib.import_module(package)
        for each in pkgutil.iter_modules(module.__path__, f"{package}."):
            importlib.import_module(each.name)
    except ImportError as error:
        raise TypeError(f"{type}: this Envoy knows no such type") from error
