"""Values of the Kafka protocol as they stand in requests and responses.

Source: https://kafka.apache.org/protocol ("Protocol Primitive Types"). What brokers would take for something
else than we is refused: numbers longer than they need be read as 32 bits, text that is no UTF-8.
"""

from __future__ import annotations

import struct
from typing import Final

NUMBERS: Final = {
    "bool": struct.Struct("!?"),
    "int8": struct.Struct("!b"),
    "int16": struct.Struct("!h"),
    "uint16": struct.Struct("!H"),
    "int32": struct.Struct("!i"),
    "uint32": struct.Struct("!I"),
    "int64": struct.Struct("!q"),
    "float64": struct.Struct("!d"),
}
#: Elements of arrays in one message, all together: many small ones would take far more memory than bytes.
MOST_ELEMENTS: Final = 50_000

_INT16, _INT32 = NUMBERS["int16"], NUMBERS["int32"]


class Malformed(ValueError):
    """No message of this protocol, or none that can be judged."""


class Short(Malformed):
    """The message goes on after what there is of it."""


class Reader:
    """Reads from ``data``, from ``place`` on. Its methods raise `Malformed`."""

    def __init__(self, data: bytes, place: int = 0) -> None:
        self.data = data
        self.place = place
        self._elements = 0

    def number(self, kind: str) -> int:
        """Of one of `NUMBERS`."""
        form = NUMBERS[kind]
        return int(form.unpack_from(self.data, self._skip(form.size))[0])

    def varint(self) -> int:
        """UNSIGNED_VARINT, below 2^31."""
        value = 0
        for shift in range(0, 35, 7):
            byte = self.data[self._skip(1)]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >= 1 << 31:
                    break
                return value
        raise Malformed("a number of variable length is too long")

    def count(self, compact: bool) -> int:
        """How many elements an array has; -1: there is none."""
        count = self.varint() - 1 if compact else self.number("int32")
        if count < -1:
            raise Malformed(f"an array of {count} elements")
        self._elements += max(count, 0)
        if self._elements > MOST_ELEMENTS:
            raise Malformed(f"more than {MOST_ELEMENTS} elements")
        return count

    def text(self, compact: bool) -> str | None:
        length = self.varint() - 1 if compact else self.number("int16")
        if length == -1:
            return None
        start = self._skip(length)
        try:
            return self.data[start : self.place].decode()
        except UnicodeDecodeError as error:
            raise Malformed(f"text that is no UTF-8: {error}") from None

    def blob(self, compact: bool) -> bytes | None:
        length = self.varint() - 1 if compact else self.number("int32")
        return None if length == -1 else self.raw(length)

    def raw(self, length: int) -> bytes:
        start = self._skip(length)
        return self.data[start : self.place]

    def tags(self) -> dict[int, bytes]:
        """Tagged fields, each as it stands."""
        found: dict[int, bytes] = {}
        for _ in range(self.count_of_tags()):
            tag = self.varint()
            if tag in found:
                raise Malformed(f"the tag {tag} twice")
            found[tag] = self.raw(self.varint())
        return found

    def count_of_tags(self) -> int:
        count = self.varint()
        self._elements += count
        if self._elements > MOST_ELEMENTS:
            raise Malformed(f"more than {MOST_ELEMENTS} elements")
        return count

    def _skip(self, length: int) -> int:
        if length < 0:
            raise Malformed(f"a length of {length}")
        start = self.place
        if start + length > len(self.data):
            raise Short("it ends too early")
        self.place = start + length
        return start


class Writer:
    def __init__(self) -> None:
        self.data = bytearray()

    def number(self, kind: str, value: int) -> None:
        self.data += NUMBERS[kind].pack(value)

    def varint(self, value: int) -> None:
        while value >= 0x80:
            self.data.append(value & 0x7F | 0x80)
            value >>= 7
        self.data.append(value)

    def count(self, value: int, compact: bool) -> None:
        if compact:
            self.varint(value + 1)
        else:
            self.data += _INT32.pack(value)

    def text(self, value: str | None, compact: bool) -> None:
        encoded = None if value is None else value.encode()
        length = -1 if encoded is None else len(encoded)
        if compact:
            self.varint(length + 1)
        else:
            self.data += _INT16.pack(length)
        self.data += encoded or b""

    def blob(self, value: bytes | None, compact: bool) -> None:
        self.count(-1 if value is None else len(value), compact)
        self.data += value or b""

    def tags(self, values: dict[int, bytes]) -> None:
        self.varint(len(values))
        for tag, value in sorted(values.items()):
            self.varint(tag)
            self.varint(len(value))
            self.data += value
