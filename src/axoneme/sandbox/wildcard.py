"""Sockets on every address of a network namespace, that answer from the address which was asked.

A wildcard socket would answer a datagram from whichever address the route prefers; a client of one of many
addresses would not know the sender. So the socket asks for the address of each datagram (IP_PKTINFO,
IPV6_RECVPKTINFO, ip(7) and ipv6(7)), and the answer is sent from there.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Collection
from pathlib import Path
from typing import Final, NamedTuple

from axoneme.net import kernel, netns

_IP_PKTINFO: Final = 8  # linux/in.h; Python 3.11 does not name it
_IPPROTO_SCTP: Final = 132

#: A control message, as `socket.sendmsg` takes it.
Control = tuple[int, int, bytes]


class Port(NamedTuple):
    """A port to serve; ``protocol`` is TCP, UDP or SCTP, as manifests write it."""

    protocol: str
    number: int


def bind(namespace: Path, ports: Collection[Port]) -> tuple[dict[Port, socket.socket], dict[Port, str]]:
    """Sockets on all addresses of the namespace, and why some ports have none."""
    bound: dict[Port, socket.socket] = {}
    failed: dict[Port, str] = {}
    if ports:
        with netns.opened(namespace) as descriptor, kernel.inside(descriptor):
            for port in sorted(ports):
                try:
                    bound[port] = _bound(port)
                except OSError as failure:
                    failed[port] = failure.strerror or str(failure)
    return bound, failed


def destination(ancillary: list[Control]) -> tuple[str, Control] | None:
    """The address that a datagram came to, and the control message that sends from it."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
            address = data[:16]  # struct in6_pktinfo: address, interface (0: let the route decide)
            return socket.inet_ntop(socket.AF_INET6, address), (level, kind, address + bytes(4))
        if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
            address = data[8:12]  # struct in_pktinfo: interface, source to use, destination
            info = struct.pack("i4s4s", 0, address, bytes(4))
            return socket.inet_ntop(socket.AF_INET, address), (level, kind, info)
    return None


def _bound(port: Port) -> socket.socket:
    """A socket on every address of both families, or of IPv4 where the machine has no IPv6."""
    kind = socket.SOCK_DGRAM if port.protocol == "UDP" else socket.SOCK_STREAM
    protocol = _IPPROTO_SCTP if port.protocol == "SCTP" else 0
    try:
        made = socket.socket(socket.AF_INET6, kind | socket.SOCK_NONBLOCK, protocol)
    except OSError as failure:
        if failure.errno != errno.EAFNOSUPPORT:
            raise
        made = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK, protocol)
    six = made.family == socket.AF_INET6
    try:
        if kind == socket.SOCK_STREAM:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        elif six:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            made.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        if six:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.bind(("::" if six else "", port.number))
    except OSError:
        made.close()
        raise
    return made
