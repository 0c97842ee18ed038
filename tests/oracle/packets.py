"""Frames as bytes, for programs that are run without a network."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

Address = IPv4Address | IPv6Address

ETHERNET = bytes.fromhex("0261786f00010a0000000001")
TCP, UDP, ICMP, ICMPV6, SCTP = 6, 17, 1, 58, 132
FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10


def frame(
    source: Address,
    destination: Address,
    protocol: int,
    source_port: int = 0,
    destination_port: int = 0,
    *,
    flags: int = SYN,
    code: int = 0,
    payload: bytes = b"",
    ttl: int = 64,
) -> bytes:
    """A frame; for ICMP the type is ``destination_port`` and the identifier ``source_port``.

    Layer 4 checksums are zero: the programs never read them.
    """
    if protocol == TCP:
        l4 = struct.pack(">HHIIBBHHH", source_port, destination_port, 1, 1, 5 << 4, flags, 8192, 0, 0)
    elif protocol in (ICMP, ICMPV6):
        l4 = struct.pack(">BBHHH", destination_port & 0xFF, code, 0, source_port, 1)
    else:
        l4 = struct.pack(">HHHH", source_port, destination_port, 8 + len(payload), 0)
    l4 += payload
    return ETHERNET + ip_header(source, destination, protocol, len(l4), ttl) + l4


def ip_header(source: Address, destination: Address, protocol: int, length: int, ttl: int = 64) -> bytes:
    """With EtherType in front."""
    if isinstance(source, IPv6Address):
        head = struct.pack(">IHBB", 6 << 28, length, protocol, ttl)
        return b"\x86\xdd" + head + source.packed + destination.packed
    head = struct.pack(
        ">BBHHHBBH4s4s", 0x45, 0, 20 + length, 7, 0, ttl, protocol, 0, source.packed, destination.packed
    )
    total = sum(struct.unpack(">10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return b"\x08\x00" + head[:10] + struct.pack(">H", ~total & 0xFFFF) + head[12:]
