"""Echo requests and their replies (RFC 792, RFC 4443) by one raw socket for each family.

All forbid fragmentation, and go out whatever the kernel believes of the path, so that a large one
measures what the path carries. When a reply came is the kernel's word: this process may have been busy.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import time
from collections.abc import Iterable
from typing import Final

from axoneme.health.ways import Answer

#: Bytes of IP and ICMP headers: the smallest packet.
HEADERS: Final = {4: 28, 6: 48}
_ECHO: Final = struct.Struct("!BBHHH")
_REQUEST: Final = {4: 8, 6: 128}
_REPLY: Final = {4: 0, 6: 129}
_LONGEST: Final = 65536
_TRIES: Final = 2

# From linux/in.h, in6.h, icmp.h and icmpv6.h: Python has no names for them.
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE = 10, 23, 3
_SOL_RAW, _ICMP_FILTER, _ICMPV6_FILTER = 255, 1, 1
_SO_TIMESTAMPNS: Final = 35
_TIMESPEC: Final = struct.Struct("@ll")
_ROOM: Final = socket.CMSG_SPACE(_TIMESPEC.size)


class Pinger:
    """Asks addresses of one family, any number at once. Needs CAP_NET_RAW; belongs to the network namespace
    in which it was made, and to the running event loop."""

    def __init__(self, version: int) -> None:
        self._version = version
        self._number = int.from_bytes(os.urandom(2), "big")
        self._sequence = 0
        self._waiting: dict[int, asyncio.Future[int]] = {}
        self._socket = _raw_socket(version)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        asyncio.get_running_loop().add_reader(self._socket, self._receive)

    async def ask(self, address: str, size: int = 0, patience: float = 1.0) -> Answer:
        """The answer to a packet of ``size`` bytes from the IP header on (0: small), or to its repetition:
        any packet may get lost.

        OSError when it cannot leave (EMSGSIZE: it is larger than the device takes); TimeoutError, which is
        one too, when nobody has answered either within `patience` seconds.
        """
        loop = asyncio.get_running_loop()
        padding = bytes(max(size - HEADERS[self._version], 8))
        for _ in range(_TRIES):
            self._sequence = self._sequence + 1 & 0xFFFF
            sequence, answered = self._sequence, loop.create_future()
            self._waiting[sequence] = answered
            began = time.time_ns()
            try:
                self._socket.sendto(self._request(sequence, padding), (address, 0))
                async with asyncio.timeout(patience):
                    return Answer(max(await answered - began, 0) / 1e9)
            except TimeoutError:
                continue
            finally:
                del self._waiting[sequence]
        raise TimeoutError(f"no answer within {_TRIES * patience:g} s")

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def _request(self, sequence: int, data: bytes) -> bytes:
        kind = _REQUEST[self._version]
        # The kernel fills in the checksum of ICMPv6, which covers addresses.
        total = checksum(_ECHO.pack(kind, 0, 0, self._number, sequence) + data) if self._version == 4 else 0
        return _ECHO.pack(kind, 0, total, self._number, sequence) + data

    def _receive(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                packet, more, _, _ = self._socket.recvmsg(_LONGEST, _ROOM)
                start = (packet[0] & 0xF) * 4 if self._version == 4 else 0  # IPv4 comes with its header
                if len(packet) < start + _ECHO.size:
                    continue
                kind, _, _, number, sequence = _ECHO.unpack_from(packet, start)
                answered = self._waiting.get(sequence)
                ours = (kind, number) == (_REPLY[self._version], self._number)
                if ours and answered and not answered.done():
                    answered.set_result(_stamp(more))


def _stamp(more: Iterable[tuple[int, int, bytes]]) -> int:
    """When the kernel took the packet in: ns of the wall clock."""
    for level, kind, data in more:
        if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
            seconds, nanoseconds = _TIMESPEC.unpack_from(data)
            return int(seconds * 1_000_000_000 + nanoseconds)
    return time.time_ns()


def checksum(data: bytes) -> int:
    """Of the internet (RFC 1071)."""
    padded = data + bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _raw_socket(version: int) -> socket.socket:
    """One that hears echo replies only."""
    if version == 4:
        made = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMP)
        made.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("=I", ~(1 << _REPLY[4]) & 0xFFFFFFFF))
        made.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)
        return made
    made = socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMPV6)
    blocked = [0xFFFFFFFF] * 8
    blocked[_REPLY[6] // 32] ^= 1 << _REPLY[6] % 32
    made.setsockopt(socket.IPPROTO_ICMPV6, _ICMPV6_FILTER, struct.pack("=8I", *blocked))
    made.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)
    return made
