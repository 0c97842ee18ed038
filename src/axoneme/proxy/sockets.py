"""Sockets of a proxy that nobody sees: to a client it is the server, and to the server it is the client.

A listener takes connections and datagrams for whatever address: the datapath hands them to it, and the local
address of a connection is whom the client has called (IP_TRANSPARENT). Connections onwards begin at the
client's own address. What such sockets send carries a mark (SO_MARK) by which the datapath knows it.

All of this needs CAP_NET_RAW, before Linux 5.17 also CAP_NET_ADMIN, and nothing else of root's.
"""

from __future__ import annotations

import asyncio
import enum
import errno
import random
import socket
import struct
from typing import Final, NamedTuple

_IP_TRANSPARENT: Final = 19
_IP_RECVORIGDSTADDR: Final = 20
_IPV6_TRANSPARENT: Final = 75
_IPV6_RECVORIGDSTADDR: Final = 74
_IP_PKTINFO: Final = 8
_IPV6_PKTINFO: Final = 50
_IPV6_CHECKSUM: Final = 7
_UDP_CHECKSUM: Final = 6  # its place in the header

#: Where listeners are: the datapath looks for them here, whomever a client has called.
LOOPBACK: Final = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}

#: Ports from which proxies call servers. Clients' own are elsewhere, unless their ip_local_port_range was
#: widened: so where one proxy's call is taken by another proxy of the same node, the second does not find
#: the socket by which the first has taken its client's. (IP_LOCAL_PORT_RANGE cannot say this: it only narrows
#: what the network namespace has.)
OWN_PORTS: Final = range(61000, 65536)

#: How many of them are tried for one connection before it is given up. Each serves for every server anew.
_TRIES: Final = 16

#: When nothing was heard of one end for so long, it is asked whether it is still there: an idle connection
#: would outlive a pod whose node is gone. In seconds; how often it is asked.
_SILENCE, _AGAIN, _ASKED = 60, 15, 4

#: Ports keep answers from being forged, so nobody must be able to tell the next from the last.
_random: Final = random.SystemRandom()

#: Connections that wait to be taken; the kernel cuts it to net.core.somaxconn.
_BACKLOG: Final = 4096


class Mark(enum.IntEnum):
    """``enum mark`` of bpf/tables.h, whose objects a proxy does not read; a test compares them."""

    PROXY_ANSWERS = 0x0900
    INGRESS_PROXY = 0x0A00
    EGRESS_PROXY = 0x0B00


#: By direction of the policy that asks for the proxy: the mark of what it sends to servers.
ONWARDS: Final = {"ingress": Mark.INGRESS_PROXY, "egress": Mark.EGRESS_PROXY}


class End(NamedTuple):
    """One end of a connection."""

    address: str
    port: int

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in self.address else socket.AF_INET


def listener(family: socket.AddressFamily, port: int, kind: socket.SocketKind) -> socket.socket:
    """A socket at ``port`` of the loopback address that takes what is for others; not blocking.

    Of datagrams, `received` says for whom each one was. Raises OSError.
    """
    made = _transparent(family, kind, Mark.PROXY_ANSWERS)
    try:
        made.bind((LOOPBACK[family], port))
        if kind is socket.SOCK_STREAM:
            made.listen(_BACKLOG)
        elif family == socket.AF_INET:
            made.setsockopt(socket.IPPROTO_IP, _IP_RECVORIGDSTADDR, 1)
        else:
            made.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVORIGDSTADDR, 1)
    except BaseException:
        made.close()
        raise
    return made


def ends(connection: socket.socket) -> tuple[End, End] | None:
    """Of a connection that a listener took: its client, and whom that has called.

    None when the listener itself was called, by a process of the node: there is nobody behind it. Raises
    OSError when the connection is over already.
    """
    client, server = _end(connection.getpeername()), _end(connection.getsockname())
    return None if _is_own(server) else (client, server)


def received(listening: socket.socket, size: int) -> tuple[bytes, End, End] | None:
    """A datagram of at most ``size`` bytes, from whom, for whom. None when it was for the listener itself.

    Raises BlockingIOError when there is none.
    """
    data, control, _, sender = listening.recvmsg(size, socket.CMSG_SPACE(28))
    for level, kind, value in control:
        if level == socket.IPPROTO_IP and kind == _IP_RECVORIGDSTADDR:
            (port,) = struct.unpack_from("!H", value, 2)
            server = End(socket.inet_ntop(socket.AF_INET, value[4:8]), port)
        elif level == socket.IPPROTO_IPV6 and kind == _IPV6_RECVORIGDSTADDR:
            (port,) = struct.unpack_from("!H", value, 2)
            server = End(socket.inet_ntop(socket.AF_INET6, value[8:24]), port)
        else:
            continue
        return None if _is_own(server) else (data, _end(sender), server)
    return None


def onwards(client: End, direction: str, kind: socket.SocketKind, port: int) -> socket.socket:
    """A socket in the client's name at one of `OWN_PORTS`, not connected yet, and not blocking.

    Raises OSError; EADDRINUSE is to be met with another port. Connections to several servers share a port.
    """
    made = _transparent(client.family, kind, ONWARDS[direction])
    try:
        made.bind((client.address, port))
    except BaseException:
        made.close()
        raise
    return made


async def connect(client: End, server: End, direction: str, timeout: float) -> socket.socket:
    """A TCP connection to a server in the client's name. Raises OSError; TimeoutError after ``timeout`` s."""
    loop = asyncio.get_running_loop()
    for port in own_ports(client):
        made = onwards(client, direction, socket.SOCK_STREAM, port)
        try:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout(timeout):
                await loop.sock_connect(made, server)
        except OSError as error:
            made.close()
            # The four numbers are those of another connection, or of one that is just over.
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EADDRINUSE):
                raise
        except BaseException:
            made.close()
            raise
        else:
            return made
    raise OSError(errno.EADDRNOTAVAIL, f"no port free for {client.address} to call {server.address} from")


def own_ports(client: End) -> list[int]:
    """Some ports to call from for a client, at random, without the one that it has itself."""
    return [port for port in _random.sample(OWN_PORTS, _TRIES) if port != client.port]


class Answers:
    """Sends datagrams to clients as the servers that they have asked.

    One raw socket a family does it for all: a UDP socket for each server could not be bound where that server
    is on this very node, and would take what is for it.
    """

    def __init__(self, family: socket.AddressFamily) -> None:
        """Raises OSError."""
        self._family = family
        self._socket = _transparent(family, socket.SOCK_RAW, Mark.PROXY_ANSWERS, socket.IPPROTO_UDP)
        try:
            # Where no server is: raw sockets get copies of what is for their address.
            self._socket.bind((LOOPBACK[family], 0))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
            if family == socket.AF_INET6:
                self._socket.setsockopt(socket.IPPROTO_IPV6, _IPV6_CHECKSUM, _UDP_CHECKSUM)
        except BaseException:
            self._socket.close()
            raise

    def send(self, data: bytes, client: End, server: End) -> None:
        """Raises OSError; BlockingIOError when the device's queue is full."""
        header = struct.pack("!HHHH", server.port, client.port, 8 + len(data), 0)
        source = socket.inet_pton(self._family, server.address)
        if self._family == socket.AF_INET6:
            control = (socket.IPPROTO_IPV6, _IPV6_PKTINFO, source + bytes(4))
        else:
            pseudo = source + socket.inet_aton(client.address) + struct.pack("!HH", 17, 8 + len(data))
            header = header[:6] + _checksum(pseudo + header + data)
            control = (socket.IPPROTO_IP, _IP_PKTINFO, struct.pack("=I", 0) + source + bytes(4))
        self._socket.sendmsg((header, data), (control,), 0, (client.address, 0))

    def close(self) -> None:
        self._socket.close()


def _checksum(data: bytes) -> bytes:
    """Of the internet (RFC 1071), as UDP has it: zero would mean that there is none."""
    padded = data + bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF or 0xFFFF)


def _transparent(
    family: socket.AddressFamily, kind: socket.SocketKind, mark: Mark, protocol: int = 0
) -> socket.socket:
    made = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
    try:
        if kind is socket.SOCK_STREAM:
            # After a restart, old connections do not keep the port; connections to several servers share one.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # those that are taken inherit it
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _SILENCE)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _AGAIN)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _ASKED)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        if family == socket.AF_INET6:
            if kind is not socket.SOCK_RAW:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
        else:
            made.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
    except BaseException:
        made.close()
        raise
    return made


def _end(name: tuple[str, int] | tuple[str, int, int, int]) -> End:
    return End(name[0], name[1])


def _is_own(server: End) -> bool:
    """Whether a listener's own address was called: loopback addresses are nobody else's."""
    return server.address.startswith("127.") or server.address == "::1"
