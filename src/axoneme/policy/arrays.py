"""Policy entries as arrays of the kernel's structs, and back.

The dtypes come from the datapath's schema. Ports are in host byte order in a `Key`, in network byte
order in the struct: a big-endian field of the dtype takes care of that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from axoneme.policy.table import Entry, Key, Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Structs = NDArray[np.void]


#: The field in which the kernel has the port of the listener that a `Value` names.
_PORT = "proxy_port"


def key_array(keys: Sequence[Key], dtype: np.dtype[Any]) -> Structs:
    """Keys as ``struct policy_key``; shape ``(len(keys),)``."""
    array = np.zeros(len(keys), dtype)
    columns = np.array(keys, dtype=np.int64).reshape(len(keys), len(Key._fields)).T
    for name, column in zip(Key._fields, columns, strict=True):
        array[name] = column
    return array


def value_array(
    entries: Sequence[Entry], dtype: np.dtype[Any], ports: Mapping[int, int] = MappingProxyType({})
) -> Structs:
    """The values of ``entries`` as ``struct policy_value``; other fields are zero. ``ports`` has the ports of
    listeners: KeyError for one that has none."""
    array = np.zeros(len(entries), dtype)
    values = [value for _, value in entries]
    columns = np.array(values, dtype=np.int64).reshape(len(entries), len(Value._fields)).T
    for name, column in zip(Value._fields[:-1], columns, strict=False):
        array[name] = column
    array[_PORT] = [ports[value.listener] if value.listener else 0 for value in values]
    return array


def entry_arrays(
    entries: Sequence[Entry],
    key_dtype: np.dtype[Any],
    value_dtype: np.dtype[Any],
    ports: Mapping[int, int] = MappingProxyType({}),
) -> tuple[Structs, Structs]:
    return key_array([key for key, _ in entries], key_dtype), value_array(entries, value_dtype, ports)


def read_arrays(
    keys: Structs, values: Structs, numbers: Mapping[int, int] = MappingProxyType({})
) -> dict[Key, Value]:
    """What `entry_arrays` made, or the kernel holds, as a table. ``numbers`` has the listeners at ports; at
    others are such as nobody has."""
    key_columns = [keys[name].tolist() for name in Key._fields]
    value_columns = [values[name].tolist() for name in Value._fields[:-1]]
    listeners = [numbers.get(port, -port) for port in values[_PORT].tolist()]
    made_keys = map(Key._make, zip(*key_columns, strict=True))
    made_values = map(Value._make, zip(*value_columns, listeners, strict=True))
    return dict(zip(made_keys, made_values, strict=True))
