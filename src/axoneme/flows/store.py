"""What the flow server remembers: two rings, drops apart from the rest, read as one by time.

No load of forwarded traffic may displace a drop: neither in the kernel, where each has its ring
buffer, nor here. Readers see one sequence: `FlowStore.read` merges the two by time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from axoneme.flows.columns import Ring
from axoneme.flows.events import Records, join, take


@dataclass(slots=True)
class Cursor:
    """Where a reader stands: the sequence numbers that it wants next."""

    flows: int
    drops: int


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
        self.flows = Ring(dtype, flows)
        self.drops = Ring(dtype, drops)
        self.kernel_losses = KernelLosses()

    def end(self) -> Cursor:
        """Behind the newest record: a reader who starts here sees only what comes."""
        return Cursor(self.flows.next, self.drops.next)

    def beginning(self) -> Cursor:
        return Cursor(self.flows.first, self.drops.first)

    def since(self, time: int) -> Cursor:
        """At the first records that are not older than ``time`` (CLOCK_MONOTONIC, ns)."""
        time = max(0, time)
        return Cursor(self.flows.at(time), self.drops.at(time))

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
