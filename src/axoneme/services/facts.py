"""What a node knows of itself and its pods, as far as the balancing of services depends on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from axoneme.model.labels import Label, Labels
from axoneme.services.balanced import Address, Algorithm, Network
from axoneme.services.endpoints import Here

#: The label under which a node's zone stands.
ZONE = "topology.kubernetes.io/zone"


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """``addresses``: all of the node's own; ``versions`` of IP that it serves."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    addresses: tuple[Address, ...] = ()
    versions: tuple[int, ...] = (4, 6)

    @property
    def here(self) -> Here:
        return Here(self.name, self.labels.get(ZONE, ""))

    @property
    def label_set(self) -> Labels:
        return Labels(Label("node", key, value) for key, value in self.labels.items())


@dataclass(frozen=True, slots=True)
class Options:
    """How a node balances where a Service does not say it itself.

    ``node_port_addresses``: node ports are served at the node's addresses in these ranges; empty: at all of
    them. ``forwarding``: see `Forwarding`; ``hybrid`` is direct server return for TCP only. ``proxy_name``:
    only services that a label gives to the proxy of this name; empty: only those that are given to nobody.
    """

    node_port_addresses: tuple[Network, ...] = ()
    forwarding: Literal["snat", "dsr", "hybrid"] = "snat"
    algorithm: Algorithm = Algorithm.RANDOM
    proxy_name: str = ""


@dataclass(frozen=True, slots=True)
class PodPort:
    """A port of a container. ``host_port`` 0: none; ``host_ip`` None: at every address of the node."""

    port: int
    protocol: str = "TCP"
    name: str = ""
    host_port: int = 0
    host_ip: Address | None = None


@dataclass(frozen=True, slots=True)
class LocalPod:
    """A pod of this node with a network of its own, as its containers' ports and labels say."""

    namespace: str
    name: str
    addresses: tuple[Address, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[PodPort, ...] = ()
    ready: bool = True
    #: As text that sorts (RFC 3339, UTC).
    created: str = ""

    @property
    def label_set(self) -> Labels:
        return Labels(Label("k8s", key, value) for key, value in self.labels.items())
