"""What is balanced, whoever says so: frontends that clients call, and the backends that they get."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import msgspec

from axoneme.model.policy import Protocol

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Algorithm(enum.Enum):
    """How a connection gets its backend. Backends of different weights are always told apart by weight."""

    RANDOM = "random"
    #: The connection's tuple decides, alike on every machine that has the same backends.
    MAGLEV = "maglev"


class FrontendKind(enum.Enum):
    """Why clients call this address: for people, and for what else follows from it."""

    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    EXTERNAL_IP = "ExternalIP"
    LOAD_BALANCER = "LoadBalancer"
    HOST_PORT = "HostPort"
    LOCAL_REDIRECT = "LocalRedirect"
    BALANCER = "Balancer"


class BackendState(enum.Enum):
    """Whether connections begin there, or only go on."""

    ACTIVE = "active"
    #: Old connections go on; no new ones: it is terminating, drained, or not ready any more.
    LEAVING = "leaving"


@dataclass(frozen=True, slots=True)
class Frontend:
    """An address, a port and a protocol. ``address`` unspecified (0.0.0.0, ::): every address of the node."""

    address: Address
    port: int
    protocol: Protocol
    kind: FrontendKind
    #: Served also to who calls from outside the cluster.
    external: bool = False
    #: Of who calls from outside only these are served; None: everybody.
    source_ranges: tuple[Network, ...] | None = None
    #: Backends of other nodes answer clients from outside by themselves (direct server return).
    direct: bool = False
    #: The same for backends that have the service's address and port themselves, wherever they are: they get
    #: clients' packets unchanged in IP in IP.
    wrapped: bool = False


class Backend(msgspec.Struct, frozen=True, gc=False):  # a node has a hundred thousand of them
    """Where a service is. ``weight``: its share of the connections, in proportion; 0 only for `LEAVING`."""

    address: Address
    port: int
    weight: int = 1
    state: BackendState = BackendState.ACTIVE
    #: Its node, where one is known, and what people call it, such as ``default/web-7d4b9``.
    node: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Balanced:
    """One port of one service. Its frontends of a family get the backends of that family.

    ``name``: of the whole, such as ``default/web``; with ``port`` (the port's name, or its number and
    protocol, as ``80/TCP``) it is unique.
    """

    name: str
    port: str
    protocol: Protocol
    frontends: tuple[Frontend, ...]
    backends: tuple[Backend, ...]
    #: For callers from outside, where they get others (``externalTrafficPolicy: Local``); None: the same.
    outside: tuple[Backend, ...] | None = None
    algorithm: Algorithm = Algorithm.RANDOM
    #: Seconds for which a client keeps its backend; 0: each connection is balanced.
    affinity: int = 0
    #: When it was made, as text that sorts (RFC 3339, UTC); of two that claim one frontend the older has it.
    created: str = ""
