"""Protobuf's wire format, as far as messages are put together here from parts that repeat.

https://protobuf.dev/programming-guides/encoding. A message is its fields one behind the other, so any two
pieces of a message joined are the message with the fields of both. What repeats is therefore serialized
once, and kept. Columns of numbers are serialized by numpy, with varints of one width: padded with zeros
behind, which readers must take.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_VARINT, _BLOCK = 0, 2

#: Rows of bytes, shape (n, width).
Rows = npt.NDArray[np.uint8]


def varint(value: int) -> bytes:
    """Of a number that is not negative."""
    if value < 0x80:
        return bytes((value,))
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


#: Lengths of messages, of which most are short.
_LENGTHS: Final = [varint(value) for value in range(4096)]


def tag(field: int, kind: int) -> bytes:
    return varint(field << 3 | kind)


def length(value: int) -> bytes:
    return _LENGTHS[value] if value < 4096 else varint(value)


def number(field: int, value: int) -> bytes:
    return tag(field, _VARINT) + varint(value) if value else b""


def text(field: int, value: str) -> bytes:
    return block(field, value.encode()) if value else b""


def block(field: int, content: bytes) -> bytes:
    """A message, or text: also an empty one."""
    return tag(field, _BLOCK) + length(len(content)) + content


def numbers(field: int, column: npt.NDArray[Any], width: int) -> Rows:
    """The field with each of the values, which fit into 7 * ``width`` bits: all alike long."""
    start = np.frombuffer(tag(field, _VARINT), np.uint8)
    rows = np.empty((len(column), len(start) + width), np.uint8)
    rows[:, : len(start)] = start
    rest = column.astype(np.uint64)
    for at in range(len(start), len(start) + width):
        rows[:, at] = (rest & np.uint64(0x7F)).astype(np.uint8) | 0x80
        rest >>= np.uint64(7)
    rows[:, -1] &= 0x7F
    return rows


def blocks(field: int, *contents: Rows) -> Rows:
    """The field with messages that are all alike long; each of ``contents`` is some of their fields."""
    size = sum(rows.shape[1] for rows in contents)
    start = np.frombuffer(tag(field, _BLOCK) + length(size), np.uint8)
    return beside(np.broadcast_to(start, (len(contents[0]), len(start))), *contents)


def beside(*parts: Rows) -> Rows:
    return np.concatenate(parts, axis=1)


def pieces(rows: Rows) -> Sequence[bytes]:
    """Row by row."""
    count, width = rows.shape
    raw = rows.tobytes()
    return [raw[at : at + width] for at in range(0, count * width, width)]
