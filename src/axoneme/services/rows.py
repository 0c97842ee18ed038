"""Rows of the kernel's service tables as values.

Of places and slots a node has a hundred thousand: they are bytes and bare tuples, which take little memory,
are quick to look up by, and which the garbage collector passes over.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import Final, NamedTuple, NewType

from axoneme.services.balanced import Address, Network

#: Where a frontend or a backend is: 16 bytes of its address in network order (IPv4 as ::ffff:a.b.c.d), two of
#: its port, one of its protocol. With port and protocol 0 it is a marker: the address is a service's.
Place = NewType("Place", bytes)
#: A place, and a byte of `BackendFlag`.
BackendRow = NewType("BackendRow", bytes)
#: Number of a service, and of its slot.
SlotKey = tuple[int, int]

_V4_MAPPED: Final = bytes(10) + b"\xff\xff"
_PLACE_V4: Final = struct.Struct(">10xHIHB")
_PLACE_V6: Final = struct.Struct(">16sHB")
#: Bytes of an address, and of a place.
ADDRESS, PLACE = 16, 19


class FrontendFlag(enum.IntFlag):
    """``enum frontend_flag`` of the datapath."""

    EXTERNAL = 1
    SOURCE_RANGES = 2
    DIRECT = 4
    WRAPPED = 8


class BackendFlag(enum.IntFlag):
    """``enum backend_flag`` of the datapath."""

    LEAVING = 1


class TableAlgorithm(enum.IntEnum):
    """``enum algorithm`` of the datapath."""

    RANDOM = 0
    MAGLEV = 1
    WEIGHTED = 2


class FrontendRow(NamedTuple):
    service: int
    outside: int
    flags: int


class ServiceRow(NamedTuple):
    """``affinity`` in ticks of the datapath."""

    backends: int
    affinity: int
    algorithm: int


class RangeKey(NamedTuple):
    """``prefix_length`` in bits of service and address together."""

    prefix_length: int
    service: int
    address: bytes


def packed(address: Address) -> bytes:
    """16 bytes as the tables hold them (RFC 4291, section 2.5.5.2)."""
    return _V4_MAPPED + address.packed if address.version == 4 else address.packed


def unpacked(address: bytes) -> Address:
    """The reverse of `packed`."""
    found = IPv6Address(address)
    return found.ipv4_mapped or found


def place(address: Address, port: int, protocol: int) -> Place:
    if address.version == 4:
        return Place(_PLACE_V4.pack(0xFFFF, int(address), port, protocol))
    return Place(_PLACE_V6.pack(address.packed, port, protocol))


def marker(address: bytes) -> Place:
    """Of 16 bytes."""
    return Place(address + bytes(PLACE - ADDRESS))


def is_marker(place: Place) -> bool:
    return not place[-1]


def place_text(place: Place) -> str:
    """Such as ``192.0.2.1:80`` or ``[2001:db8::1]:80``."""
    address, port = unpacked(place[:ADDRESS]), int.from_bytes(place[ADDRESS : ADDRESS + 2], "big")
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def range_of(network: Network) -> tuple[int, bytes]:
    """Prefix length and address of a `RangeKey`."""
    bits = 32 + network.prefixlen + (96 if network.version == 4 else 0)
    return bits, packed(network.network_address)


@dataclass(slots=True)
class Held:
    """What the kernel's tables hold: left by an earlier process."""

    frontends: dict[Place, FrontendRow] = field(default_factory=dict)
    services: dict[int, ServiceRow] = field(default_factory=dict)
    slots: dict[SlotKey, int] = field(default_factory=dict)
    backends: dict[int, BackendRow] = field(default_factory=dict)
    ranges: set[RangeKey] = field(default_factory=set)
    maglev: set[int] = field(default_factory=set)  # numbers of the services that have a table
