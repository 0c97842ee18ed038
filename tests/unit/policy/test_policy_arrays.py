"""Entries as arrays of the kernel's structs."""

from __future__ import annotations

import numpy as np

from axoneme.policy.arrays import entry_arrays, key_array, read_arrays
from axoneme.policy.table import Key, Value, Verdict

KEY = np.dtype(
    {
        "names": ["prefix_length", "subject", "peer", "direction", "protocol", "port"],
        "formats": ["<u4", "<u4", "<u4", "u1", "u1", ">u2"],
        "offsets": [0, 4, 8, 12, 13, 14],
        "itemsize": 16,
    }
)
VALUE = np.dtype([("verdict", "u1"), ("flags", "u1"), ("proxy_port", ">u2"), ("rule", "<u4")])

ENTRIES = [
    (Key(300, 0, 0, 0, 0, 72), Value(Verdict.ALLOW, 0)),
    (Key(300, (1 << 24) + 5, 1, 6, 8080, 96), Value(Verdict.DENY, 0xFFFFFFFE)),
]


def test_keys_and_values_have_the_bytes_that_the_kernel_reads() -> None:
    keys, values = entry_arrays(ENTRIES, KEY, VALUE)
    assert keys[1].tobytes() == bytes.fromhex("60000000 2c010000 05000001 01 06 1f90")
    assert values[1].tobytes() == bytes.fromhex("02 00 0000 feffffff")


def test_what_is_written_can_be_read() -> None:
    found = read_arrays(*entry_arrays(ENTRIES, KEY, VALUE))
    assert found == dict(ENTRIES)
    assert all(isinstance(key, Key) and isinstance(value, Value) for key, value in found.items())


def test_nothing_makes_empty_arrays() -> None:
    keys, values = entry_arrays([], KEY, VALUE)
    assert keys.shape == values.shape == key_array([], KEY).shape == (0,)
    assert keys.dtype == KEY and read_arrays(keys, values) == {}
