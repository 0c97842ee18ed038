"""Services as an agent tells them: what stands in its kernel's tables, and how often each backend was chosen.

These are the answers to ``services`` on the agent's socket; `axo service` shows them, and the flow server's
counts (`axoneme.flows.traffic`) beside them, which have the same numbers.
"""

from __future__ import annotations

from typing import Literal

import msgspec


class FrontendView(msgspec.Struct, frozen=True):
    """What clients call. ``address`` is 0.0.0.0 or :: for every address of the node."""

    address: str
    port: int
    type: str  # a `axoneme.services.balanced.FrontendKind`
    external: bool = False
    direct: bool = False
    source_ranges: tuple[str, ...] | None = None


class BackendView(msgspec.Struct, frozen=True, omit_defaults=True):
    """``callers``: those who may get it, where that is not everybody: within the cluster, or outside."""

    number: int  # in the kernel's tables of this node, as are all numbers
    services: tuple[int, ...]  # those of the service's numbers that lead to it
    address: str
    port: int
    state: str  # a `axoneme.services.balanced.BackendState`
    weight: int = 1
    node: str = ""
    name: str = ""
    callers: Literal["", "inside", "outside"] = ""
    chosen: int = 0  # how many connections it was chosen for since the tables exist


class ServiceView(msgspec.Struct, frozen=True, omit_defaults=True):
    """One port of one service, both families."""

    name: str  # default/web
    port: str  # its name, or 80/TCP
    protocol: str
    numbers: tuple[int, ...]  # of the family's and the callers' views of it, in the kernel's tables
    frontends: tuple[FrontendView, ...] = ()
    backends: tuple[BackendView, ...] = ()
    algorithm: str = "random"
    affinity: int = 0  # seconds
    refused: int = 0  # connections for which there was no backend, since the tables exist
    problem: str = ""  # what of it could not be programmed, and why


class BalancingSummary(msgspec.Struct, frozen=True):
    """Of a node, in its ``status``. ``services`` are ports of services."""

    services: int = 0
    frontends: int = 0
    backends: int = 0
    empty: int = 0  # services that refuse their callers: they have no backend
    algorithm: str = ""
    forwarding: str = ""  # how callers from outside reach backends of other nodes: snat, dsr, hybrid
    sockets: str = ""  # the control group whose processes' calls are translated where they are made; "": none
