"""Probes: real connections from inside a namespace, hundreds at once from one process.

A probe opens its socket in the namespace of a pod (or node, or the outside) and uses it from here, so an
all-pairs matrix over many pods needs no process per pod. Its verdict says what a program in the pod
would have met; `ProbeResult.answer` is what the echo server said, if it was one.
"""

from __future__ import annotations

import asyncio
import enum
import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from axoneme.sandbox import netns
from axoneme.sandbox.echo.answers import Answer
from axoneme.sandbox.http import Http2Request, exchange

_IPPROTO_SCTP: Final = 132
_LARGEST: Final = 65536
_UNREACHABLE: Final = {
    errno.ENETUNREACH,
    errno.EHOSTUNREACH,
    errno.EADDRNOTAVAIL,
    errno.EPERM,
    errno.EACCES,
}


class Protocol(enum.Enum):
    TCP = "tcp"
    UDP = "udp"
    SCTP = "sctp"
    HTTP = "http"
    HTTP2 = "http2"
    ICMP = "icmp"


class Verdict(enum.Enum):
    """What became of a probe. UNREACHABLE: this side already knew, or a router said so."""

    CONNECTED = "connected"
    REFUSED = "refused"
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Probe:
    """One connection to try. `payload` is what is sent: the body over HTTP; without one, TCP and SCTP only
    connect. `path` is for HTTP; `port` means nothing to ICMP. `timeout` in seconds, for the whole."""

    namespace: Path
    address: str
    port: int = 0
    protocol: Protocol = Protocol.TCP
    timeout: float = 1.0
    payload: bytes = b"who are you?\n"
    path: str = "/"


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """`latency`: seconds until connected, or until the first answer where there is no connection.
    `status` is HTTP's, 0 for others."""

    verdict: Verdict
    latency: float
    answer: Answer | None = None
    status: int = 0
    detail: str = ""


async def probe(wish: Probe) -> ProbeResult:
    """Tries one connection; raises nothing but FileNotFoundError for a namespace that is not there."""
    loop = asyncio.get_running_loop()
    family, target = _target(wish)
    kind, number = _KINDS[wish.protocol]
    if wish.protocol is Protocol.ICMP and family == socket.AF_INET6:
        number = socket.IPPROTO_ICMPV6
    started = loop.time()
    try:
        opened = netns.open_socket(wish.namespace, family, kind, number)
    except FileNotFoundError:
        raise
    except OSError as failure:
        return ProbeResult(Verdict.UNREACHABLE, 0.0, detail=str(failure))
    attempt = _Attempt(wish, opened, loop, started)
    try:
        async with asyncio.timeout(wish.timeout):
            await loop.sock_connect(opened, target)
            return await attempt.run()
    except TimeoutError:
        return attempt.result(None, Verdict.TIMEOUT)
    except ConnectionError as failure:
        return attempt.result(None, Verdict.REFUSED, detail=str(failure))
    except OSError as failure:
        if failure.errno == errno.ETIMEDOUT:
            return attempt.result(None, Verdict.TIMEOUT)
        known = failure.errno in _UNREACHABLE
        verdict = Verdict.UNREACHABLE if known else Verdict.REFUSED
        return attempt.result(None, verdict, detail=str(failure))
    finally:
        opened.close()


async def probe_all(wishes: Iterable[Probe], at_once: int = 256) -> list[ProbeResult]:
    """All results in the order of the wishes, at most `at_once` under way."""
    turn = asyncio.Semaphore(at_once)

    async def one(wish: Probe) -> ProbeResult:
        async with turn:
            return await probe(wish)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(wish)) for wish in wishes]
    return [task.result() for task in tasks]


_KINDS: Final = {
    Protocol.TCP: (socket.SOCK_STREAM, 0),
    Protocol.HTTP: (socket.SOCK_STREAM, 0),
    Protocol.HTTP2: (socket.SOCK_STREAM, 0),
    Protocol.UDP: (socket.SOCK_DGRAM, 0),
    Protocol.SCTP: (socket.SOCK_STREAM, _IPPROTO_SCTP),
    Protocol.ICMP: (socket.SOCK_RAW, socket.IPPROTO_ICMP),
}


class _Attempt:
    """A probe whose socket is connected."""

    def __init__(
        self,
        wish: Probe,
        opened: socket.socket,
        loop: asyncio.AbstractEventLoop,
        started: float,
    ) -> None:
        self._wish = wish
        self._socket = opened
        self._loop = loop
        self._started = started
        self._connected: float | None = None

    async def run(self) -> ProbeResult:
        match self._wish.protocol:
            case Protocol.UDP:
                return await self._datagram()
            case Protocol.ICMP:
                return await self._echo_request()
            case Protocol.HTTP | Protocol.HTTP2:
                return await self._request()
            case Protocol.TCP | Protocol.SCTP:
                return await self._bytes()

    def result(self, answer: Answer | None, verdict: Verdict, status: int = 0, detail: str = "") -> ProbeResult:
        if self._connected is not None:
            # What happens after the handshake does not unmake the connection.
            return ProbeResult(Verdict.CONNECTED, self._connected, answer, status, detail)
        return ProbeResult(verdict, self._loop.time() - self._started, answer, status, detail)

    def _mark_connected(self) -> None:
        self._connected = self._loop.time() - self._started

    async def _bytes(self) -> ProbeResult:
        self._mark_connected()
        if not self._wish.payload:
            return self.result(None, Verdict.CONNECTED)
        await self._loop.sock_sendall(self._socket, self._wish.payload)
        heard = b""
        while b"\n" not in heard and len(heard) < _LARGEST:
            part = await self._loop.sock_recv(self._socket, _LARGEST)
            if not part:
                break
            heard += part
        return self.result(_answer(heard.partition(b"\n")[0]), Verdict.CONNECTED)

    async def _request(self) -> ProbeResult:
        self._mark_connected()
        two = self._wish.protocol is Protocol.HTTP2
        host = self._wish.address if ":" not in self._wish.address else f"[{self._wish.address}]"
        response = await exchange(
            self._socket,
            Http2Request(
                host=f"{host}:{self._wish.port}",
                path=self._wish.path,
                body=b"" if self._wish.payload == _DEFAULT_PAYLOAD else self._wish.payload,
            ),
            version=2 if two else 1,
        )
        return self.result(_answer(response.body), Verdict.CONNECTED, response.status)

    async def _datagram(self) -> ProbeResult:
        await self._loop.sock_sendall(self._socket, self._wish.payload)
        heard = await self._loop.sock_recv(self._socket, _LARGEST)
        self._mark_connected()
        return self.result(_answer(heard), Verdict.CONNECTED)
