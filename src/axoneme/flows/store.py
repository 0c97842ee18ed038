"""What the flow server remembers: two rings, drops apart from the rest, read as one by time.

No load of forwarded traffic may displace a drop: neither in the kernel, where each has its ring
buffer, nor here. Readers see one sequence: `FlowStore.read` merges the two by time.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from axoneme.flows.columns import Ring
from axoneme.flows.events import Mask, Records, join, take
from axoneme.flows.packing import Packing


@dataclass(slots=True)
class Cursor:
    """Where a reader stands: the sequence numbers that it wants next. ``told``: of how many events
    the reader knows that they were lost before they got here: flows, drops, requests."""

    flows: int
    drops: int
    told: tuple[int, int, int] | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Records in order of time, and how many this reader missed before them, by ring."""

    records: Records
    lost_flows: int = 0
    lost_drops: int = 0


@dataclass(slots=True)
class KernelLosses:
    """Events that found their ring buffer in the kernel full, since the kernel's tables exist."""

    flows: int = 0
    drops: int = 0


class FlowStore:
    def __init__(self, dtype: np.dtype[np.void], flows: int, drops: int) -> None:
        self.dtype = dtype
        self._packing = Packing(dtype)
        self.flows = Ring(self._packing, flows)
        self.drops = Ring(self._packing, drops)
        self.kernel_losses = KernelLosses()
        #: Requests that proxies could not tell of.
        self.requests_lost = 0

    def tidy(self) -> None:
        """Now and then: forgets what no record refers to any more."""
        if self._packing.crowded:
            self._packing.collect((self.flows.packed, self.drops.packed))

    def end(self) -> Cursor:
        """Behind the newest record: a reader who starts here sees only what comes."""
        return Cursor(self.flows.next, self.drops.next)

    def beginning(self) -> Cursor:
        return Cursor(self.flows.first, self.drops.first)

    def since(self, time: int) -> Cursor:
        """At the first records that are not older than ``time`` (CLOCK_MONOTONIC, ns)."""
        time = max(0, time)
        return Cursor(self.flows.at(time), self.drops.at(time))

    def rows_since(self, time: int) -> npt.NDArray[np.uint32]:
        """The rows (`axoneme.flows.names`) of the ends of records that are not older than ``time``."""
        found = []
        for packed in (self.flows.packed, self.drops.packed):
            new = packed["time"] >= time
            found += [packed[column][new] for column in ("source_row", "destination_row")]
        return np.unique(np.concatenate(found))

    def last(
        self, count: int, accepts: Callable[[Records], Mask], begin: Cursor, end: Cursor
    ) -> Generator[None, None, Cursor]:
        """Returns from where on there are ``count`` records before ``end`` that ``accepts`` lets through (or
        as many as there are after ``begin``). Yields when others should get their turn."""
        flows = yield from _last(self.flows, count, accepts, begin.flows, end.flows)
        drops = yield from _last(self.drops, count, accepts, begin.drops, end.drops)
        # As `read` orders them: by time, and what has the same time with the connections first.
        chosen = np.argsort(np.concatenate((flows[1], drops[1])), kind="stable")
        chosen = chosen[max(0, len(chosen) - count) :]
        first_flow, first_drop = chosen[chosen < len(flows[0])], chosen[chosen >= len(flows[0])]
        return Cursor(
            int(flows[0][first_flow[0]]) if len(first_flow) else end.flows,
            int(drops[0][first_drop[0] - len(flows[0])]) if len(first_drop) else end.drops,
        )

    def read(self, cursor: Cursor, limit: int, stop: Cursor | None = None) -> Batch:
        """The next records after ``cursor`` and before ``stop``, at most ``limit``; moves ``cursor``.

        Empty when there is nothing new. What the rings have overwritten meanwhile is counted.
        """
        stop = stop or self.end()
        lost_flows = max(0, min(self.flows.first, stop.flows) - cursor.flows)
        lost_drops = max(0, min(self.drops.first, stop.drops) - cursor.drops)
        cursor.flows += lost_flows
        cursor.drops += lost_drops
        flows = self.flows.read(cursor.flows, min(stop.flows, cursor.flows + limit))
        drops = self.drops.read(cursor.drops, min(stop.drops, cursor.drops + limit))
        records, taken = merge(flows, drops, limit)
        cursor.flows += taken
        cursor.drops += len(records) - taken
        return Batch(records, lost_flows, lost_drops)


def merge(flows: Records, drops: Records, limit: int) -> tuple[Records, int]:
    """The ``limit`` oldest of two sorted batches, by time, and how many of them are from ``flows``."""
    if not len(drops):
        return flows[:limit], min(len(flows), limit)
    if not len(flows):
        return drops[:limit], 0
    both = join(flows, drops)
    order = np.argsort(both["time"], kind="stable")[:limit]
    return take(both, order), int(np.count_nonzero(order < len(flows)))


#: Records that are looked at at once on the way back.
_STRIDE = 4096

#: Sequence numbers and times of some records.
_Places = tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]


def _last(
    ring: Ring, count: int, accepts: Callable[[Records], Mask], begin: int, stop: int
) -> Generator[None, None, _Places]:
    """The last ``count`` or a few more that are accepted, in order. The oldest may be gone meanwhile."""
    numbers: list[npt.NDArray[np.int64]] = [np.zeros(0, np.int64)]
    times: list[npt.NDArray[np.uint64]] = [np.zeros(0, np.uint64)]
    found = 0
    while stop > (begin := max(begin, ring.first)) and found < count:
        start = max(begin, stop - _STRIDE)
        records = ring.read(start, stop)
        places = np.flatnonzero(accepts(records))
        numbers.append(places + start)
        times.append(records["time"][places])
        found += len(places)
        stop = start
        yield
    return np.concatenate(numbers[::-1]), np.concatenate(times[::-1])
