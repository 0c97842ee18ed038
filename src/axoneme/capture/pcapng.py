"""Blocks of a pcapng file (https://datatracker.ietf.org/doc/draft-ietf-opsawg-pcapng/): values in, bytes out.

Little-endian, times in nanoseconds since 1970.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Final

#: Link types (https://www.tcpdump.org/linktypes.html): frames of Ethernet, and IP packets without a frame.
ETHERNET, RAW_IP = 1, 101
INBOUND, OUTBOUND = 1, 2

_SECTION, _INTERFACE, _NAMES, _STATISTICS, _PACKET = 0x0A0D0D0A, 1, 4, 5, 6
_COMMENT: Final = 1
_BYTE_ORDER: Final = 0x1A2B3C4D
_NANOSECONDS: Final = 9  # if_tsresol: a negative power of ten
#: epb_verdict: a decision of a program at TC, and what that returned (TC_ACT_SHOT, TC_ACT_OK).
_BY_TC, _SHOT, _OK = 1, 2, 0
#: Options and records have at most so many bytes.
_LONGEST: Final = 65535


def section(application: str, system: str, comment: str) -> bytes:
    """What a file begins with."""
    head = struct.pack("<IHHq", _BYTE_ORDER, 1, 0, -1)
    return _block(_SECTION, head + _options([(_COMMENT, comment), (3, system), (4, application)]))


def interface(link_type: int, snap_length: int, name: str, description: str) -> bytes:
    """Interfaces have numbers in the order of their blocks, from 0."""
    options: list[tuple[int, str | bytes]] = [(2, name), (9, bytes([_NANOSECONDS]))]
    if description:
        options.append((3, description))
    return _block(_INTERFACE, struct.pack("<HHI", link_type, 0, snap_length) + _options(options))


def names(by_address: Mapping[bytes, str]) -> bytes:
    """What addresses (4 or 16 bytes) are called."""
    records = b"".join(
        struct.pack("<HH", 1 if len(address) == 4 else 2, len(address) + len(name) + 1)
        + _pad(address + name + b"\0")
        for address, name in ((address, text.encode()[:255]) for address, text in by_address.items())
    )
    return _block(_NAMES, records + struct.pack("<HH", 0, 0))


def packet(
    number: int,
    time: int,
    data: bytes,
    length: int,
    direction: int,
    comment: str,
    dropped: bool | None,
) -> bytes:
    """``number``: of its interface. ``length``: before it was cut. ``dropped``: None where nobody said."""
    head = struct.pack("<IIIII", number, time >> 32, time & 0xFFFFFFFF, len(data), length)
    options: list[tuple[int, str | bytes]] = [(2, struct.pack("<I", direction))]
    if comment:
        options.append((_COMMENT, comment))
    if dropped is not None:
        options.append((7, struct.pack("<Bq", _BY_TC, _SHOT if dropped else _OK)))
    return _block(_PACKET, head + _pad(data) + _options(options))


def statistics(number: int, time: int, received: int, written: int, comment: str) -> bytes:
    """Of one interface, at the end: packets that passed it, and those that are in the file."""
    options: list[tuple[int, str | bytes]] = [
        (4, struct.pack("<Q", received)),
        (8, struct.pack("<Q", written)),
    ]
    if comment:
        options.append((_COMMENT, comment))
    return _block(_STATISTICS, struct.pack("<III", number, time >> 32, time & 0xFFFFFFFF) + _options(options))


def _options(options: Iterable[tuple[int, str | bytes]]) -> bytes:
    made = b""
    for code, value in options:
        raw = value.encode()[:_LONGEST] if isinstance(value, str) else value
        made += struct.pack("<HH", code, len(raw)) + _pad(raw)
    return made + struct.pack("<HH", 0, 0)


def _block(kind: int, body: bytes) -> bytes:
    size = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + size + body + size


def _pad(raw: bytes) -> bytes:
    return raw + bytes(-len(raw) % 4)
