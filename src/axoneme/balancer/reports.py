"""What the load balancer tells of itself: the answers of its API."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

BackendState = Literal["up", "down", "draining", "unknown"]


class BackendReport(msgspec.Struct, frozen=True):
    """``state``: ``unknown`` until a check has said something, or without one; it is served then.
    ``problem``: why the last check failed. ``since``: seconds since the epoch; 0 where nothing is checked.
    ``connections``: with the backend now. ``chosen``: how often, since the tables exist."""

    name: str
    address: str
    port: int | None
    weight: int
    state: BackendState
    connections: int
    chosen: int
    problem: str = ""
    since: float = 0.0


class ServiceReport(msgspec.Struct, frozen=True):
    """``frontends`` as ``203.0.113.10:80/TCP``, those out of pools too. ``refused``: connections for which
    there was no backend. ``problem``: what of it could not be programmed."""

    name: str
    version: str
    frontends: tuple[str, ...]
    algorithm: str
    mode: str
    affinity: int
    backends: tuple[BackendReport, ...]
    connections: int
    refused: int
    problem: str = ""


class StatusReport(msgspec.Struct, frozen=True):
    """``version``: of the desired state; machines that show the same one choose the same backends, as long as
    their checks agree. ``source``: where that state stands. ``backends``: how many are in which state."""

    name: str
    software: str
    pid: int
    started: float
    version: str
    source: str
    uplinks: dict[str, tuple[str, ...]]
    services: int
    backends: dict[BackendState, int]
    connections: int
    problems: dict[str, str]
    kernel_lacks: tuple[str, ...]
    writes: int
    repairs: dict[str, int]


class ConnectionReport(msgspec.Struct, frozen=True):
    """Ends as ``198.51.100.7:40000``; ``source``: what the backend sees as its client. Times in seconds."""

    service: str
    backend: str
    protocol: str
    client: str
    frontend: str
    source: str
    server: str
    state: str
    age: float
    idle: float
    packets: tuple[int, int]
    bytes: tuple[int, int]


class ConnectionsReport(msgspec.Struct, frozen=True):
    """``total``: how many there are, of which the longest-lived are listed."""

    total: int
    connections: tuple[ConnectionReport, ...]


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """RFC 9457. ``field``: which one of the request is wrong; ``found``: what stands there; ``remedy``: what
    would be right."""

    title: str
    status: int
    detail: str
    type: str = "about:blank"
    field: str = ""
    found: str = ""
    remedy: str = ""


def counted(states: Iterable[BackendState]) -> dict[BackendState, int]:
    """How often each state."""
    found: dict[BackendState, int] = {"up": 0, "down": 0, "draining": 0, "unknown": 0}
    for state in states:
        found[state] += 1
    return found
