"""Maps as tables: numpy arrays of keys and values in and out, with the types that C gave them.

A `Table` is one kind of object for all kinds of map: hash, LRU, longest-prefix trie, array, and their
per-CPU forms. It moves whole arrays, for a reconciler that writes differences; single elements
are there too. A `MappedArray` is an array map that Python reads and writes as memory, without calls.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from axoneme.datapath import bpf, elements
from axoneme.datapath.btf import AnyDtype
from axoneme.datapath.elements import Array
from axoneme.datapath.libbpf import Object
from axoneme.datapath.uapi import PER_CPU, MapFlag, MapType

_POSSIBLE: Final = Path("/sys/devices/system/cpu/possible")


class Table:
    """A map with typed keys and values. It owns a file descriptor of its own; `close` it.

    Values of per-CPU maps have one axis more: ``(n, cpus)``, for all *possible* CPUs.
    """

    def __init__(self, fd: int, key: AnyDtype, value: AnyDtype) -> None:
        """A view of the map behind `fd`, which stays the caller's. ValueError when the sizes differ."""
        self.info = bpf.map_info(fd)
        self.name = self.info.name
        self.key = key
        self.value = value
        self.per_cpu = self.info.kind in PER_CPU
        _check(self.info, key, value)
        self._cell = _per_cpu_cell(value) if self.per_cpu else value
        self._fd: int | None = os.dup(fd)

    @classmethod
    def of(cls, source: Object, name: str) -> Self:
        """A map of a loaded object, with the types of its definition."""
        types = source.map_types(name)
        if types.key is None or types.value is None:
            raise ValueError(
                f"map {name} of object {source.name} has no types; define it with __type(key, ...)"
            )
        return cls(source.map_fd(name), types.key, types.value)

    @classmethod
    def pinned(cls, path: Path, key: AnyDtype, value: AnyDtype) -> Self:
        """A map by its pin. Raises `bpf.NotFound`."""
        fd = bpf.pinned(path)
        try:
            return cls(fd, key, value)
        finally:
            os.close(fd)

    @property
    def fd(self) -> int:
        if self._fd is None:
            raise ValueError(f"map {self.name}: this table is closed")
        return self._fd

    # ---- many

    def read_all(self) -> tuple[Array, Array]:
        """All keys and values; see `elements.chunks` for what that means while others write."""
        parts = list(elements.chunks(self.fd, self.key, self._cell, self._batch_size(elements.CHUNK)))
        if not parts:
            return np.zeros(0, self.key), self._shown(np.zeros(0, self._cell))
        keys = elements.join([part for part, _ in parts])
        return keys, self._shown(elements.join([part for _, part in parts]))

    def batches(self, size: int = elements.CHUNK, *, remove: bool = False) -> Iterator[tuple[Array, Array]]:
        """All elements, some `size` at a time: to look through a large table without holding it.

        With `remove`, each is taken out of the map as it is read.
        """
        chunks = elements.chunks(self.fd, self.key, self._cell, self._batch_size(size), remove=remove)
        for keys, values in chunks:
            yield keys, self._shown(values)

    def read(self, keys: npt.ArrayLike) -> tuple[npt.NDArray[np.bool_], Array]:
        """Which of the keys are there, and their values (zero for the others). One call a key."""
        wanted = self._rows(keys, self.key, "keys")
        values = np.zeros(len(wanted), self._cell)
        found = elements.lookup_many(self.fd, wanted, values)
        return found, self._shown(values)

    def write(self, keys: npt.ArrayLike, values: npt.ArrayLike, flags: int = elements.ANY) -> None:
        """Adds or replaces, in order. Raises `elements.BatchError` (`elements.BatchFull`), whose `done`
        says how many were written. For a per-CPU map every CPU gets the value, or its own with a second axis.
        """
        rows = self._rows(keys, self.key, "keys")
        cells = self._cells(values)
        if len(rows) != len(cells):
            raise ValueError(f"map {self.name}: {len(rows)} keys but {len(cells)} values")
        elements.update_many(self.fd, rows, cells, flags)

    def delete(self, keys: npt.ArrayLike) -> int:
        """Removes those that are there; how many were."""
        return elements.delete_many(self.fd, self._rows(keys, self.key, "keys"))

    def clear(self) -> int:
        """Removes all elements that are there when it begins; how many."""
        keys, _ = self.read_all()
        return self.delete(keys)

    def sums(self) -> tuple[Array, Array]:
        """Of a per-CPU map: all keys, and their values added up over the CPUs, field by field."""
        if not self.per_cpu:
            raise ValueError(f"map {self.name} ({self.info.kind_name}) is not per CPU")
        keys, values = self.read_all()
        total = np.zeros(len(keys), self.value)
        _add_up(values, total)
        return keys, total

    # ---- one

    def get(self, key: npt.ArrayLike) -> Any | None:
        """The value: a record (numpy.void) or number of dtype `value`; an array of them for a per-CPU map.
        None when there is none."""
        value = np.zeros(1, self._cell)
        found = elements.lookup(self.fd, self._row(key, self.key), value)
        return self._shown(value)[0] if found else None

    def put(self, key: npt.ArrayLike, value: npt.ArrayLike, flags: int = elements.ANY) -> None:
        """Keys and values are records of their dtypes, or what numpy can make into one."""
        if self.per_cpu:
            cell = np.zeros(1, self._cell)
            self._shown(cell)[0] = value
        else:
            cell = self._row(value, self.value)
        elements.update(self.fd, self._row(key, self.key), cell, flags)

    def pop(self, key: npt.ArrayLike) -> Any | None:
        """Takes the element out; None when there is none."""
        value = np.zeros(1, self._cell)
        found = elements.pop(self.fd, self._row(key, self.key), value)
        return self._shown(value)[0] if found else None

    def discard(self, key: npt.ArrayLike) -> bool:
        """Removes the element; False when there was none."""
        return elements.delete(self.fd, self._row(key, self.key))

    # ---- life

    def close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_fd", None) is not None:
            self.close()

    def __repr__(self) -> str:
        return f"<Table {self.name} {self.info.kind_name} max_entries={self.info.max_entries}>"

    # ---- shapes

    def _shown(self, cells: Array) -> Array:
        return cells["value"] if self.per_cpu else cells

    def _batch_size(self, size: int) -> int:
        return max(1, min(size, self.info.max_entries))

    def _rows(self, given: npt.ArrayLike, dtype: AnyDtype, what: str) -> Array:
        """The given rows in memory as the kernel wants them."""
        self._refuse_other_records(given, dtype, what)
        return np.ascontiguousarray(given, dtype.base)

    def _refuse_other_records(self, given: npt.ArrayLike, dtype: AnyDtype, what: str) -> None:
        """numpy copies records by position, so those with other fields would be written wrong. Other
        byte orders (which numpy's own functions like to produce) are converted."""
        names = getattr(getattr(given, "dtype", dtype), "names", None)
        if names is not None and names != dtype.names:
            raise TypeError(f"map {self.name}: {what} have fields {names}, not {dtype.names or dtype}")

    def _row(self, given: npt.ArrayLike, dtype: AnyDtype) -> Array:
        self._refuse_other_records(given, dtype, "records")
        row: Array = np.zeros(1, dtype)
        row[0] = given
        return row

    def _cells(self, values: npt.ArrayLike) -> Array:
        if not self.per_cpu:
            return self._rows(values, self.value, "values")
        self._refuse_other_records(values, self.value, "values")
        rows = np.asarray(values, self.value)
        cells = np.zeros(len(rows), self._cell)
        cells["value"] = rows if rows.ndim > 1 else rows[:, np.newaxis]
        return cells


class MappedArray:
    """An array map with BPF_F_MMAPABLE, as memory shared with the programs.

    `array` has one row an element. Reads and writes of aligned numbers up to 64 bits are not torn;
    nothing orders one against another.
    """

    def __init__(self, fd: int, value: AnyDtype) -> None:
        info = bpf.map_info(fd)
        if info.kind != MapType.ARRAY or not info.flags & MapFlag.MMAPABLE:
            raise ValueError(f"map {info.name} ({info.kind_name}) is no array with BPF_F_MMAPABLE")
        if value.itemsize != info.value_size:
            raise ValueError(
                f"map {info.name}: values have {info.value_size} bytes, the dtype {value.itemsize}"
            )
        cell = _padded(value)
        page = mmap.PAGESIZE
        size = (cell.itemsize * info.max_entries + page - 1) // page * page
        self.name = info.name
        self.array: Array = np.frombuffer(mmap.mmap(fd, size), cell, info.max_entries)["value"]

    @classmethod
    def of(cls, source: Object, name: str) -> Self:
        types = source.map_types(name)
        if types.value is None:
            raise ValueError(
                f"map {name} of object {source.name} has no types; define it with __type(value, ...)"
            )
        return cls(source.map_fd(name), types.value)

    @classmethod
    def pinned(cls, path: Path, value: AnyDtype) -> Self:
        fd = bpf.pinned(path)
        try:
            return cls(fd, value)
        finally:
            os.close(fd)


@cache
def possible_cpus() -> int:
    """How many values a per-CPU element has: one for each CPU that could ever be plugged in."""
    last = _POSSIBLE.read_text().strip().replace(",", "-").split("-")[-1]
    return int(last) + 1


def _padded(value: AnyDtype) -> np.dtype[np.void]:
    """`value` in a cell of whole 8 bytes, as the kernel lays out arrays and per-CPU values."""
    size = (value.itemsize + 7) & ~7
    return np.dtype({"names": ["value"], "formats": [value], "offsets": [0], "itemsize": size})


def _per_cpu_cell(value: AnyDtype) -> np.dtype[np.void]:
    """All CPUs' values of one element, as a field of shape (cpus,)."""
    return np.dtype((_padded(value), (possible_cpus(),)))


def _check(info: bpf.MapInfo, key: AnyDtype, value: AnyDtype) -> None:
    for what, size, dtype in (("key", info.key_size, key), ("value", info.value_size, value)):
        if size != dtype.itemsize:
            raise ValueError(
                f"map {info.name}: its {what}s have {size} bytes, dtype {dtype} has {dtype.itemsize}"
            )
    if (hole := _hole(key)) is not None:
        raise ValueError(
            f"map {info.name}: its key has a hole at byte {hole}, which the kernel would compare; "
            "give it a name in C"
        )


def _hole(dtype: AnyDtype, base: int = 0) -> int | None:
    """The first byte of a record that no field covers."""
    if dtype.subdtype is not None:
        dtype = dtype.subdtype[0]
    if dtype.names is None or dtype.fields is None:
        return None
    covered = 0
    for field, offset, *_ in sorted(dtype.fields.values(), key=lambda entry: entry[1]):
        if offset > covered:
            return base + covered
        if (inner := _hole(field, base + offset)) is not None:
            return inner
        covered = max(covered, offset + field.itemsize)
    return base + covered if covered < dtype.itemsize else None


def _add_up(values: Array, total: Array) -> None:
    if total.dtype.names is None:
        total[...] = values.sum(axis=1, dtype=total.dtype)
        return
    for name in total.dtype.names:
        _add_up(values[name], total[name])
