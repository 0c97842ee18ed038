"""Addresses and prefixes as bytes: the form in which tables hold them, and in which they cost least.

An address is its 16 bytes in network order, IPv4 mapped into IPv6 (RFC 4291, section 2.5.5.2). A `Prefix`
is the address with which it begins and one byte more: how many of these 128 bits count. A node keeps one
for every pod of the cluster: a network of `ipaddress` takes six times the memory, and ten times as long
to be looked up by.
"""

from __future__ import annotations

import socket
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


def parse_address(text: str) -> Prefix:
    """The prefix of one address. ValueError for what is none."""
    return Prefix(address_bytes(text) + bytes((WHOLE,)))


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
