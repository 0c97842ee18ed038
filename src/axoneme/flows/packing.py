"""Flow records as they are kept: a fifth smaller than as they are read.

A million of them shall fit into 150 MiB, and most of what makes a record large is said in few of them, or
again and again. So a kept record is the record's bytes without six columns:

- the two addresses that a connection had before and after translation are a frontend's and a node's:
  few there are, and most records have none. Each has a number, of 4 bytes instead of 16;
- ``wall`` is ``time`` and how far the two clocks are apart, of which there is another only when somebody sets
  one of them: that has a number, too;
- ``started`` belongs to ends of connections and ``request`` to requests: they share their place;
- ``backend`` is what `axoneme.flows.traffic` counts by, before a record is kept; it is read as 0.

Columns that kept records have under their own names (``time``, the rows of the ends) can be looked at where
they stand.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from axoneme.flows.addresses import AddressTable
from axoneme.flows.events import L7, Records, words

#: Arrays of kept records.
Packed = npt.NDArray[np.void]

_ADDRESSES: Final = ("nat_address", "frontend")
_SHARED: Final = ("started", "request")
_LEFT_OUT: Final = (*_ADDRESSES, *_SHARED, "wall", "backend")
#: Addresses beyond those of the last look at who is still in use, before there is another.
_SPARE: Final = 4096


class Packing:
    """Between the two forms; knows the addresses that numbers stand for. Of the columns that are left out,
    the records must have all or, of records of another kind, none."""

    def __init__(self, dtype: np.dtype[np.void]) -> None:
        assert dtype.fields is not None
        self.dtype = dtype
        fields = {name: (field[0], field[1]) for name, field in dtype.fields.items()}
        self._whole = all(name in fields for name in _LEFT_OUT)
        kept = {name: field for name, field in fields.items() if name not in _LEFT_OUT}
        runs = _runs((offset, form.itemsize) for form, offset in kept.values())
        starts = np.cumsum([0, *(size for _, size in runs)]).tolist()
        names, formats, offsets = [], [], []
        for name, (form, offset) in kept.items():
            run = next(n for n, (start, size) in enumerate(runs) if start <= offset < start + size)
            names.append(name)
            formats.append(form)
            offsets.append(starts[run] + offset - runs[run][0])
        size = starts[-1]
        if self._whole:
            names += [*_ADDRESSES, "apart", "number"]
            formats += [*3 * [np.dtype(np.uint32)], np.dtype(np.uint64)]
            offsets += [size, size + 4, size + 8, size + 12]
            size += 20
        self.packed = np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": size})
        # The same runs of bytes in both forms: numpy copies those whole, and others field by field.
        opaque = [f"V{size}" for _, size in runs]
        labels = [f"run{number}" for number in range(len(runs))]
        self._labels = labels
        self._from = _view(labels, opaque, [start for start, _ in runs], dtype.itemsize)
        self._to = _view(labels, opaque, starts[: len(runs)], size)
        self._addresses = Numbered()
        self._apart = Differences()

    def pack(self, records: Records, into: Packed) -> None:
        """``into``: as many kept records."""
        source, target = records.view(self._from), into.view(self._to)
        for label in self._labels:
            target[label] = source[label]
        if not self._whole:
            return
        for column in _ADDRESSES:
            into[column] = self._addresses.numbers(words(records, column))
        into["apart"] = self._apart.numbers(records["wall"] - records["time"].view(np.int64))
        into["number"] = records["started"]
        requests = np.flatnonzero(records["kind"] == L7)
        if len(requests):
            into["number"][requests] = records["request"][requests]

    def unpack(self, packed: Packed) -> Records:
        """A copy."""
        records: Records = np.empty(len(packed), self.dtype)
        source, target = packed.view(self._to), records.view(self._from)
        for label in self._labels:
            target[label] = source[label]
        if not self._whole:
            return records
        for column in _ADDRESSES:
            words(records, column)[:] = self._addresses.words[packed[column]]
        requests = packed["kind"] == L7
        records["wall"] = records["time"].view(np.int64) + self._apart.values[packed["apart"]]
        records["backend"] = 0
        records["started"] = np.where(requests, 0, packed["number"])
        records["request"] = np.where(requests, packed["number"], 0)
        return records

    @property
    def crowded(self) -> bool:
        """Whether there are so many addresses that `collect` is due."""
        return self._addresses.crowded

    def collect(self, kept: Iterable[Packed]) -> None:
        """Forgets the addresses that none of these arrays, which are all that is kept, refers to."""
        if self._whole:
            self._addresses.collect(array[column] for array in kept for column in _ADDRESSES)


class Differences:
    """Of the clocks, by number."""

    def __init__(self) -> None:
        self.values: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._known: dict[int, int] = {}

    def numbers(self, differences: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
        """Of each; those that have none get one."""
        if len(differences) and bool((differences == differences[0]).all()):
            found, places = differences[:1], np.zeros(len(differences), np.intp)
        else:
            found, places = np.unique(differences, return_inverse=True)
        for each in found.tolist():
            if each not in self._known:
                self._known[each] = len(self._known)
                self.values = np.append(self.values, each)
        return np.array([self._known[each] for each in found.tolist()], np.uint32)[places]


class Numbered:
    """Addresses by number; 0 is the address of zeros, which stands for none."""

    def __init__(self) -> None:
        self._table = AddressTable()
        #: Row by row, as `axoneme.flows.events.words` has them.
        self.words: npt.NDArray[np.uint64] = np.zeros((64, 2), np.uint64)
        self._next = 1
        self._free: list[int] = []
        self._used = 0
        self._limit = _SPARE

    def numbers(self, addresses: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint32]:
        """Of each address, shape (n, 2); those that have none get one."""
        numbers = np.zeros(len(addresses), np.uint32)
        there = np.flatnonzero(addresses[:, 0] | addresses[:, 1])
        if not len(there):
            return numbers
        if len(there) < len(addresses):
            addresses = addresses[there]
        found = self._table.look_up(addresses)
        unknown = np.flatnonzero(found == 0)
        if len(unknown):
            for row in np.unique(addresses[unknown], axis=0):
                self._enter(row)
            found = self._table.look_up(addresses)
        numbers[there] = found
        return numbers

    @property
    def crowded(self) -> bool:
        return self._used > self._limit

    def collect(self, used: Iterable[npt.NDArray[np.uint32]]) -> None:
        keep = np.zeros(self._next, np.bool_)
        for numbers in used:
            keep[numbers] = True
        keep[self._free] = True
        for number in np.flatnonzero(~keep[1:]).tolist():
            self._table.remove(self.words[number + 1].tobytes(), number + 1)
            self._free.append(number + 1)
            self._used -= 1
        self._limit = 2 * self._used + _SPARE

    def _enter(self, address: npt.NDArray[np.uint64]) -> None:
        if self._free:
            number = self._free.pop()
        else:
            number, self._next = self._next, self._next + 1
            if number >= len(self.words):
                self.words = np.concatenate((self.words, np.zeros_like(self.words)))
        self.words[number] = address
        self._table.put(address.tobytes(), number, number)
        self._used += 1


def _runs(fields: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Offset and size of what stands without a gap."""
    runs: list[tuple[int, int]] = []
    for offset, size in sorted(fields):
        if runs and sum(runs[-1]) >= offset:
            start, before = runs[-1]
            runs[-1] = start, max(before, offset + size - start)
        else:
            runs.append((offset, size))
    return runs


def _view(names: list[str], formats: list[str], offsets: list[Any], itemsize: int) -> np.dtype[np.void]:
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": itemsize})
