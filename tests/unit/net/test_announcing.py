"""The frames that tell a link where an address is."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

from axoneme.net.announcing import announcement
from oracle.packets import ICMPV6, dissect

MAC = bytes.fromhex("0a0000000c01")


def test_an_arp_announcement() -> None:
    """RFC 5227, section 3: a request for the address, from the address."""
    address = IPv4Address("10.0.0.1")
    frame = announcement(address, MAC)
    assert frame[:14] == b"\xff" * 6 + MAC + b"\x08\x06"
    assert frame[14:22] == struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1)
    assert frame[22:] == MAC + address.packed + bytes(6) + address.packed


def test_an_unsolicited_advertisement() -> None:
    """RFC 4861, section 7.2.6: to all nodes, not solicited, in place of what they knew."""
    address = IPv6Address("fd00::1")
    frame = announcement(address, MAC)
    seen = dissect(frame)
    assert (seen.to, seen.sender) == (bytes.fromhex("333300000001"), MAC)
    assert (seen.source, seen.destination, seen.protocol) == (address, ip_address("ff02::1"), ICMPV6)
    assert frame[21] == 255
    assert seen.checksum_right
    assert seen.l4[:2] == b"\x88\x00"
    assert seen.l4[4:] == struct.pack(">I", 0x20000000) + address.packed + b"\x02\x01" + MAC
