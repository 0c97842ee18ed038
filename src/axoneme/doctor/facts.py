"""All that is known of a node before it is judged. Empty where nothing could be learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path

from axoneme.agent.api import Status
from axoneme.agent.config import AgentConfig
from axoneme.certificates.examine import Problem
from axoneme.datapath.features import Feature
from axoneme.doctor.firewall import Rule
from axoneme.flows.status import Status as FlowsStatus
from axoneme.health.pathmtu import PathMtu
from axoneme.health.ways import HealthReport
from axoneme.model.state import NodeState
from axoneme.services.view import ServiceView

Network = IPv4Network | IPv6Network


def within(inner: Network, outer: Network) -> bool:
    """Also where they are the same."""
    if isinstance(inner, IPv4Network):
        return isinstance(outer, IPv4Network) and inner.subnet_of(outer)
    return isinstance(outer, IPv6Network) and inner.subnet_of(outer)


@dataclass(frozen=True, slots=True)
class Device:
    """A link. Packets: as the kernel counts them."""

    ifindex: int
    mtu: int
    up: bool
    carrier: bool = True
    addresses: tuple[str, ...] = ()
    sent: int = 0
    received: int = 0


@dataclass(frozen=True, slots=True)
class Route:
    destination: Network
    device: str
    via: str = ""
    protocol: str = ""

    def __str__(self) -> str:
        via = f" via {self.via}" if self.via else ""
        protocol = f" proto {self.protocol}" if self.protocol else ""
        return f"{self.destination}{via} dev {self.device}{protocol}"

    @classmethod
    def read(cls, text: str, device: str, via: str = "", protocol: str = "") -> Route | None:
        """None for what is no unicast route to a network, such as ``unreachable``."""
        try:
            return cls(ip_network(text), device, via, protocol)
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class Program:
    """At an attach point; ``ours`` by the pin of its link."""

    name: str
    number: int
    ours: bool


@dataclass(frozen=True, slots=True)
class Pin:
    """A pinned link; ``ifindex`` 0 when its interface is gone."""

    name: str
    ifindex: int


@dataclass(frozen=True, slots=True)
class PodFacts:
    """``faults`` of its node's side and its inside, in words; ``mtu`` of its default routes, by family."""

    name: str
    faults: tuple[str, ...]
    expected_mtu: int
    mtus: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Usage:
    used: int
    room: int


@dataclass(frozen=True, kw_only=True)
class Facts:
    """``*_fault``: why something could not be reached or used; empty when it could. ``asked``: whether the
    agent has probed now. ``kube_proxy``: traces of it. ``control_group``: whose sockets are ours to
    translate, None without cgroup v2; ``at_sockets``: whether each program is attached there.
    ``no_way_to_proxies``: what is missing of it."""

    config: AgentConfig
    missing_features: tuple[Feature, ...] = ()
    bpf_fault: str = ""
    bpffs: bool = True
    store_fault: str = ""
    nodes: tuple[NodeState, ...] = ()
    policies: int = 0
    agent: Status | None = None
    agent_fault: str = ""
    agent_process: str = ""
    flows: FlowsStatus | None = None
    flows_fault: str = ""
    health: HealthReport | None = None
    mtus: tuple[PathMtu, ...] = ()
    devices: Mapping[str, Device] = field(default_factory=dict)
    devices_before: Mapping[str, Device] = field(default_factory=dict)
    routes: tuple[Route, ...] = ()
    unresolved: tuple[str, ...] = ()
    sysctls: Mapping[str, str] = field(default_factory=dict)
    pins: tuple[Pin, ...] = ()
    programs: Mapping[tuple[str, str], tuple[Program, ...]] = field(default_factory=dict)
    filters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    firewall: tuple[Rule, ...] = ()
    network_files: tuple[str, ...] = ()
    no_way_to_proxies: tuple[str, ...] = ()
    pods: tuple[PodFacts, ...] = ()
    tables: Mapping[str, Usage] = field(default_factory=dict)
    services: tuple[ServiceView, ...] = ()
    kube_proxy: tuple[str, ...] = ()
    control_group: Path | None = None
    at_sockets: Mapping[str, bool] = field(default_factory=dict)
    certificates: tuple[Problem, ...] = ()

    @property
    def overlay(self) -> bool:
        return self.config.routing == "overlay"

    @property
    def others(self) -> tuple[NodeState, ...]:
        return tuple(each for each in self.nodes if each.name != self.config.node)
