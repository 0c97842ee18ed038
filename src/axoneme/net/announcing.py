"""Telling a link where an address is, before anybody asks: ARP announcements (RFC 5227) and unsolicited
neighbour advertisements (RFC 4861, section 7.2.6); and hearing who asks for one by multicast."""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from typing import Final, NamedTuple

from axoneme.net.node import Address

_BROADCAST: Final = b"\xff" * 6
_ALL_NODES: Final = ipaddress.IPv6Address("ff02::1")
_SOLICITED: Final = int(ipaddress.IPv6Address("ff02::1:ff00:0"))
_OVERRIDE: Final = 0x20000000
_ICMPV6: Final = 58
_SIOCGIFHWADDR: Final = 0x8927
_ETHERNET: Final = 1  # ARPHRD_ETHER
_TOO_MANY: Final = {errno.ENOBUFS, errno.ENOMEM}


class Device(NamedTuple):
    """``number`` is its ifindex."""

    number: int
    mac: bytes


def devices(names: Iterable[str]) -> dict[str, Device]:
    """Those of the devices that are there and have an Ethernet address."""
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        for name in names:
            try:
                answer = fcntl.ioctl(handle, _SIOCGIFHWADDR, struct.pack("16s16x", name.encode()))
                index = socket.if_nametoindex(name)
            except OSError:
                continue
            kind, mac = struct.unpack("16xH6s8x", answer)
            if kind == _ETHERNET:
                found[name] = Device(index, mac)
    return found


def announcement(address: Address, mac: bytes) -> bytes:
    """The frame that says that ``mac`` has the address."""
    if isinstance(address, ipaddress.IPv4Address):
        head = struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1)
        return _BROADCAST + mac + b"\x08\x06" + head + mac + address.packed + bytes(6) + address.packed
    message = struct.pack(">BBHI", 136, 0, 0, _OVERRIDE) + address.packed + b"\x02\x01" + mac
    pseudo = address.packed + _ALL_NODES.packed + struct.pack(">II", len(message), _ICMPV6)
    message = message[:2] + struct.pack(">H", _checksum(pseudo + message)) + message[4:]
    head = struct.pack(">IHBB", 6 << 28, len(message), _ICMPV6, 255) + address.packed + _ALL_NODES.packed
    return b"\x33\x33" + _ALL_NODES.packed[12:] + mac + b"\x86\xdd" + head + message


def _checksum(data: bytes) -> int:
    """RFC 1071, of an even number of bytes."""
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF


class Speaker:
    """Sends frames. Needs CAP_NET_RAW; belongs to the network namespace in which it first speaks."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None

    def send(self, device: str, frame: bytes) -> None:
        """OSError when the device is gone or down, or when this process may not."""
        if self._socket is None:
            # No protocol: it hears nothing.
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.sendto(frame, (device, 0))

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()


class Groups:
    """Membership in the groups by which IPv6 addresses are asked for (RFC 4291, section 2.7.1).

    A device passes only multicast on that somebody has asked it for, and a switch that listens to MLD does
    not bring any other.
    """

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []
        self._joined: dict[tuple[int, int], socket.socket] = {}

    def join(self, wanted: Iterable[tuple[Address, int]]) -> list[str]:
        """Leaves all groups but those of these addresses, each on the device with that index; what failed."""
        groups = {
            (_SOLICITED | int(address) & 0xFFFFFF, index) for address, index in wanted if address.version == 6
        }
        for group in self._joined.keys() - groups:
            with suppress(OSError):  # with the device, its groups are gone
                self._change(self._joined.pop(group), socket.IPV6_LEAVE_GROUP, group)
        return [problem for group in sorted(groups - self._joined.keys()) if (problem := self._enter(group))]

    def close(self) -> None:
        for each in self._sockets:
            each.close()

    def _enter(self, group: tuple[int, int]) -> str:
        """Joins; why not, as a sentence."""
        try:
            for each in reversed(self._sockets):
                if self._change(each, socket.IPV6_JOIN_GROUP, group):
                    self._joined[group] = each
                    return ""
            # A socket has room for some hundreds of memberships.
            self._sockets.append(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
            if self._change(self._sockets[-1], socket.IPV6_JOIN_GROUP, group):
                self._joined[group] = self._sockets[-1]
                return ""
            reason = "there is no room for it"
        except OSError as error:
            reason = error.strerror or str(error)
        return f"device {group[1]}: group {ipaddress.IPv6Address(group[0])}: {reason}"

    def _change(self, handle: socket.socket, option: int, group: tuple[int, int]) -> bool:
        """False when the socket has no room for more groups."""
        request = ipaddress.IPv6Address(group[0]).packed + struct.pack("@I", group[1])
        try:
            handle.setsockopt(socket.IPPROTO_IPV6, option, request)
        except OSError as error:
            if error.errno in _TOO_MANY:
                return False
            raise
        return True
