"""What the nodes say of services, as one: agents of their kernels' tables, flow servers of what flows.

Values in, values out. Numbers of services and backends are each node's own, so what a node's two processes
say is brought together first, and then the nodes' words are, by names and addresses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from axoneme.flows.traffic import BackendTraffic, Counts
from axoneme.services.view import BackendView, FrontendView, ServiceView


class Traffic(msgspec.Struct, frozen=True):
    """``open``: connections just now; packets and bytes from clients and (``reply_``) to them, of those and
    of the ones that have ended."""

    open: int = 0
    packets: int = 0
    bytes: int = 0
    reply_packets: int = 0
    reply_bytes: int = 0

    @classmethod
    def of(cls, open_: Counts, ended: Counts) -> Traffic:
        return cls(
            open_.connections,
            open_.packets + ended.packets,
            open_.bytes + ended.bytes,
            open_.reply_packets + ended.reply_packets,
            open_.reply_bytes + ended.reply_bytes,
        )

    def __add__(self, other: Traffic) -> Traffic:
        mine, theirs = msgspec.structs.astuple(self), msgspec.structs.astuple(other)
        return Traffic(*(a + b for a, b in zip(mine, theirs, strict=True)))


class BackendReport(msgspec.Struct, frozen=True):
    """``seen_by``: the nodes that balance to it, where some do not. ``traffic``: None where no flow server
    tells; what a node's clients had of it is counted on that node."""

    address: str
    port: int
    state: str
    weight: int = 1
    node: str = ""
    name: str = ""
    callers: str = ""
    seen_by: tuple[str, ...] = ()
    chosen: int = 0
    traffic: Traffic | None = None


class ServiceReport(msgspec.Struct, frozen=True):
    name: str
    port: str
    protocol: str
    frontends: tuple[FrontendView, ...] = ()
    backends: tuple[BackendReport, ...] = ()
    algorithm: str = "random"
    affinity: int = 0  # seconds
    chosen: int = 0
    refused: int = 0
    traffic: Traffic | None = None
    problems: tuple[str, ...] = ()

    @property
    def active(self) -> list[BackendReport]:
        return [each for each in self.backends if each.state == "active"]


class NodeWord(NamedTuple):
    """What one node says; ``traffic`` is None where its flow server does not answer."""

    services: Sequence[ServiceView]
    traffic: Sequence[BackendTraffic] | None


def merge(nodes: Mapping[str, NodeWord]) -> list[ServiceReport]:
    """By name and port."""
    found: dict[tuple[str, str], dict[str, ServiceView]] = {}
    for node, word in nodes.items():
        for view in word.services:
            found.setdefault((view.name, view.port), {})[node] = view
    counts = {node: _counts(word.traffic) for node, word in nodes.items()}
    return [_service(found[key], counts) for key in sorted(found)]


_Counts = dict[tuple[int, int], Traffic] | None


def _counts(told: Iterable[BackendTraffic] | None) -> _Counts:
    if told is None:
        return None
    return {(each.service, each.backend): Traffic.of(each.open, each.ended) for each in told}


def _service(views: Mapping[str, ServiceView], counts: Mapping[str, _Counts]) -> ServiceReport:
    first = next(iter(views.values()))
    backends = list(_backends(views, counts))
    problems = [f"node {node}: {view.problem}" for node, view in views.items() if view.problem]
    if not any(each.state == "active" for each in backends):
        problems.append("no backend takes connections: they are refused")
    told = any(counts[node] is not None for node in views)
    nothing = Traffic() if told else None
    return ServiceReport(
        name=first.name,
        port=first.port,
        protocol=first.protocol,
        frontends=tuple(dict.fromkeys(each for view in views.values() for each in view.frontends)),
        backends=tuple(backends),
        algorithm=first.algorithm,
        affinity=first.affinity,
        chosen=sum(each.chosen for each in backends),
        refused=sum(view.refused for view in views.values()),
        traffic=_sum((*(each.traffic for each in backends), nothing)),
        problems=tuple(problems),
    )


def _backends(views: Mapping[str, ServiceView], counts: Mapping[str, _Counts]) -> Iterable[BackendReport]:
    found: dict[tuple[str, int, str], dict[str, BackendView]] = {}
    for node, view in views.items():
        for each in view.backends:
            found.setdefault((each.address, each.port, each.callers), {})[node] = each
    for (address, port, callers), by_node in found.items():
        # Nodes hear of a change one after the other: until all have, it counts as what the first says.
        first = next(iter(by_node.values()))
        yield BackendReport(
            address=address,
            port=port,
            state=first.state,
            weight=first.weight,
            node=first.node,
            name=first.name,
            callers=callers,
            seen_by=tuple(by_node) if len(by_node) < len(views) else (),
            chosen=sum(each.chosen for each in by_node.values()),
            traffic=_sum(_of(counts[node], each) for node, each in by_node.items()),
        )


def _of(counts: _Counts, backend: BackendView) -> Traffic | None:
    if counts is None:
        return None
    return sum((counts.get((each, backend.number), Traffic()) for each in backend.services), Traffic())


def _sum(parts: Iterable[Traffic | None]) -> Traffic | None:
    """Of those that are told; None where none is."""
    told = [part for part in parts if part is not None]
    return sum(told, Traffic()) if told else None
