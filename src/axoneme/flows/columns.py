"""A ring of records: an array of fixed size in which the newest overwrite the oldest.

Every record ever appended has a sequence number, counted from 0; the ring holds those from `first`
to `next` (exclusive). A reader keeps the number of the record that it wants next: whoever falls
behind `first` has lost the difference, and can say how much.
"""

from __future__ import annotations

from bisect import bisect_left

import numpy as np

from axoneme.flows.events import Records
from axoneme.flows.packing import Packed, Packing


class Ring:
    """Takes and gives records as `Packing` has them, and keeps them packed."""

    def __init__(self, packing: Packing, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"a ring of {capacity} records")
        self._packing = packing
        self._records: Packed = np.zeros(capacity, packing.packed)
        self.capacity = capacity
        self.next = 0

    @property
    def first(self) -> int:
        return max(0, self.next - self.capacity)

    def __len__(self) -> int:
        return self.next - self.first

    def append(self, records: Records) -> None:
        """Adds a batch that begins no earlier (``time``) than the last one ended."""
        kept = records[-self.capacity :]
        start = (self.next + len(records) - len(kept)) % self.capacity
        head = min(len(kept), self.capacity - start)
        self._packing.pack(kept[:head], self._records[start : start + head])
        self._packing.pack(kept[head:], self._records[: len(kept) - head])
        self.next += len(records)

    def read(self, start: int, stop: int) -> Records:
        """A copy of the records that are still there of those from ``start`` to ``stop`` (exclusive)."""
        start, stop = max(start, self.first), min(stop, self.next)
        if stop <= start:
            return np.zeros(0, self._packing.dtype)
        begin, end = start % self.capacity, stop % self.capacity
        if begin < end:
            return self._packing.unpack(self._records[begin:end])
        places = np.arange(start, stop) % self.capacity
        return self._packing.unpack(self._records[places])

    def at(self, time: int) -> int:
        """The sequence number of the first record that is not older than ``time``."""
        times = self._records["time"]
        return self.first + bisect_left(
            range(self.first, self.next), time, key=lambda number: int(times[number % self.capacity])
        )

    @property
    def newest(self) -> int:
        """The time of the last record; 0 when there is none."""
        return int(self._records["time"][(self.next - 1) % self.capacity]) if self.next else 0

    @property
    def packed(self) -> Packed:
        """All that is kept, in no order: a view."""
        return self._records[: len(self)]
