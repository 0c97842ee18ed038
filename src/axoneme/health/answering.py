"""Who connects is told the node's name and clock, and that is all: one line of JSON.

Anybody who reaches the port may ask, so asking must not keep the agent busy: it answers at most so many
times a second, and the kernel holds a short queue of those who wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Callable
from typing import Final

import msgspec

from axoneme.health.ways import Answer

#: As the reference system's.
PORT: Final = 4240
_QUEUE: Final = 64
#: Seconds after each answer: at most 200 a second.
_PAUSE: Final = 0.005
#: Bytes of an answer.
_LONGEST: Final = 512
#: Where the smoothed round trip, in microseconds, stands in ``struct tcp_info`` (linux/tcp.h).
_RTT: Final = struct.Struct("=68xI")
# linux/in.h, in6.h
_IP_FREEBIND, _IPV6_FREEBIND = 15, 78

#: Makes a socket (family, kind) in some network namespace, not blocking.
Maker = Callable[[int, int], socket.socket]


class _Line(msgspec.Struct, frozen=True):
    node: str
    time: float


def here(family: int, kind: int) -> socket.socket:
    return socket.socket(family, kind | socket.SOCK_NONBLOCK)


def listen(address: str, port: int = PORT, make: Maker = here) -> socket.socket:
    """OSError when somebody else has the port."""
    six = ":" in address
    made = make(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # The address may be on its way to the interface.
        if six:
            made.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        else:
            made.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        made.bind((address, port))
        made.listen(_QUEUE)
    except OSError:
        made.close()
        raise
    return made


async def answer(listener: socket.socket, node: str) -> None:
    """Until cancelled; closes the socket."""
    loop = asyncio.get_running_loop()
    with listener:
        while True:
            with contextlib.suppress(OSError):  # whoever asked has gone
                connection, _ = await loop.sock_accept(listener)
                with connection:
                    connection.send(msgspec.json.encode(_Line(node, time.time())) + b"\n")
            await asyncio.sleep(_PAUSE)


async def ask(address: str, port: int = PORT, patience: float = 2.0) -> Answer:
    """How long the handshake's packets took, by the kernel's word, and what was said.

    OSError with the reason: ConnectionRefusedError where the network works and nobody listens,
    TimeoutError where nothing came back.
    """
    loop = asyncio.get_running_loop()
    step = "no answer"
    with here(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM) as asking:
        try:
            async with asyncio.timeout(patience):
                await loop.sock_connect(asking, (address, port))
                latency = _round_trip(asking)
                step = "connected, but nobody answered"
                said = await loop.sock_recv(asking, _LONGEST)
        except TimeoutError:
            raise TimeoutError(f"{step} within {patience:g} s") from None
    try:
        line = msgspec.json.decode(said, type=_Line)
    except msgspec.DecodeError:
        raise OSError(f"somebody else listens there: it said {said[:40]!r}") from None
    return Answer(latency, line.node, line.time - time.time())


def _round_trip(connected: socket.socket) -> float:
    (microseconds,) = _RTT.unpack(connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RTT.size))
    return float(microseconds) / 1e6
