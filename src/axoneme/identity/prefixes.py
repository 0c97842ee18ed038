"""Addresses and prefixes as bytes: the form in which tables hold them, and in which they cost least.

An address is its 16 bytes in network order, IPv4 mapped into IPv6 (RFC 4291, section 2.5.5.2). A `Prefix`
is the address with which it begins and one byte more: how many of these 128 bits count. A node keeps one
for every pod of the cluster: a network of `ipaddress` takes six times the memory, and ten times as long
to be looked up by.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import NewType

Network = IPv4Network | IPv6Network
Prefix = NewType("Prefix", bytes)

#: Bits that an address has.
WHOLE = 128
_V4_MAPPED = bytes(10) + b"\xff\xff"
_V4_BITS = 32


def address_bytes(text: str) -> bytes:
    """16 bytes in network order, IPv4 as ::ffff:a.b.c.d. ValueError for what is no address."""
    try:
        if ":" in text:
            return socket.inet_pton(socket.AF_INET6, text)
        return _V4_MAPPED + socket.inet_pton(socket.AF_INET, text)
    except (OSError, UnicodeEncodeError, ValueError):  # ValueError: a NUL in it
        raise ValueError(f"{text!r} is no IP address") from None


def address_text(address: bytes) -> str:
    if address.startswith(_V4_MAPPED):
        return socket.inet_ntop(socket.AF_INET, address[12:])
    return socket.inet_ntop(socket.AF_INET6, address)


def prefix_of(network: Network) -> Prefix:
    if network.version == 4:
        bits = network.prefixlen + WHOLE - _V4_BITS
        return Prefix(_V4_MAPPED + network.network_address.packed + bytes((bits,)))
    return Prefix(network.network_address.packed + bytes((network.prefixlen,)))


def prefix_of_address(address: bytes) -> Prefix:
    """That holds only these 16 bytes."""
    return Prefix(address + bytes((WHOLE,)))


def version_of(address: bytes) -> int:
    """4 or 6."""
    return 4 if address.startswith(_V4_MAPPED) else 6


def parse_address(text: str) -> Prefix:
    """The prefix of one address. ValueError for what is none."""
    return prefix_of_address(address_bytes(text))


def parse_prefix(text: str) -> Prefix:
    """An address, or a network in the form ADDRESS/LENGTH. ValueError for what is neither."""
    return prefix_of(ip_network(text)) if "/" in text else parse_address(text)


def is_address(prefix: Prefix) -> bool:
    """Whether it holds one address only."""
    return prefix[16] == WHOLE


def network_of(prefix: Prefix) -> Network:
    return ip_network(prefix_text(prefix))


def prefix_text(prefix: Prefix) -> str:
    bits = prefix[16] - (WHOLE - _V4_BITS if prefix.startswith(_V4_MAPPED) else 0)
    return f"{address_text(prefix[:16])}/{bits}"


class PrefixSet:
    """Prefixes, asked for the longest around an address."""

    def __init__(self, prefixes: Iterable[Prefix] = ()) -> None:
        #: By length, longest first: how the prefixes of that length begin.
        self._by_length: dict[int, set[int]] = {}
        for prefix in prefixes:
            self.add(prefix)

    def add(self, prefix: Prefix) -> None:
        length = prefix[16]
        if length not in self._by_length:
            self._by_length = dict(sorted({**self._by_length, length: set()}.items(), reverse=True))
        self._by_length[length].add(_begins(prefix, length))

    def discard(self, prefix: Prefix) -> None:
        beginnings = self._by_length.get(prefix[16], set())
        beginnings.discard(_begins(prefix, prefix[16]))
        if not beginnings:
            self._by_length.pop(prefix[16], None)

    def longest(self, address: bytes) -> Prefix | None:
        """Of 16 bytes, or of a prefix's address."""
        for length, beginnings in self._by_length.items():
            if (begin := _begins(address, length)) in beginnings:
                return Prefix((begin << WHOLE - length).to_bytes(16) + bytes((length,)))
        return None

    def __bool__(self) -> bool:
        return bool(self._by_length)


def _begins(address: bytes, length: int) -> int:
    return int.from_bytes(address[:16]) >> WHOLE - length
