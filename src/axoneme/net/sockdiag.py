"""The sockets of a network namespace, and an end to some of them (NETLINK_SOCK_DIAG, sock_diag(7)).

The kernel looks through its sockets for those that are connected to some destinations. A socket that is
closed so (SOCK_DESTROY, Linux 4.5; it needs CAP_NET_ADMIN in the namespace) gives its program ECONNABORTED,
whatever that waits for.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from axoneme.net import netns

Address = IPv4Address | IPv6Address

_NETLINK_SOCK_DIAG: Final = 4
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_BY_FAMILY, _DESTROY = 20, 21
_REQUEST, _ACKNOWLEDGE, _DUMP = 0x1, 0x4, 0x300
#: linux/inet_diag.h, linux/sock_diag.h
_REQUEST_BYTECODE: Final = 1
_JUMP, _DESTINATION = 1, 8

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
#: ``struct inet_diag_req_v2`` without the socket's identity, which has 48 bytes.
_ASK = struct.Struct("=BBBBI")
_IDENTITY: Final = 48
#: In an answer (``struct inet_diag_msg``) it comes after 4 bytes, and ends with the cookie.
_COOKIE = struct.Struct("=40xII")
_OPERATION = struct.Struct("=BBH")
_HOST = struct.Struct("=BBxxi")
_ERROR = struct.Struct("=i")

_ESTABLISHED, _SYN_SENT, _CLOSE_WAIT = 1, 2, 8
#: Of connections that still carry something for their programs. (Datagram sockets are in the first.)
_OPEN: Final = 1 << _ESTABLISHED | 1 << _SYN_SENT | 1 << _CLOSE_WAIT
#: Destinations in one question: each is compared with each socket.
_AT_ONCE: Final = 64
#: Seconds for an answer, which the kernel gives at once.
_PATIENCE: Final = 10.0


@dataclass(frozen=True, slots=True)
class Connected:
    """A socket, by what names it until it is gone."""

    family: int
    protocol: int
    identity: bytes  # ``struct inet_diag_sockid``

    @property
    def cookie(self) -> int:
        """The number that the kernel has given it, and to no other."""
        low, high = _COOKIE.unpack(self.identity)
        return int(low | high << 32)


class SocketDiagnosis:
    """Of one network namespace; to be closed."""

    def __init__(self, namespace: Path) -> None:
        """OSError when `namespace` is no namespace's file (any more), or the kernel has no such diagnosis."""
        self._socket = netns.open_socket(namespace, socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG)
        self._socket.settimeout(_PATIENCE)

    def connected(self, protocol: int, destinations: Iterable[tuple[Address, int]]) -> Iterator[Connected]:
        """The sockets of a protocol (`socket.IPPROTO_UDP`, `IPPROTO_TCP`) that are connected to one of these.
        OSError as the kernel says."""
        wanted = list(destinations)
        for first in range(0, len(wanted), _AT_ONCE):
            some = wanted[first : first + _AT_ONCE]
            # An IPv4 destination is also one of sockets of both families; the kernel compares them so.
            for family in (socket.AF_INET, socket.AF_INET6):
                if family == socket.AF_INET6 or any(address.version == 4 for address, _ in some):
                    yield from self._dump(family, protocol, some)

    def _dump(self, family: int, protocol: int, some: Sequence[tuple[Address, int]]) -> Iterator[Connected]:
        condition = _any_of(some)
        request = _ASK.pack(family, protocol, 0, 0, _OPEN) + bytes(_IDENTITY)
        request += _ATTRIBUTE.pack(_ATTRIBUTE.size + len(condition), _REQUEST_BYTECODE) + condition
        for body in self._exchange(_BY_FAMILY, _DUMP, request):
            yield Connected(family, protocol, body[4 : 4 + _IDENTITY])

    def destroy(self, found: Connected) -> bool:
        """Closes the socket; False when it is gone already."""
        request = _ASK.pack(found.family, found.protocol, 0, 0, _OPEN) + found.identity
        try:
            for _ in self._exchange(_DESTROY, _ACKNOWLEDGE, request):
                pass
        except OSError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        return True

    def _exchange(self, kind: int, flags: int, request: bytes) -> Iterator[bytes]:
        """The bodies of the answers, to the last."""
        head = _HEADER.pack(_HEADER.size + len(request), kind, _REQUEST | flags, 0, 0)
        self._socket.send(head + request)
        while True:
            data = self._socket.recv(1 << 18)
            while len(data) >= _HEADER.size:
                length, answer, *_ = _HEADER.unpack_from(data)
                body, data = data[_HEADER.size : length], data[(length + 3) & ~3 :]
                if answer == _NLMSG_DONE:
                    return
                if answer == _NLMSG_ERROR:
                    number = -_ERROR.unpack_from(body)[0]
                    if number:
                        raise OSError(number, f"asking the kernel about sockets: {os.strerror(number)}")
                    return
                yield body

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _any_of(destinations: Sequence[tuple[Address, int]]) -> bytes:
    """The kernel's little program that accepts sockets with one of these destinations: a comparison, which
    goes on to a jump to the end when it holds, and else jumps over that to the next. The last one's way out
    is to jump beyond the end."""
    comparisons = [_comparison(address, port) for address, port in destinations]
    program = comparisons.pop()
    for each in reversed(comparisons):
        program = each + _OPERATION.pack(_JUMP, 4, 4 + len(program)) + program
    return program


def _comparison(address: Address, port: int) -> bytes:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    host = _HOST.pack(family, 8 * len(address.packed), port) + address.packed
    length = _OPERATION.size + len(host)
    return _OPERATION.pack(_DESTINATION, length, length + 4) + host
