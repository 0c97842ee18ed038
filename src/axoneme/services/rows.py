"""Rows of the kernel's service tables as values, and writes of them in an order that is safe.

Addresses are 16 bytes in network order, IPv4 as ::ffff:a.b.c.d; ports are in host byte order.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import Any, NamedTuple

from axoneme.services.balanced import Address, Network

_V4_MAPPED = bytes(10) + b"\xff\xff"


class FrontendFlag(enum.IntFlag):
    """``enum frontend_flag`` of the datapath."""

    EXTERNAL = 1
    SOURCE_RANGES = 2
    DIRECT = 4


class TableAlgorithm(enum.IntEnum):
    """``enum algorithm`` of the datapath."""

    RANDOM = 0
    MAGLEV = 1
    WEIGHTED = 2


class FrontendKey(NamedTuple):
    """Port and protocol 0: a marker, which says that the address is a service's."""

    address: bytes
    port: int
    protocol: int


class FrontendRow(NamedTuple):
    service: int
    outside: int
    flags: int


class ServiceRow(NamedTuple):
    """``affinity`` in ticks of the datapath."""

    backends: int
    affinity: int
    algorithm: int


class SlotKey(NamedTuple):
    service: int
    slot: int


class BackendRow(NamedTuple):
    address: bytes
    port: int
    protocol: int

    def __str__(self) -> str:
        address = unpacked(self.address)
        return f"[{address}]:{self.port}" if address.version == 6 else f"{address}:{self.port}"


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


def range_of(network: Network) -> tuple[int, bytes]:
    """Prefix length and address of a `RangeKey`."""
    bits = 32 + network.prefixlen + (96 if network.version == 4 else 0)
    return bits, packed(network.network_address)


class Step(NamedTuple):
    """Writes to one table, of different keys; ``values`` None: deletes them.

    ``maglev`` has the numbers of services as keys, and arrays of the numbers of backends as values; of
    ``source_ranges`` only the keys say something.
    """

    table: str
    keys: Sequence[Any]
    values: Sequence[Any] | None


class Departed(NamedTuple):
    """A backend that no service has any more: flows and sockets that go there have to be ended."""

    number: int
    row: BackendRow


@dataclass(slots=True)
class Changes:
    """What to write, step by step; after every step, and within one after every write, the tables make sense:
    nothing points to what is not there."""

    steps: list[Step] = field(default_factory=list)
    #: Name and port of the services whose numbers are in use from now on.
    named: dict[int, tuple[str, str]] = field(default_factory=dict)
    #: Numbers of services that are in use no longer.
    retired: list[int] = field(default_factory=list)
    departed: list[Departed] = field(default_factory=list)
    #: (service, backend) that takes no new connections of that service any more.
    withdrawn: list[tuple[int, int]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.steps)

    def __len__(self) -> int:
        """How many entries are written or deleted."""
        return sum(len(step.keys) for step in self.steps)


@dataclass(slots=True)
class Held:
    """What the kernel's tables hold: left by an earlier process."""

    frontends: dict[FrontendKey, FrontendRow] = field(default_factory=dict)
    services: dict[int, ServiceRow] = field(default_factory=dict)
    slots: dict[SlotKey, int] = field(default_factory=dict)
    backends: dict[int, BackendRow] = field(default_factory=dict)
    ranges: set[RangeKey] = field(default_factory=set)
    maglev: set[int] = field(default_factory=set)  # numbers of the services that have a table
