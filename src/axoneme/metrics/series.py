"""Counters and histograms whose series stand in arrays: thousands of flows are counted by a few operations.

A series has a number of 64 bits: of its source (20), of its destination (20), and its own (24), which its
metric explains. When a metric has as many series as it may, those go that nothing was counted in for
longest, if that is long enough; else what comes is counted in series whose labels for the ends say
``overflow``, as do others of which nobody knows how many values there are: sums over all stay right.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from axoneme.metrics.families import SECONDS, Exemplar, Family, bounds, histogram, marked
from axoneme.metrics.parties import BITS, Ids

OWN_BITS: Final = 24
_SOURCE, _DESTINATION = np.uint64(OWN_BITS + BITS), np.uint64(OWN_BITS)
_PARTY: Final = np.uint64((1 << BITS) - 1)
_OWN: Final = (1 << OWN_BITS) - 1
#: Seconds after which a series in which nothing is counted may be given up for another.
IDLE: Final = 600.0


class Meaning(Protocol):
    """What the numbers of a metric's series stand for."""

    labels: Sequence[str]

    def describe(self, source: int, destination: int, own: int) -> str:
        """What stands between the braces."""

    def collapse(self, own: int) -> int:
        """The number of its own for what there is no room for: there are few of these."""


def keys_of(source: Ids, destination: Ids, own: npt.NDArray[Any]) -> Ids:
    return np.asarray(source << _SOURCE | destination << _DESTINATION | own.astype(np.uint64), np.uint64)


class Series(Family):
    """What counters and histograms have in common. ``most``: how many series there are at most, apart from
    those of overflow."""

    def __init__(self, name: str, help: str, meaning: Meaning, most: int, columns: int) -> None:
        super().__init__(name, help, meaning.labels)
        self._meaning = meaning
        self._most = most
        self._slots: dict[int, int] = {}
        self._keys = np.zeros(64, np.uint64)
        self._texts: list[str | None] = []
        self._free: list[int] = []
        self._touched = np.zeros(64)
        self._counts = np.zeros((64, columns), np.int64)
        self._exemplars: dict[tuple[int, int], Exemplar] = {}
        #: Series that were given up, and flows that were counted in those of overflow.
        self.evicted = 0
        self.overflowed = 0

    def __len__(self) -> int:
        return len(self._slots)

    def slots(self, keys: Sequence[int], now: float) -> list[int]:
        """Where the series with these keys stand; makes them."""
        found = [self._slots.get(key, -1) for key in keys]
        if -1 in found:
            fresh = [key for key, slot in zip(keys, found, strict=True) if slot < 0]
            if len(self._slots) + len(fresh) > self._most:
                self._touched[[slot for slot in found if slot >= 0]] = now
                self._make_room(len(fresh), now)
            found = [slot if slot >= 0 else self._make(key) for key, slot in zip(keys, found, strict=True)]
        self._touched[found] = now
        return found

    def _make(self, key: int) -> int:
        if (slot := self._slots.get(key)) is not None:  # several of the same came at once
            return slot
        if len(self._slots) >= self._most:
            self.overflowed += 1
            key = self._meaning.collapse(key & _OWN)  # source and destination: OVERFLOW, which is 0
            if (slot := self._slots.get(key)) is not None:
                return slot
        if self._free:
            slot = self._free.pop()
        else:
            slot = len(self._texts)
            self._texts.append(None)
            if slot >= len(self._keys):
                self._keys = np.concatenate((self._keys, np.zeros_like(self._keys)))
                self._touched = np.concatenate((self._touched, np.zeros_like(self._touched)))
                self._counts = np.concatenate((self._counts, np.zeros_like(self._counts)))
                self._grow()
        source, destination = key >> (OWN_BITS + BITS), key >> OWN_BITS & (1 << BITS) - 1
        self._texts[slot] = self._meaning.describe(source, destination, key & _OWN)
        self._slots[key], self._keys[slot] = slot, key
        return slot

    def _grow(self) -> None: ...

    def _make_room(self, wanted: int, now: float) -> None:
        """A tenth more than is wanted, so that not every one that comes has to look."""
        live = np.fromiter(self._slots.values(), np.intp, len(self._slots))
        idle = live[self._touched[live] < now - IDLE]
        oldest = idle[np.argsort(self._touched[idle])][: wanted + self._most // 10]
        self.evicted += len(oldest)
        self._remove(oldest)

    def _remove(self, slots: npt.NDArray[np.intp]) -> None:
        for slot in slots.tolist():
            del self._slots[int(self._keys[slot])]
            self._texts[slot] = None
            self._free.append(slot)
        self._counts[slots] = 0
        if self._exemplars:
            gone = set(slots.tolist())
            self._exemplars = {at: each for at, each in self._exemplars.items() if at[0] not in gone}

    def parts(self) -> tuple[Ids, Ids, Ids]:
        """Sources, destinations, and numbers of their own, of all series."""
        keys = np.fromiter(self._slots, np.uint64, len(self._slots))
        return keys >> _SOURCE, keys >> _DESTINATION & _PARTY, keys & np.uint64(_OWN)

    def forget(self, sources: Sequence[int], destinations: Sequence[int]) -> None:
        """Takes away the series with one of these as source, or as destination."""
        live = np.fromiter(self._slots.values(), np.intp, len(self._slots))
        keys = self._keys[live]
        gone = np.isin(keys >> _SOURCE, np.array(sources, np.uint64))
        gone |= np.isin(keys >> _DESTINATION & _PARTY, np.array(destinations, np.uint64))
        self._remove(live[gone])


class SeriesCounter(Series):
    kind = "counter"

    def __init__(self, name: str, help: str, meaning: Meaning, most: int) -> None:
        super().__init__(name, help, meaning, most, 1)

    def count(self, keys: Ids, now: float) -> None:
        if not len(keys):
            return
        distinct, counts = np.unique(keys, return_counts=True)
        slots = self.slots(distinct.tolist(), now)
        np.add.at(self._counts[:, 0], slots, counts)  # two of them may be the same series of overflow

    def add(self, keys: Ids, amounts: npt.NDArray[np.int64], now: float) -> None:
        """``amounts``: how much more of each."""
        slots = self.slots(keys.tolist(), now)  # first: it may move the counts elsewhere
        np.add.at(self._counts[:, 0], slots, amounts)

    def mark(self, key: int, exemplar: Exemplar) -> None:
        """The newest stays."""
        if (slot := self._slots.get(key)) is not None:
            self._exemplars[slot, 0] = exemplar

    def lines(self, exemplars: bool) -> Iterator[str]:
        for slot in list(self._slots.values()):
            text = self._texts[slot]
            example = marked(self._exemplars.get((slot, 0))) if exemplars else ""
            yield f"{self.name}{{{text}}} {self._counts[slot, 0]}{example}"


class SeriesHistogram(Series):
    kind = "histogram"

    def __init__(
        self, name: str, help: str, meaning: Meaning, most: int, buckets: Sequence[float] = SECONDS
    ) -> None:
        super().__init__(name, help, meaning, most, len(buckets) + 1)
        self._bounds = np.array(buckets)
        self._bound_texts = bounds(buckets)
        self._sums = np.zeros(64)

    def _grow(self) -> None:
        self._sums = np.concatenate((self._sums, np.zeros_like(self._sums)))

    def _remove(self, slots: npt.NDArray[np.intp]) -> None:
        super()._remove(slots)
        self._sums[slots] = 0

    def observe(
        self,
        keys: Ids,
        values: npt.NDArray[np.float64],
        now: float,
        exemplars: Sequence[Exemplar | None] = (),
    ) -> None:
        """One value each."""
        if not len(keys):
            return
        slots = np.array(self.slots(keys.tolist(), now))
        buckets = np.searchsorted(self._bounds, values)
        np.add.at(self._counts, (slots, buckets), 1)
        np.add.at(self._sums, slots, values)
        for slot, bucket, exemplar in zip(slots.tolist(), buckets.tolist(), exemplars, strict=False):
            if exemplar is not None:
                self._exemplars[slot, bucket] = exemplar

    def lines(self, exemplars: bool) -> Iterator[str]:
        for slot in list(self._slots.values()):
            shown: list[Exemplar | None] = []
            if exemplars and self._exemplars:
                shown = [self._exemplars.get((slot, bucket)) for bucket in range(len(self._bounds) + 1)]
            counts, total = self._counts[slot].tolist(), float(self._sums[slot])
            yield from histogram(self.name, self._texts[slot] or "", self._bound_texts, counts, total, shown)
