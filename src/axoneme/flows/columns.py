"""A ring of records: an array of fixed size in which the newest overwrite the oldest.

Every record ever appended has a sequence number, counted from 0; the ring holds those from `first`
to `next` (exclusive). A reader keeps the number of the record that it wants next: whoever falls
behind `first` has lost the difference, and can say how much.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

import numpy as np
import numpy.typing as npt

from axoneme.flows.events import Records, join, opaque


class Ring:
    def __init__(self, dtype: np.dtype[np.void], capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"a ring of {capacity} records")
        self._records: Records = np.zeros(capacity, dtype)
        self._opaque = opaque(self._records)
        self.capacity = capacity
        self.next = 0

    @property
    def first(self) -> int:
        return max(0, self.next - self.capacity)

    def __len__(self) -> int:
        return self.next - self.first

    def append(self, records: Records) -> None:
        """Adds a batch that begins no earlier (``time``) than the last one ended."""
        kept = opaque(records[-self.capacity :])
        start = (self.next + len(records) - len(kept)) % self.capacity
        head = min(len(kept), self.capacity - start)
        self._opaque[start : start + head] = kept[:head]
        self._opaque[: len(kept) - head] = kept[head:]
        self.next += len(records)

    def read(self, start: int, stop: int) -> Records:
        """A copy of the records that are still there of those from ``start`` to ``stop`` (exclusive)."""
        start, stop = max(start, self.first), min(stop, self.next)
        if stop <= start:
            return np.zeros(0, self._records.dtype)
        begin, end = start % self.capacity, stop % self.capacity
        if begin < end:
            return join(self._records[begin:end])
        return join(self._records[begin:], self._records[:end])

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

    def column(self, field: str) -> npt.NDArray[Any]:
        """One column of all that is kept, in no order: a view."""
        return self._records[field][: len(self)]
