"""Entries as arrays of the kernel's structs."""

from __future__ import annotations

import numpy as np

from axoneme.policy.arrays import entry_arrays, key_array, read_arrays
from axoneme.policy.table import Key, PolicyFlag, Value, Verdict

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
    (Key(300, 0, 1, 6, 80, 96), Value(Verdict.ALLOW, 7, PolicyFlag.COMPLETE | PolicyFlag.AUDIT, 1 << 62)),
]
PORTS = {1 << 62: 10_000}


def test_keys_and_values_have_the_bytes_that_the_kernel_reads() -> None:
    keys, values = entry_arrays(ENTRIES, KEY, VALUE, PORTS)
    assert keys[1].tobytes() == bytes.fromhex("60000000 2c010000 05000001 01 06 1f90")
    assert values[1].tobytes() == bytes.fromhex("02 00 0000 feffffff")
    assert values[2].tobytes() == bytes.fromhex("01 05 2710 07000000")


def test_what_is_written_can_be_read() -> None:
    arrays = entry_arrays(ENTRIES, KEY, VALUE, PORTS)
    found = read_arrays(*arrays, {10_000: 1 << 62})
    assert found == dict(ENTRIES)
    assert read_arrays(*arrays)[ENTRIES[2][0]].listener not in PORTS, (
        "somebody else's port is nobody's listener"
    )
    assert all(isinstance(key, Key) and isinstance(value, Value) for key, value in found.items())


def test_nothing_makes_empty_arrays() -> None:
    keys, values = entry_arrays([], KEY, VALUE)
    assert keys.shape == values.shape == key_array([], KEY).shape == (0,)
    assert keys.dtype == KEY and read_arrays(keys, values) == {}
