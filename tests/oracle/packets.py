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
    whole: bool = False,
) -> bytes:
    """A frame; for ICMP the type is ``destination_port`` and the identifier ``source_port``. ``whole``: IPv4
    with "don't fragment".

    Layer 4 checksums are zero: the programs never read them.
    """
    if protocol == TCP:
        l4 = struct.pack(">HHIIBBHHH", source_port, destination_port, 1, 1, 5 << 4, flags, 8192, 0, 0)
    elif protocol in (ICMP, ICMPV6):
        l4 = struct.pack(">BBHHH", destination_port & 0xFF, code, 0, source_port, 1)
    else:
        l4 = struct.pack(">HHHH", source_port, destination_port, 8 + len(payload), 0)
    l4 += payload
    return ETHERNET + ip_header(source, destination, protocol, len(l4), ttl, 0x4000 if whole else 0) + l4


def ip_header(
    source: Address, destination: Address, protocol: int, length: int, ttl: int = 64, fragment: int = 0
) -> bytes:
    """With EtherType in front. ``fragment``: flags and offset of IPv4."""
    if isinstance(source, IPv6Address):
        head = struct.pack(">IHBB", 6 << 28, length, protocol, ttl)
        return b"\x86\xdd" + head + source.packed + destination.packed
    head = struct.pack(
        ">BBHHHBBH4s4s",
        0x45,
        0,
        20 + length,
        7,
        fragment,
        ttl,
        protocol,
        0,
        source.packed,
        destination.packed,
    )
    total = sum(struct.unpack(">10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return b"\x08\x00" + head[:10] + struct.pack(">H", ~total & 0xFFFF) + head[12:]


def checksum(data: bytes) -> int:
    """RFC 1071; 0 over data that holds its own right checksum."""
    total = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def pseudo_header(source: Address, destination: Address, protocol: int, length: int) -> bytes:
    if isinstance(source, IPv6Address):
        return source.packed + destination.packed + struct.pack(">II", length, protocol)
    return source.packed + destination.packed + struct.pack(">BBH", 0, protocol, length)


def crc32c(data: bytes) -> int:
    """Bit by bit, as RFC 9260, appendix A, defines it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


_CHECKSUM_AT = {TCP: 16, UDP: 6, ICMP: 2, ICMPV6: 2}


def with_checksum(packet: bytes) -> bytes:
    """The frame with a right checksum in layer 4."""
    seen = dissect(packet)
    start, at = seen.l4_offset, _CHECKSUM_AT[seen.protocol]
    l4 = packet[start : start + at] + b"\0\0" + packet[start + at + 2 :]
    return packet[: start + at] + struct.pack(">H", seen.sum_over(l4)) + packet[start + at + 2 :]


class Seen:
    """A frame taken apart."""

    def __init__(self, packet: bytes) -> None:
        self.packet = packet
        self.to, self.sender = packet[:6], packet[6:12]
        if packet[12:14] == b"\x08\x00":
            self.source: Address = IPv4Address(packet[26:30])
            self.destination: Address = IPv4Address(packet[30:34])
            self.protocol, self.ttl, self.l4_offset = packet[23], packet[22], 34
            self.ip_checksum_right = checksum(packet[14:34]) == 0
        else:
            self.source, self.destination = IPv6Address(packet[22:38]), IPv6Address(packet[38:54])
            self.protocol, self.ttl, self.l4_offset = packet[20], packet[21], 54
            self.ip_checksum_right = True
        self.l4 = packet[self.l4_offset :]
        self.ports = struct.unpack(">HH", self.l4[:4])

    def sum_over(self, l4: bytes) -> int:
        head = (
            b""
            if self.protocol == ICMP
            else pseudo_header(self.source, self.destination, self.protocol, len(l4))
        )
        return checksum(head + l4)

    @property
    def checksum_right(self) -> bool:
        return self.sum_over(self.l4) == 0


def dissect(packet: bytes) -> Seen:
    return Seen(packet)
