"""From the bytes of a packet to the connection that it belongs to; an ICMP error belongs to the one that it
is about.

What this cannot read (not IP, broken off before the ports) is nobody's. Ports are 0 for protocols that have
none.
"""

from __future__ import annotations

from typing import Final, NamedTuple

ICMP, TCP, UDP, ICMPV6, SCTP = 1, 6, 17, 58, 132

_IPV4, _IPV6 = 0x0800, 0x86DD
_VLAN: Final = (0x8100, 0x88A8)
_ETHERNET: Final = 14
#: Headers of IPv6 that stand before the one that counts: their length is in their second byte (RFC 8200,
#: 6564).
_EXTENSIONS: Final = (0, 43, 60, 135, 139, 140)
_FRAGMENT: Final = 44
_MOST_EXTENSIONS: Final = 8
_ERRORS: Final = {ICMP: (3, 4, 5, 11, 12), ICMPV6: (1, 2, 3, 4)}

#: An address (4 or 16 bytes) and a port.
End = tuple[bytes, int]
#: A protocol and two ends, the lesser first: of both directions.
Key = tuple[int, End, End]


class Packet(NamedTuple):
    """``identity``: the bytes that stay the same on the way through a node (not the hop limit, checksums,
    frames). ``fragment``: of a datagram in pieces, what all of its pieces have; ``later``: the piece has no
    ports."""

    protocol: int
    source: End
    destination: End
    identity: bytes
    fragment: bytes = b""
    later: bool = False

    @property
    def key(self) -> Key:
        return key(self.protocol, self.source, self.destination)


def key(protocol: int, one: End, other: End) -> Key:
    return (protocol, one, other) if one <= other else (protocol, other, one)


def of_frame(frame: bytes) -> Packet | None:
    """Of a frame of Ethernet, with or without tags of VLANs."""
    at, kind = _ETHERNET, int.from_bytes(frame[12:14])
    while kind in _VLAN:
        kind, at = int.from_bytes(frame[at + 2 : at + 4]), at + 4
    return of_ip(frame[at:]) if kind in (_IPV4, _IPV6) else None


def of_ip(raw: bytes) -> Packet | None:
    version = raw[0] >> 4 if raw else 0
    if version == 4 and len(raw) >= 20:
        return _ipv4(raw)
    if version == 6 and len(raw) >= 40:
        return _ipv6(raw)
    return None


def _ipv4(raw: bytes) -> Packet | None:
    begin, protocol, fragment = (raw[0] & 15) * 4, raw[9], int.from_bytes(raw[6:8])
    source, destination = raw[12:16], raw[16:20]
    whole = raw[4:6] + source + destination if fragment & 0x3FFF else b""
    identity = raw[2:8] + raw[9:10]
    return _transport(protocol, source, destination, raw[begin:], identity, whole, bool(fragment & 0x1FFF))


def _ipv6(raw: bytes) -> Packet | None:
    protocol, at = raw[6], 40
    source, destination = raw[8:24], raw[24:40]
    whole, later = b"", False
    for _ in range(_MOST_EXTENSIONS):
        if protocol == _FRAGMENT and len(raw) >= at + 8:
            whole = raw[at + 4 : at + 8] + source + destination
            later = int.from_bytes(raw[at + 2 : at + 4]) & 0xFFF8 != 0
            protocol, at = raw[at], at + 8
            if later:
                break
        elif protocol in _EXTENSIONS and len(raw) >= at + 2:
            protocol, at = raw[at], at + 8 * (raw[at + 1] + 1)
        else:
            break
    return _transport(protocol, source, destination, raw[at:], raw[1:6] + raw[40:at], whole, later)


def _transport(
    protocol: int, source: bytes, destination: bytes, raw: bytes, identity: bytes, whole: bytes, later: bool
) -> Packet | None:
    if later:
        return Packet(protocol, (source, 0), (destination, 0), identity + whole + raw[:8], whole, True)
    known = identity + source + destination + raw[:4]
    if protocol in _ERRORS and len(raw) >= 8 and raw[0] in _ERRORS[protocol]:
        about = of_ip(raw[8:])
        # Whom it is about has sent it to who says so, or to somebody behind.
        return about and about._replace(
            source=about.destination, destination=about.source, identity=known + raw[4:40]
        )
    if protocol not in (TCP, UDP, SCTP):
        return Packet(protocol, (source, 0), (destination, 0), known + raw[4:40], whole)
    if len(raw) < 8:
        return None
    ports = int.from_bytes(raw[:2]), int.from_bytes(raw[2:4])
    # TCP: numbers, flags, window; then some of what is carried. A checksum may be left to the device.
    rest = raw[4:16] + raw[20:48] if protocol == TCP else raw[4:6] + raw[8:48]
    return Packet(protocol, (source, ports[0]), (destination, ports[1]), known + rest, whole)
