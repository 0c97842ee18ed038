"""Who talks to whom, added up: for each pair of ends and port, connections, drops, bytes, and how TCP fared.

Costs nothing until somebody asks, and stops a minute after nobody does. What is over is counted from the
record, page by page; what is open, from the flow table, whenever that has been walked through. So what has
moved over a pair of ends is that of all connections that had ended when a walk began, and of those that it
met.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from axoneme.flows.events import L7, Records, take
from axoneme.flows.expiry import FlowTable
from axoneme.flows.flowlog import FlowLog
from axoneme.flows.names import End
from axoneme.flows.store import Cursor

#: Nanoseconds for which counting goes on without being asked for.
PATIENCE: Final = 60_000_000_000
#: Edges that are told apart; of more, the half that was idle for longest is forgotten.
_MOST: Final = 8192
#: Records at once.
_PAGE: Final = 8192
#: Rows of ends that have a place in a key; others count as unknown.
_ROWS: Final = 1 << 20

_OVER: Final = (
    *("opened", "ended", "dropped", "sent", "received", "sent_again", "received_again"),
    *("rtt", "rtts", "handshake", "handshakes"),
)
_OPEN: Final = ("open", "sent", "received", "sent_again", "received_again", "rtt", "rtts")
_MOVED: Final = ("sent", "received", "sent_again", "received_again")

_Counts = npt.NDArray[np.int64]


class EdgeEnd(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    namespace: str = ""
    pod: str = ""
    workload_kind: str = ""
    workload: str = ""
    node: str = ""
    labels: tuple[str, ...] = ()


class Edge(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """From who begins connections to who is called, at a port; counted since `EdgeReport.since`, apart from
    ``open`` and what begins with it, which is of now.

    ``sent`` and ``received`` are bytes from and to the initiator, in connections that are open or over, also
    those
    from before ``since``. ``sent_again`` and ``received_again``: segments that the initiator, and the other
    end, had to send again. ``rtt`` is the sum over ``rtts`` connections, in microseconds, as ``handshake``
    over ``handshakes``.
    """

    source: EdgeEnd
    destination: EdgeEnd
    protocol: int
    port: int
    open: int = 0
    opened: int = 0
    ended: int = 0
    dropped: int = 0  # packets
    sent: int = 0
    received: int = 0
    sent_again: int = 0
    received_again: int = 0
    rtt: int = 0
    rtts: int = 0
    handshake: int = 0
    handshakes: int = 0
    open_rtt: int = 0
    open_rtts: int = 0


class EdgeReport(msgspec.Struct, frozen=True, gc=False):
    """``time`` and ``since``: CLOCK_MONOTONIC, ns. ``walks``: how often the flow table has been walked
    through; without any, nothing is known of what is open. ``missed``: records that were overwritten
    uncounted."""

    node: str
    time: int
    since: int
    walks: int
    missed: int
    edges: list[Edge]


class EdgeCounts:
    """``clock``: CLOCK_MONOTONIC, ns."""

    def __init__(self, log: FlowLog, meaning: FlowTable, clock: Callable[[], int]) -> None:
        self._log = log
        self._meaning = meaning
        self._clock = clock
        self._asked = -PATIENCE
        self._begin()

    def _begin(self) -> None:
        self._since = self._clock()
        self._cursor: Cursor = self._log.store.end()
        self._over = _Table(_OVER)
        self._walked = self._walking = _Table(_OPEN)
        self._over_then: dict[int, _Counts] | None = None
        self._moved: dict[int, _Counts] = {}
        self._ends: dict[int, tuple[End, End]] = {}
        self._walks = self._missed = 0

    @property
    def wanted(self) -> bool:
        return self._clock() - self._asked < PATIENCE

    def report(self) -> EdgeReport:
        if not self.wanted:
            self._begin()
        self._asked = self._clock()
        self.catch_up()
        keys = sorted(self._over.rows.keys() | self._walked.rows.keys(), key=str)
        edges = [self._edge(key) for key in keys]
        return EdgeReport(self._log.node, self._asked, self._since, self._walks, self._missed, edges)

    # ---- what is over --------------------------------------------------------------------------

    def catch_up(self) -> None:
        """Counts what has been recorded since; often enough, or it is overwritten."""
        if not self.wanted:
            return
        while True:
            batch = self._log.store.read(self._cursor, _PAGE)
            self._missed += batch.lost_flows + batch.lost_drops
            if not len(batch.records):
                return
            self._count(batch.records)

    def _count(self, records: Records) -> None:
        records = take(records, records["kind"] != L7)
        if not len(records):
            return
        meaning = self._log.vocabulary
        kind = records["kind"]
        end = kind == meaning.end
        drop = kind == meaning.drop
        counts = {
            "opened": kind == meaning.new,
            "ended": end,
            "dropped": np.where(drop, records["packets"].sum(axis=1), 0),
            "sent": np.where(end, records["bytes"][:, 0], 0),
            "received": np.where(end, records["bytes"][:, 1], 0),
            "sent_again": records["retransmissions"][:, 0],
            "received_again": records["retransmissions"][:, 1],
            "rtt": records["rtt"],
            "rtts": records["rtt"] != 0,
            "handshake": records["handshake"],
            "handshakes": records["handshake"] != 0,
        }
        self._over.add(*self._grouped(records), np.column_stack([counts[name] for name in _OVER]))

    # ---- what is open --------------------------------------------------------------------------

    def walk(self, keys: npt.NDArray[np.void], flows: npt.NDArray[np.void]) -> None:
        """Some entries of the flow table."""
        if not self.wanted:
            return
        if self._over_then is None:
            self.catch_up()
            self._over_then = {key: row[3:7].copy() for key, row in self._over.items()}
            self._walking = _Table(_OPEN)
        live = flows["state"] != self._meaning.closed
        keys, flows = keys[live], flows[live]
        if not len(keys):
            return
        log = self._log
        records = np.zeros(len(keys), log.store.dtype)
        events = self._meaning.described(keys, flows, log.vocabulary)
        for name in events.dtype.names or ():
            records[name] = events[name]
        log.names.resolve(records)
        legs = flows["leg"]
        counts = {
            "open": np.ones(len(flows), np.int64),
            "sent": legs["bytes"][:, 0],
            "received": legs["bytes"][:, 1],
            "sent_again": legs["retransmissions"][:, 0],
            "received_again": legs["retransmissions"][:, 1],
            "rtt": flows["rtt"],
            "rtts": flows["rtt"] != 0,
        }
        self._walking.add(*self._grouped(records), np.column_stack([counts[name] for name in _OPEN]))

    def walked(self) -> None:
        """All of it has been seen."""
        if self._over_then is None:
            return
        then, self._over_then = self._over_then, None
        self._walked = self._walking
        self._moved = dict(then)
        for key, row in self._walked.items():
            self._moved[key] = self._moved.get(key, np.zeros(4, np.int64)) + row[1:5]
        self._walks += 1

    # ---- edges ---------------------------------------------------------------------------------

    def _grouped(self, records: Records) -> tuple[list[int], npt.NDArray[np.intp]]:
        """The keys of the edges that there are, and which of them is each record's. Their ends are
        remembered."""
        reply = records["flags"] & self._log.vocabulary.reply != 0
        source = np.where(reply, records["destination_row"], records["source_row"]).astype(np.uint64)
        destination = np.where(reply, records["source_row"], records["destination_row"]).astype(np.uint64)
        port = np.where(reply, records["source_port"], records["destination_port"]).astype(np.uint64)
        source[source >= _ROWS] = 0
        destination[destination >= _ROWS] = 0
        numbers = source << 44 | destination << 24 | port << 8 | records["protocol"]
        unique, inverse = np.unique(numbers, return_inverse=True)
        names = self._log.names
        keys: list[int] = []
        for number in unique.tolist():
            ends = names[number >> 44], names[number >> 24 & _ROWS - 1]
            key = number
            while self._ends.setdefault(key, ends) != ends:  # a row was given to another end since
                key += 1 << 64
            keys.append(key)
        if len(self._ends) > _MOST:
            self._forget(set(keys))
        return keys, inverse

    def _forget(self, keep: set[int]) -> None:
        idle = [key for key in self._over.idle() if key not in keep and key not in self._walking.rows]
        for key in idle[: _MOST // 2]:
            self._over.drop(key)
            self._ends.pop(key, None)
            self._moved.pop(key, None)

    def _edge(self, key: int) -> Edge:
        source, destination = self._ends[key]
        over, now = self._over.get(key), self._walked.get(key)
        moved = self._moved.get(key)
        values = dict(zip(_OVER, over, strict=True))
        if moved is not None:
            values |= dict(zip(_MOVED, moved.tolist(), strict=True))
        open_ = dict(zip(_OPEN, now, strict=True))
        return Edge(
            _end(source),
            _end(destination),
            protocol=key & 0xFF,
            port=key >> 8 & 0xFFFF,
            open=open_["open"],
            open_rtt=open_["rtt"],
            open_rtts=open_["rtts"],
            **values,
        )


class _Table:
    """Sums by key."""

    def __init__(self, columns: tuple[str, ...]) -> None:
        self._width = len(columns)
        self._values: _Counts = np.zeros((64, self._width), np.int64)
        #: In the order in which they were used last.
        self.rows: dict[int, int] = {}
        self._free: list[int] = []

    def add(self, keys: list[int], which: npt.NDArray[np.intp], counts: npt.NDArray[Any]) -> None:
        """``counts``: rows of which ``which`` says the key."""
        sums = np.zeros((len(keys), self._width), np.int64)
        np.add.at(sums, which, counts.astype(np.int64))
        rows = [self._row(key) for key in keys]
        self._values[rows] += sums

    def _row(self, key: int) -> int:
        row = self.rows.pop(key, None)
        if row is None:
            row = self._free.pop() if self._free else len(self.rows)
            if row >= len(self._values):
                self._values = np.concatenate((self._values, np.zeros_like(self._values)))
        self.rows[key] = row
        return row

    def get(self, key: int) -> list[int]:
        row = self.rows.get(key)
        found: list[int] = [0] * self._width if row is None else self._values[row].tolist()
        return found

    def items(self) -> list[tuple[int, _Counts]]:
        return [(key, self._values[row]) for key, row in self.rows.items()]

    def idle(self) -> list[int]:
        """Keys, those first that were used the longest ago."""
        return list(self.rows)

    def drop(self, key: int) -> None:
        row = self.rows.pop(key)
        self._values[row] = 0
        self._free.append(row)


def _end(end: End) -> EdgeEnd:
    return EdgeEnd(end.namespace, end.pod, end.workload_kind, end.workload, end.node, end.labels)
