"""Policy entries as arrays of the kernel's structs, and back.

The dtypes come from the datapath's schema. Ports are in host byte order in a `Key`, in network byte
order in the struct: a big-endian field of the dtype takes care of that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from axoneme.policy.table import Entry, Key, Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Structs = NDArray[np.void]


def key_array(keys: Sequence[Key], dtype: np.dtype[Any]) -> Structs:
    """Keys as ``struct policy_key``; shape ``(len(keys),)``."""
    array = np.zeros(len(keys), dtype)
    columns = np.array(keys, dtype=np.int64).reshape(len(keys), len(Key._fields)).T
    for name, column in zip(Key._fields, columns, strict=True):
        array[name] = column
    return array


def value_array(entries: Sequence[Entry], dtype: np.dtype[Any]) -> Structs:
    """The values of ``entries`` as ``struct policy_value``; other fields are zero."""
    array = np.zeros(len(entries), dtype)
    columns = (
        np.array([value for _, value in entries], dtype=np.int64).reshape(len(entries), len(Value._fields)).T
    )
    for name, column in zip(Value._fields, columns, strict=True):
        array[name] = column
    return array


def entry_arrays(
    entries: Sequence[Entry], key_dtype: np.dtype[Any], value_dtype: np.dtype[Any]
) -> tuple[Structs, Structs]:
    return key_array([key for key, _ in entries], key_dtype), value_array(entries, value_dtype)


def read_arrays(keys: Structs, values: Structs) -> dict[Key, Value]:
    """What `entry_arrays` made, or the kernel holds, as a table."""
    key_columns = [keys[name].tolist() for name in Key._fields]
    value_columns = [values[name].tolist() for name in Value._fields]
    made_keys = map(Key._make, zip(*key_columns, strict=True))
    return dict(zip(made_keys, map(Value._make, zip(*value_columns, strict=True)), strict=True))
