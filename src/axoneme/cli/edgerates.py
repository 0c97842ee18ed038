"""From what nodes have counted to what goes on now: edges of all nodes as one, and their rates.

A connection between two nodes is seen by both. What it moves is taken from the node of its source, where that
answers, else from that of its destination; drops happen at one of the two, and each counts the
retransmissions of its own sockets: those are added up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from axoneme.flows.edgecounts import Edge, EdgeEnd, EdgeReport

_RESERVED: Final = "reserved:"
_PROTOCOLS: Final = {1: "icmp", 17: "udp", 58: "icmpv6", 132: "sctp"}
_WITH_PORTS: Final = (6, 17, 132)
#: Of an `Edge`, what is added up.
_EVERYWHERE: Final = ("dropped", "sent_again", "received_again", "rtt", "rtts", "handshake", "handshakes")
_ONCE: Final = ("open", "opened", "ended", "sent", "received")
_NOW: Final = ("open_rtt", "open_rtts")
_COUNTS: Final = (*_EVERYWHERE, *_ONCE, *_NOW)

GROUPS: Final = ("workload", "pod", "namespace")
#: Source, destination.
_Key = tuple[str, str]
_Totals = dict[str, int]


class Row(msgspec.Struct, frozen=True):
    """One edge. Rates are a second's; times are microseconds, 0 where nothing was measured."""

    source: str
    destination: str  # with port, and protocol where that is not TCP
    open: int
    connections: float
    sent: float  # bytes
    received: float
    drops: float  # packets
    retransmissions: float  # segments
    rtt: int
    handshake: int
    dropped: int  # since counting began


_Value = Callable[[Row], float]
#: What rows can be sorted by, the busiest first.
SORTS: Final[Mapping[str, _Value]] = {
    "traffic": lambda row: row.sent + row.received,
    "connections": lambda row: row.connections,
    "drops": lambda row: row.drops,
    "rtt": lambda row: row.rtt,
    "retransmissions": lambda row: row.retransmissions,
}


def ordered(rows: Iterable[Row], sort: str, reverse: bool = False) -> list[Row]:
    """Of equals, those with more of all else first, then by name."""
    first = SORTS[sort]

    def place(row: Row) -> tuple[float, ...]:
        return (first(row), row.drops, row.sent + row.received, row.connections, row.open, row.dropped)

    named = sorted(rows, key=lambda row: (row.source, row.destination))
    return sorted(named, key=place, reverse=not reverse)


def matching(rows: Iterable[Row], text: str) -> list[Row]:
    """Those in whose ends all words stand."""
    words = text.lower().split()
    return [row for row in rows if all(word in f"{row.source} {row.destination}".lower() for word in words)]


@dataclass(slots=True)
class _Sample:
    time: int
    since: int
    edges: Mapping[_Key, _Totals]


class Rates:
    """Remembers what was counted before. Edges are told apart by ``group``, of `GROUPS`."""

    def __init__(self, group: str = "workload") -> None:
        self._group = group
        self._before: dict[str, _Sample] = {}

    def rows(self, reports: Sequence[EdgeReport]) -> list[Row]:
        """Of reports of different nodes, of one moment."""
        answering = {report.node for report in reports}
        totals: dict[_Key, _Totals] = {}
        changes: dict[_Key, dict[str, float]] = {}
        for report in reports:
            sample = _Sample(report.time, report.since, self._edges(report, answering))
            before = self._before.get(report.node)
            self._before[report.node] = sample
            if before is not None and before.since != sample.since:
                before = None
            for key, counts in sample.edges.items():
                total = totals.setdefault(key, dict.fromkeys(_COUNTS, 0))
                for name, value in counts.items():
                    total[name] += value
                if before is None or sample.time <= before.time:
                    continue
                seconds = (sample.time - before.time) / 1e9
                change = changes.setdefault(key, dict.fromkeys(_COUNTS, 0.0))
                for name, value in _since(counts, before.edges.get(key)).items():
                    # Averages are of all that was measured in between; the rest is per second.
                    change[name] += (
                        value if name in ("rtt", "rtts", "handshake", "handshakes") else value / seconds
                    )
        none = dict.fromkeys(_COUNTS, 0.0)
        return [_row(key, total, changes.get(key, none)) for key, total in totals.items()]

    def _edges(self, report: EdgeReport, answering: set[str]) -> dict[_Key, _Totals]:
        found: dict[_Key, _Totals] = {}
        for edge in report.edges:
            key = name(edge.source, self._group), _called(edge, self._group)
            counts = found.setdefault(key, dict.fromkeys(_COUNTS, 0))
            for field in (
                *_EVERYWHERE,
                *_NOW,
                *(_ONCE if _counts_here(edge, report.node, answering) else ()),
            ):
                counts[field] += getattr(edge, field)
        return found


def _counts_here(edge: Edge, node: str, answering: set[str]) -> bool:
    for end in (edge.source, edge.destination):
        if end.node in answering:
            return end.node == node
    return True


def _since(now: _Totals, before: _Totals | None) -> _Totals:
    """What was added. Of an edge that was not there before, connections that are older have moved nobody
    knows how much of it before."""
    if before is None:
        new = now["opened"] > 0
        return {field: value if new or field not in _ONCE else 0 for field, value in now.items()}
    return {field: max(0, value - before[field]) for field, value in now.items()}


def _row(key: _Key, total: _Totals, change: Mapping[str, float]) -> Row:
    rtts = change["rtts"] + total["open_rtts"]
    rtt = (change["rtt"] + total["open_rtt"]) / rtts if rtts else _mean(total["rtt"], total["rtts"])
    handshake = _mean(change["handshake"], change["handshakes"]) or _mean(
        total["handshake"], total["handshakes"]
    )
    return Row(
        source=key[0],
        destination=key[1],
        open=total["open"],
        connections=round(change["opened"], 2),
        sent=round(change["sent"], 1),
        received=round(change["received"], 1),
        drops=round(change["dropped"], 2),
        retransmissions=round(change["sent_again"] + change["received_again"], 2),
        rtt=round(rtt),
        handshake=round(handshake),
        dropped=total["dropped"],
    )


def _mean(total: float, count: float) -> float:
    return total / count if count else 0.0


def name(end: EdgeEnd, group: str) -> str:
    """``shop/web``; a node's name; ``world`` and others without a name of their own by their labels."""
    if end.namespace:
        if group == "namespace":
            return end.namespace
        return f"{end.namespace}/{(end.workload if group == 'workload' else '') or end.pod}"
    if end.node:
        return end.node
    reserved = [label.removeprefix(_RESERVED) for label in end.labels if label.startswith(_RESERVED)]
    return ",".join(reserved or end.labels) or "unknown"


def _called(edge: Edge, group: str) -> str:
    who = name(edge.destination, group)
    where = f"{who}:{edge.port}" if edge.protocol in _WITH_PORTS else who
    protocol = "" if edge.protocol == 6 else _PROTOCOLS.get(edge.protocol, f"protocol {edge.protocol}")
    return f"{where} {protocol}".rstrip()
