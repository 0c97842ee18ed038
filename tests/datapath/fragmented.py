"""IP fragments of frames."""

from __future__ import annotations

import struct

from oracle.packets import checksum


def fragment(whole: bytes, first: int, last: int, number: int = 7) -> bytes:
    """Of a frame without options, bytes ``first`` to ``last`` of its layer 4, as a fragment."""
    ipv6 = whole[12:14] == b"\x86\xdd"
    l4 = whole[54:] if ipv6 else whole[34:]
    body, more = l4[first:last], last < len(l4)
    if ipv6:
        head = whole[14:18] + struct.pack(">HB", 8 + len(body), 44) + whole[21:54]
        return whole[:14] + head + struct.pack(">BBHI", whole[20], 0, first | more, number) + body
    packed = bytearray(whole[14:34])
    packed[2:8] = struct.pack(">HHH", 20 + len(body), number, (0x2000 if more else 0) | first // 8)
    packed[10:12] = b"\0\0"
    packed[10:12] = struct.pack(">H", checksum(bytes(packed)))
    return whole[:14] + bytes(packed) + body
