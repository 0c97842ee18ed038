"""What balancing means, said as simply as can be: frontends, a choice, two ends translated, and what a
connection keeps.

Where chance decides, the model is told what the programs did, and has said what they might; where nothing is
left to chance it says what they must.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import NamedTuple

from oracle.packets import TCP, Address

RANDOM, MAGLEV, WEIGHTED = range(3)
NO_BACKEND, NOT_IN_RANGE, NO_TUPLE = 158, 177, 191
#: How many times a backend is chosen when the client has another connection to it from the same port.
ATTEMPTS = 3


class End(NamedTuple):
    address: Address
    port: int


class Tuple(NamedTuple):
    """A packet's source, destination, and protocol."""

    source: End
    destination: End
    protocol: int


def _mapped(address: Address) -> bytes:
    return address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed


def murmur3(data: bytes) -> int:
    """MurmurHash3, x86, 32 bits, seed 0, of whole words (Appleby, public domain)."""
    mask, hashed = 0xFFFFFFFF, 0
    for (word,) in struct.iter_unpack("<I", data):
        mixed = word * 0xCC9E2D51 & mask
        hashed ^= ((mixed << 15 | mixed >> 17) & mask) * 0x1B873593 & mask
        hashed = ((hashed << 13 | hashed >> 19) & mask) * 5 + 0xE6546B64 & mask
    hashed ^= len(data)
    hashed = (hashed ^ hashed >> 16) * 0x85EBCA6B & mask
    hashed = (hashed ^ hashed >> 13) * 0xC2B2AE35 & mask
    return hashed ^ hashed >> 16


def tuple_hash(packet: Tuple) -> int:
    source, destination, protocol = packet
    ends = _mapped(source.address) + _mapped(destination.address)
    return murmur3(ends + struct.pack(">HHBxxx", source.port, destination.port, protocol))


@dataclass
class Service:
    backends: list[int]
    algorithm: int = RANDOM
    places: Sequence[int] = ()

    def candidates(self, hashed: int) -> list[set[int]]:
        """Which backends each attempt may choose."""
        if self.algorithm == MAGLEV:
            return [{self.places[(hashed + i) % 2**32 % len(self.places)]} for i in range(ATTEMPTS)]
        return [set(self.places if self.algorithm == WEIGHTED else self.backends)] * ATTEMPTS


@dataclass
class Frontend:
    service: int
    outside: int
    external: bool = True
    ranges: tuple[IPv4Network | IPv6Network, ...] | None = None


@dataclass
class Connection:
    """One that has been balanced: what it called, what it got, and as whom it reaches that."""

    client: End
    frontend: End
    backend: End
    number: int
    protocol: int
    source: End

    @property
    def own(self) -> Tuple:
        return Tuple(self.client, self.backend, self.protocol)

    @property
    def there(self) -> Tuple:
        """A packet to the backend as it leaves."""
        return Tuple(self.source, self.backend, self.protocol)

    @property
    def answer(self) -> Tuple:
        """One from the backend as it arrives."""
        return Tuple(self.backend, self.source, self.protocol)

    @property
    def back(self) -> Tuple:
        """And as it leaves."""
        return Tuple(self.frontend, self.client, self.protocol)


@dataclass
class Model:
    """One node. Addresses that are nobody's known are outside."""

    own: set[Address]
    pods: set[Address]  # of this node
    cluster: set[Address]  # other pods and nodes
    #: The unspecified address stands for the node's own of its version.
    frontends: dict[tuple[Address, int, int], Frontend] = field(default_factory=dict)
    services: dict[int, Service] = field(default_factory=dict)
    backends: dict[int, End] = field(default_factory=dict)
    #: By the packet of a client as it arrives.
    connections: dict[Tuple, Connection] = field(default_factory=dict)
    #: Connections that nobody translates, by their first packet.
    plain: set[Tuple] = field(default_factory=set)

    def frontend(self, packet: Tuple) -> Frontend | None:
        """Exactly what was called, or the port on every address of the node."""
        (address, port), protocol = packet.destination, packet.protocol
        exact = self.frontends.get((address, port, protocol))
        if exact is None and address in self.own:
            any_address = ip_address("0.0.0.0" if address.version == 4 else "::")
            return self.frontends.get((any_address, port, protocol))
        return exact

    def known(self, packet: Tuple) -> Connection | None:
        """The connection of a client's packet, if its backend still stands."""
        found = self.connections.get(packet)
        if found is not None and self.backends.get(found.number) != found.backend:
            return None
        return found

    def lost(self, packet: Tuple) -> bool:
        """Whether it belongs to a connection whose backend is gone."""
        return packet in self.connections and self.known(packet) is None

    def judged(self, packet: Tuple) -> int | set[int] | None:
        """What must become of a client's first packet: the reason for which it is dropped, or the numbers of
        the backends that it may get, or None where it is for no service that serves this client.
        """
        frontend = self.frontend(packet)
        if frontend is None:
            return None
        outside = packet.source.address not in self.pods | self.cluster
        if outside and not frontend.external:
            return None
        ranges = frontend.ranges
        if outside and ranges is not None and not any(packet.source.address in each for each in ranges):
            return NOT_IN_RANGE
        service = self.services[frontend.outside if outside else frontend.service]
        if not service.backends:
            return NO_BACKEND
        allowed: set[int] = set()
        choices = service.candidates(tuple_hash(packet))
        for choice in choices:
            free = {number for number in choice if not self.taken(packet, number)}
            allowed |= free
            if free == choice:
                return allowed
        # Nobody knows of others than TCP whether they are over: the newer one is right.
        if packet.protocol != TCP:
            allowed |= choices[-1]
        return allowed or NO_TUPLE

    def may_be_refused(self, packet: Tuple) -> bool:
        """Whether chance may lead to nothing but backends to which the client has another connection."""
        frontend = self.frontend(packet)
        assert frontend is not None
        outside = packet.source.address not in self.pods | self.cluster
        service = self.services[frontend.outside if outside else frontend.service]
        return (
            packet.protocol == TCP
            and service.algorithm != MAGLEV
            and any(self.taken(packet, number) for number in service.candidates(0)[0])
        )

    def taken(self, packet: Tuple, number: int) -> bool:
        """Whether the client has another connection to this backend from the same port."""
        wanted = Tuple(packet.source, self.backends[number], packet.protocol)
        return wanted in self.plain or any(each.own == wanted for each in self.connections.values())

    def begin(self, own: Tuple) -> None:
        """A connection with this tuple begins: another one with the same, in its way, is no more."""
        self.plain.discard(own)
        self.connections = {call: each for call, each in self.connections.items() if each.own != own}

    def changes_source(self, packet: Tuple, number: int) -> Mapping[str, bool]:
        """As whom a client reaches a backend: ``itself``, ``service``, or ``node``, from a port of that."""
        client, backend = packet.source.address, self.backends[number].address
        if client in self.pods:
            itself = backend in self.pods - {client} | self.own | self.cluster
            return {"itself": itself, "service": client == backend, "node": not itself and client != backend}
        itself = backend in self.pods | self.own
        return {"itself": itself, "service": False, "node": not itself}
