"""What a sandbox shall be: the values that `up` settles once and every part reads.

Pure: names, numbers and addresses only. All sandboxes use the same addresses; each has its own network
namespaces, so they never meet.
"""

from __future__ import annotations

import enum
import ipaddress
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from axoneme.sandbox.errors import SandboxError
from axoneme.sandbox.layout import check_name
from axoneme.sandbox.services.allocation import Ranges

MAX_NODES: Final = 64

IPV4_UNDERLAY: Final = ipaddress.IPv4Network("172.31.0.0/24")
IPV6_UNDERLAY: Final = ipaddress.IPv6Network("fd00:a0::/64")
IPV4_ROUTER: Final = IPV4_UNDERLAY[254]
IPV6_ROUTER: Final = IPV6_UNDERLAY[0xFE]

#: Addresses that are neither a node's nor a pod's: documentation ranges (RFC 5737, RFC 3849).
IPV4_WORLD: Final = ("203.0.113.10", "203.0.113.20", "198.51.100.10")
IPV6_WORLD: Final = ("2001:db8:a::10", "2001:db8:a::20", "2001:db8:b::10")
WORLD_PORTS: Final = (80, 443, 8080)
DNS_PORT: Final = 53

#: Where the nodes take their pod ranges from, and how long a node's prefix is.
IPV4_PODS: Final = ("10.244.0.0/16", 24)
IPV6_PODS: Final = ("fd00:10:244::/56", 64)

#: Where services take their addresses from, and the place in these ranges where the cluster's DNS is.
IPV4_SERVICES: Final = ipaddress.IPv4Network("10.96.0.0/16")
IPV6_SERVICES: Final = ipaddress.IPv6Network("fd00:10:96::/112")
DNS_PLACE: Final = 10

CLUSTER_NAME: Final = "default"


class Routing(enum.Enum):
    """How packets get from node to node: in VXLAN, or by routes on the shared link."""

    OVERLAY = "overlay"
    NATIVE = "native"


class Family(enum.Enum):
    IPV4 = "ipv4"
    IPV6 = "ipv6"
    DUAL = "dual"

    @property
    def ipv4(self) -> bool:
        return self is not Family.IPV6

    @property
    def ipv6(self) -> bool:
        return self is not Family.IPV4

    def names(self) -> tuple[str, ...]:
        return tuple(name for name, wanted in (("ipv4", self.ipv4), ("ipv6", self.ipv6)) if wanted)

    def versions(self) -> tuple[int, ...]:
        return tuple(version for version, wanted in ((4, self.ipv4), (6, self.ipv6)) if wanted)


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One virtual node: its name and its place on the shared link. `number` counts from 1."""

    name: str
    number: int
    ipv4: ipaddress.IPv4Interface | None
    ipv6: ipaddress.IPv6Interface | None

    def addresses(self) -> tuple[str, ...]:
        """Its own addresses as text, IPv4 first."""
        return tuple(str(interface.ip) for interface in (self.ipv4, self.ipv6) if interface is not None)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One sandbox. `agent_command` and `flows_command` start the two processes that every node has,
    `history_command` the one that it has with a `history`, `proxy_command`, with the kind added, those that
    it may need; the path of its configuration is added to them."""

    name: str
    nodes: int = 2
    routing: Routing = Routing.OVERLAY
    family: Family = Family.DUAL
    #: Whether there is a cluster DNS.
    dns: bool = True
    #: A master file with the names of the world; empty: a zone with a few names for its addresses.
    zone: str = ""
    #: Where nodes keep flows, each in a folder of its name; empty: nowhere but in memory.
    history: str = ""
    #: Whether agents and flow servers serve metrics, on the loopback addresses of their nodes.
    metrics: bool = False
    #: With -P: what lies in the folder that the user is in is not Axoneme's, and is run by root.
    agent_command: tuple[str, ...] = (sys.executable, "-P", "-m", "axoneme.cli", "agent", "--config")
    flows_command: tuple[str, ...] = (
        sys.executable,
        "-P",
        "-m",
        "axoneme.cli",
        "flows",
        "serve",
        "--config",
    )
    history_command: tuple[str, ...] = (sys.executable, "-P", "-m", "axoneme.cli", "history", "--config")
    proxy_command: tuple[str, ...] = (sys.executable, "-P", "-m", "axoneme.proxy")

    def check(self) -> Plan:
        check_name(self.name)
        if not 1 <= self.nodes <= MAX_NODES:
            raise SandboxError(f"sandbox {self.name}: {self.nodes} nodes; give 1 to {MAX_NODES}")
        return self

    def node(self, number: int) -> NodePlan:
        four = ipaddress.IPv4Interface((IPV4_UNDERLAY[number], IPV4_UNDERLAY.prefixlen))
        six = ipaddress.IPv6Interface((IPV6_UNDERLAY[number], IPV6_UNDERLAY.prefixlen))
        return NodePlan(
            name=f"node{number}",
            number=number,
            ipv4=four if self.family.ipv4 else None,
            ipv6=six if self.family.ipv6 else None,
        )

    def all_nodes(self) -> Iterator[NodePlan]:
        return map(self.node, range(1, self.nodes + 1))

    def service_ranges(self) -> Ranges:
        networks = ((IPV4_SERVICES, self.family.ipv4), (IPV6_SERVICES, self.family.ipv6))
        return Ranges(tuple(network for network, wanted in networks if wanted))

    def dns_addresses(self) -> tuple[str, ...]:
        """Of the cluster's DNS, that of the first family first; none without it."""
        return tuple(str(each[DNS_PLACE]) for each in self.service_ranges().networks) if self.dns else ()

    def name_servers(self) -> tuple[str, ...]:
        """Of the world."""
        return ((IPV4_WORLD[0],) if self.family.ipv4 else ()) + ((IPV6_WORLD[0],) if self.family.ipv6 else ())

    def world_addresses(self) -> tuple[str, ...]:
        return (IPV4_WORLD if self.family.ipv4 else ()) + (IPV6_WORLD if self.family.ipv6 else ())
