"""Rows of the service tables as arrays of the kernel's structs, and back.

The dtypes come from the datapath's schema; big-endian fields of theirs take care of the order of bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from axoneme.services.rows import (
    ADDRESS,
    PLACE,
    BackendRow,
    FrontendRow,
    Held,
    Place,
    RangeKey,
    ServiceRow,
)

Array = npt.NDArray[Any]
AnyDtype = np.dtype[Any]

#: Of rows that are tuples, the names of the fields in the kernel's structs.
_KEYS: Mapping[str, Sequence[str]] = {"slots": ("service", "slot"), "source_ranges": RangeKey._fields}
_VALUES: Mapping[str, Sequence[str]] = {"frontends": FrontendRow._fields, "services": ServiceRow._fields}


def key_array(table: str, keys: Sequence[Any], dtype: AnyDtype) -> Array:
    """The keys of a `Step` to that table; shape ``(len(keys),)``."""
    if table == "frontends":
        return _places(keys, dtype)
    return _records(keys, _KEYS.get(table), dtype)


def value_array(table: str, values: Sequence[Any], dtype: AnyDtype) -> Array:
    """The values of a `Step` to that table."""
    if table == "backends":
        return _places(values, dtype)
    return _records(values, _VALUES.get(table), dtype)


def _places(rows: Sequence[bytes], dtype: AnyDtype) -> Array:
    """Of places, or of rows of backends."""
    array = np.zeros(len(rows), dtype)
    if rows:
        raw = np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), -1)
        array["address"] = raw[:, :ADDRESS]
        array["port"] = np.ascontiguousarray(raw[:, ADDRESS : PLACE - 1]).view(">u2")[:, 0]
        array["protocol"] = raw[:, PLACE - 1]
        if raw.shape[1] > PLACE:
            array["flags"] = raw[:, PLACE]
    return array


def _records(rows: Sequence[Any], names: Sequence[str] | None, dtype: AnyDtype) -> Array:
    """Tuples of these fields, or (None) numbers."""
    if names is None:
        return np.array(rows, dtype)
    array = np.zeros(len(rows), dtype)
    if rows:
        for name, column in zip(names, zip(*rows, strict=True), strict=True):
            if name == "address":
                array[name] = np.frombuffer(b"".join(column), np.uint8).reshape(-1, ADDRESS)
            else:
                array[name] = column
    return array


def held(tables: Mapping[str, tuple[Array, Array]], maglev: Iterable[int]) -> Held:
    """What the kernel's tables hold: keys and values of ``frontends``, ``services``, ``slots``, ``backends``
    and ``source_ranges``, and the numbers of the services that have places."""
    keys, values = tables["frontends"]
    rows = map(FrontendRow._make, _tuples(values, FrontendRow._fields))
    frontends = dict(zip(map(Place, _raw(keys, False)), rows, strict=True))
    keys, values = tables["services"]
    services = dict(
        zip(keys.tolist(), map(ServiceRow._make, _tuples(values, ServiceRow._fields)), strict=True)
    )
    keys, values = tables["slots"]
    slots = dict(zip(_tuples(keys, _KEYS["slots"]), values.tolist(), strict=True))
    keys, values = tables["backends"]
    backends = dict(zip(keys.tolist(), map(BackendRow, _raw(values, True)), strict=True))
    keys, _ = tables["source_ranges"]
    addresses = [row.tobytes() for row in keys["address"]]
    lengths, numbers = keys["prefix_length"].tolist(), keys["service"].tolist()
    ranges = set(map(RangeKey, lengths, numbers, addresses))
    return Held(frontends, services, slots, backends, ranges, set(maglev))


def _raw(array: Array, flags: bool) -> list[bytes]:
    """Places, or rows of backends."""
    width = PLACE + flags
    raw = np.zeros((len(array), width), np.uint8)
    raw[:, :ADDRESS] = array["address"]
    raw[:, ADDRESS : PLACE - 1] = array["port"].astype(">u2").view(np.uint8).reshape(-1, 2)
    raw[:, PLACE - 1] = array["protocol"]
    if flags:
        raw[:, PLACE] = array["flags"]
    data = raw.tobytes()
    return [data[at : at + width] for at in range(0, len(data), width)]


def _tuples(array: Array, names: Sequence[str]) -> Iterator[Any]:
    return zip(*(array[name].tolist() for name in names), strict=True)
