"""Rows of the service tables as arrays of the kernel's structs, and back.

The dtypes come from the datapath's schema; big-endian fields of theirs take care of the order of bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from axoneme.services.rows import BackendRow, FrontendKey, FrontendRow, Held, RangeKey, ServiceRow, SlotKey

Array = npt.NDArray[Any]
AnyDtype = np.dtype[Any]

_WIDTH = 16


def to_array(rows: Sequence[Any], dtype: AnyDtype) -> Array:
    """Rows of `axoneme.services.rows`, or numbers, as records whose fields have the same names; shape
    ``(len(rows),)``. Fields that no row has are zero."""
    if dtype.names is None:
        return np.array(rows, dtype)
    array = np.zeros(len(rows), dtype)
    if rows:
        for name, column in zip(rows[0]._fields, zip(*rows, strict=True), strict=True):
            if name == "address":
                array[name] = np.frombuffer(b"".join(column), np.uint8).reshape(-1, _WIDTH)
            else:
                array[name] = column
    return array


def _columns(array: Array, names: Sequence[str]) -> Any:
    return zip(*(_column(array, name) for name in names), strict=True)


def _column(array: Array, name: str) -> list[Any]:
    if name != "address":
        return list(array[name].tolist())
    raw = np.ascontiguousarray(array[name]).tobytes()
    return [raw[at : at + _WIDTH] for at in range(0, len(raw), _WIDTH)]


def held(tables: Mapping[str, tuple[Array, Array]]) -> Held:
    """What the kernel's tables hold, by their names: keys and values of ``frontends``, ``services``,
    ``slots``, ``backends``, ``source_ranges``; of ``maglev`` the numbers of services, as keys."""
    found = Held()
    keys, values = tables["frontends"]
    found.frontends = dict(
        zip(
            map(FrontendKey._make, _columns(keys, FrontendKey._fields)),
            map(FrontendRow._make, _columns(values, FrontendRow._fields)),
            strict=True,
        )
    )
    keys, values = tables["services"]
    rows = map(ServiceRow._make, _columns(values, ServiceRow._fields))
    found.services = dict(zip(keys.tolist(), rows, strict=True))
    keys, values = tables["slots"]
    slots = map(SlotKey._make, _columns(keys, SlotKey._fields))
    found.slots = dict(zip(slots, values.tolist(), strict=True))
    keys, values = tables["backends"]
    places = map(BackendRow._make, _columns(values, BackendRow._fields))
    found.backends = dict(zip(keys.tolist(), places, strict=True))
    keys, _ = tables["source_ranges"]
    found.ranges = set(map(RangeKey._make, _columns(keys, RangeKey._fields)))
    keys, _ = tables["maglev"]
    found.maglev = set(keys.tolist())
    return found
