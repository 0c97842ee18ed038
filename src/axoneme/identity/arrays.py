"""The address table as arrays: records of the dtypes that the kernel's table has."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from axoneme.identity.addressbook import Flag, Record
from axoneme.identity.prefixes import Prefix

Array = npt.NDArray[np.void]
_NOWHERE = bytes(16)


def key_array(prefixes: Collection[Prefix], dtype: np.dtype[Any]) -> Array:
    raw = np.frombuffer(b"".join(prefixes), np.uint8).reshape(-1, 17)
    keys = np.zeros(len(raw), dtype)
    keys["address"], keys["prefix_length"] = raw[:, :16], raw[:, 16]
    return keys


def entry_arrays(
    table: Mapping[Prefix, Record], key: np.dtype[Any], value: np.dtype[Any]
) -> tuple[Array, Array]:
    """Keys and values."""
    values = np.zeros(len(table), value)
    records = table.values()
    values["identity"] = [record.identity for record in records]
    values["flags"] = [int(record.flags) for record in records]
    nodes = b"".join([record.node or _NOWHERE for record in records])
    values["node"] = np.frombuffer(nodes, np.uint8).reshape(-1, 16)
    return key_array(table.keys(), key), values


def read_arrays(keys: Array, values: Array) -> dict[Prefix, Record]:
    """What keys and values say; the opposite of `entry_arrays`."""
    raw = np.concatenate((keys["address"], keys["prefix_length"].astype(np.uint8)[:, None]), axis=1).tobytes()
    nodes = np.ascontiguousarray(values["node"]).tobytes()
    found: dict[Prefix, Record] = {}
    for row, (identity, flags) in enumerate(
        zip(values["identity"].tolist(), values["flags"].tolist(), strict=True)
    ):
        node = nodes[16 * row : 16 * row + 16]
        record = Record(identity, b"" if node == _NOWHERE else node, Flag(flags))
        found[Prefix(raw[17 * row : 17 * row + 17])] = record
    return found
