"""What one table holds, into another whose records are of another make.

Records are carried over field by field, by their C names: both layouts are known from the types that the
kernel keeps with each map, so no release needs to know another one. A field that both have keeps its value
(at the limit of its type where that is narrower), one that only the new record has is zero, one that only
the old one had is dropped. Hence the rule for `bpf/tables.h`: *a field whose meaning changes gets another
name*. Where that is not enough, `MEANINGS` has a function for the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from axoneme.datapath import elements
from axoneme.datapath.btf import AnyDtype
from axoneme.datapath.elements import Array
from axoneme.datapath.maps import Table
from axoneme.datapath.uapi import MapType

#: (old schema version, new one, old records, new records): finishes the new ones, in place.
Meaning = Callable[[int, int, Array, Array], None]
#: By table, for what no layout tells.
MEANINGS: Final[Mapping[str, Meaning]] = {}

#: Elements on their way at once: what a packet changes in one between its being read and written is lost.
_CHUNK: Final = 256
_ARRAYS: Final = (MapType.ARRAY, MapType.PERCPU_ARRAY)


def convert(rows: Array, dtype: AnyDtype) -> Array:
    """Records as records of another type, by the names of their fields; shape ``(n, ...)`` stays."""
    if rows.dtype == dtype:
        return rows
    converted: Array = np.zeros(rows.shape, dtype)
    _fill(rows, converted)
    return converted


def _fill(source: Array, target: Array) -> None:
    if target.dtype.names is not None:
        for name in target.dtype.names:
            if name in (source.dtype.names or ()):
                _fill(source[name], target[name])
        return
    if source.dtype.names is not None:
        return  # a struct has become a number: nothing of it means the same
    # Arrays inside of records, of other lengths perhaps.
    common = tuple(slice(min(a, b)) for a, b in zip(source.shape, target.shape, strict=False))
    if source.ndim != target.ndim:
        return
    target[common] = _within(source[common], target.dtype)


def _within(values: Array, dtype: AnyDtype) -> Array:
    if dtype.kind not in "iu" or values.dtype.kind not in "iu":
        return values.astype(dtype)
    limits, own = np.iinfo(dtype), np.iinfo(values.dtype)
    low, high = max(limits.min, own.min), min(limits.max, own.max)
    return np.clip(values, low, high).astype(dtype)


def carry(old: Table, new: Table, versions: tuple[int, int]) -> int:
    """Copies what is not in `new` yet (of arrays: everything); how many elements `new` took.

    ``versions`` are the schema's, of both. Both tables may be in use meanwhile. What does not fit is left.
    """
    meaning = MEANINGS.get(new.name)
    taken = 0
    for keys, values in old.batches(_CHUNK):
        converted = convert(values, new.value)
        if meaning is not None:
            meaning(*versions, values, converted)
        names = convert(keys, new.key)
        if new.info.kind in _ARRAYS:
            inside = np.asarray(names < new.info.max_entries)
            new.write(names[inside], converted[inside])
            taken += int(inside.sum())
        else:
            taken += elements.add_many(new.fd, np.ascontiguousarray(names), np.ascontiguousarray(converted))
    return taken
