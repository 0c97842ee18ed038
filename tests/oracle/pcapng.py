"""A reader of pcapng files, by the draft (draft-ietf-opsawg-pcapng), as strict as it is short."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

_PACKET, _INTERFACE, _NAMES, _STATISTICS, _SECTION = 6, 1, 4, 5, 0x0A0D0D0A


@dataclass
class Capture:
    options: dict[int, list[bytes]] = field(default_factory=dict)
    interfaces: list[dict[str, Any]] = field(default_factory=list)
    packets: list[dict[str, Any]] = field(default_factory=list)
    names: dict[bytes, str] = field(default_factory=dict)
    statistics: list[dict[str, Any]] = field(default_factory=list)


def read(raw: bytes) -> Capture:
    found = Capture()
    at = 0
    while at < len(raw):
        kind, size = struct.unpack_from("<II", raw, at)
        assert size % 4 == 0 and size >= 12
        assert struct.unpack_from("<I", raw, at + size - 4) == (size,), "both lengths agree"
        assert at or kind == _SECTION, "a section comes first"
        _block(found, kind, raw[at + 8 : at + size - 4])
        at += size
    assert at == len(raw)
    return found


def _block(found: Capture, kind: int, body: bytes) -> None:
    if kind == _SECTION:
        assert struct.unpack_from("<IHHq", body) == (0x1A2B3C4D, 1, 0, -1)
        found.options = _options(body[16:])
    elif kind == _INTERFACE:
        link, reserved, snap = struct.unpack_from("<HHI", body)
        options = _options(body[8:])
        assert reserved == 0 and options[9] == [b"\x09"], "nanoseconds"
        name, description = (options.get(code, [b""])[0].decode() for code in (2, 3))
        found.interfaces.append({"link": link, "snap": snap, "name": name, "description": description})
    elif kind == _PACKET:
        number, high, low, kept, length = struct.unpack_from("<IIIII", body)
        assert number < len(found.interfaces), "its interface comes first"
        assert kept <= length
        end = 20 + (kept + 3) // 4 * 4
        options = _options(body[end:])
        found.packets.append(
            {
                "interface": found.interfaces[number],
                "time": high << 32 | low,
                "data": body[20 : 20 + kept],
                "length": length,
                "comments": [each.decode() for each in options.get(1, [])],
                "flags": struct.unpack("<I", options[2][0])[0],
                "verdict": struct.unpack("<Bq", options[7][0]) if 7 in options else None,
            }
        )
    elif kind == _NAMES:
        _names(found, body)
    elif kind == _STATISTICS:
        number, high, low = struct.unpack_from("<III", body)
        options = _options(body[12:])
        received, delivered = (struct.unpack("<Q", options[code][0])[0] for code in (4, 8))
        found.statistics.append(
            {"interface": found.interfaces[number], "received": received, "delivered": delivered}
        )
    else:
        raise AssertionError(f"block of type {kind}")


def _names(found: Capture, body: bytes) -> None:
    at = 0
    while True:
        kind, size = struct.unpack_from("<HH", body, at)
        if kind == 0:
            assert at + 4 == len(body)
            return
        width = {1: 4, 2: 16}[kind]
        value = body[at + 4 : at + 4 + size]
        assert value[-1:] == b"\0"
        found.names[value[:width]] = value[width:-1].decode()
        at += 4 + (size + 3) // 4 * 4


def _options(body: bytes) -> dict[int, list[bytes]]:
    options: dict[int, list[bytes]] = {}
    at = 0
    while True:
        code, size = struct.unpack_from("<HH", body, at)
        if code == 0:
            assert size == 0 and at + 4 == len(body)
            return options
        options.setdefault(code, []).append(body[at + 4 : at + 4 + size])
        at += 4 + (size + 3) // 4 * 4
