"""Protocols and ports as prefixes, the only shape in which the kernel's policy table can hold them.

A `Prefix` is the tail of a policy key: the protocol's 8 bits and the port's 16, of which the first
few count. Two prefixes are either nested or disjoint; `wider` walks the ones around a prefix. ICMP
types stand where the port stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from axoneme.model.policy import PortRange, Protocol

#: Lengths of a policy key, in bits: subject, peer and direction alone; with protocol; with port.
PEER_BITS = 72
PROTOCOL_BITS = 80
PORT_BITS = 96

LAST_PORT = 65535

#: What ``ANY`` means beside a port number (a policy's ANY never includes ICMP then).
_WITH_PORTS = (Protocol.TCP, Protocol.UDP, Protocol.SCTP)


class Prefix(NamedTuple):
    """Packets of ``protocol`` whose port begins with the bits of ``port`` that ``length`` covers.

    ``length`` counts from the start of the kernel's key: 72 is every protocol, 80 every port of one
    protocol, 96 one port.
    """

    protocol: int
    port: int
    length: int


EVERYTHING = Prefix(0, 0, PEER_BITS)
_EVERYTHING = frozenset({EVERYTHING})


def wider(prefix: Prefix) -> Iterator[Prefix]:
    """The prefixes that contain ``prefix``, without itself, longest first."""
    protocol, port, length = prefix
    for shorter in range(length - 1, PROTOCOL_BITS - 1, -1):
        yield Prefix(protocol, _first_port(port, shorter), shorter)
    if length > PEER_BITS:
        yield EVERYTHING


def prefixes(ranges: Iterable[PortRange]) -> frozenset[Prefix]:
    """The fewest prefixes that cover exactly ``ranges``."""
    by_protocol: dict[int, list[tuple[int, int]]] = {}
    for item in ranges:
        whole = item.first == 0 and item.last == LAST_PORT
        if item.protocol is Protocol.ANY and whole:
            return _EVERYTHING
        for protocol in _WITH_PORTS if item.protocol is Protocol.ANY else (item.protocol,):
            by_protocol.setdefault(int(protocol), []).append((item.first, item.last))
    return frozenset(
        prefix
        for protocol, spans in by_protocol.items()
        for first, last in _joined(spans)
        for prefix in _aligned(protocol, first, last)
    )


def _joined(spans: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Overlapping and adjacent ranges made one."""
    spans.sort()
    first, last = spans[0]
    for next_first, next_last in spans[1:]:
        if next_first > last + 1:
            yield first, last
            first = next_first
        last = max(last, next_last)
    yield first, last


def _aligned(protocol: int, first: int, last: int) -> Iterator[Prefix]:
    """A range cut into blocks whose size is a power of two and which start at a multiple of it."""
    while first <= last:
        size = first & -first or LAST_PORT + 1
        while size > last - first + 1:
            size >>= 1
        yield Prefix(protocol, first, PORT_BITS + 1 - size.bit_length())
        first += size


def _first_port(port: int, length: int) -> int:
    return port & (LAST_PORT << PORT_BITS - length)
