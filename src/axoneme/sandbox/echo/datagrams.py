"""The echo server's UDP: each datagram is answered with one, from the address that was asked.

A wildcard socket would answer from whichever address the route prefers; a client of one of many
addresses (the world's) would not know the sender. So the socket asks for the address of each datagram
(IP_PKTINFO, IPV6_RECVPKTINFO, ip(7) and ipv6(7)) and sends the answer from there.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Final

from axoneme.sandbox.echo import answers
from axoneme.sandbox.echo.answers import Endpoint, Identity, Request

_IP_PKTINFO: Final = 8  # linux/in.h; Python 3.11 does not name it
_LARGEST: Final = 65536

#: So many datagrams are answered before the loop may serve others.
_BURST: Final = 64


class EchoDatagrams:
    """Answers on one bound socket, which it owns from now on, until `close`."""

    def __init__(self, bound: socket.socket, identity: Identity, loop: asyncio.AbstractEventLoop) -> None:
        self._socket = bound
        self._identity = identity
        self._loop = loop
        self._port: int = bound.getsockname()[1]
        if bound.family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            bound.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        loop.add_reader(bound, self._answer_waiting)

    def close(self) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _answer_waiting(self) -> None:
        for _ in range(_BURST):
            try:
                data, ancillary, _, sender = self._socket.recvmsg(_LARGEST, 64)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error that an earlier answer met; nobody waits for it here
                continue
            asked = _destination(ancillary)
            if asked is None:
                continue
            request = Request(protocol="udp", length=len(data), body=answers.text(data))
            server = answers.endpoint((asked[0], self._port))
            answer = answers.compose(self._identity, server, _peer(sender), request)
            try:
                self._socket.sendmsg([answer], [asked[1]], 0, sender)
            except OSError:  # no route back, or a full queue: UDP may lose
                continue


def _peer(sender: tuple[str, int]) -> Endpoint:
    return answers.endpoint(sender)


def _destination(
    ancillary: list[tuple[int, int, bytes]],
) -> tuple[str, tuple[int, int, bytes]] | None:
    """The address a datagram came to, and the control message that sends from it."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
            address = data[:16]  # struct in6_pktinfo: address, interface (0: let the route decide)
            return socket.inet_ntop(socket.AF_INET6, address), (level, kind, address + bytes(4))
        if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
            address = data[8:12]  # struct in_pktinfo: interface, source to use, destination
            info = struct.pack("i4s4s", 0, address, bytes(4))
            return socket.inet_ntop(socket.AF_INET, address), (level, kind, info)
    return None
