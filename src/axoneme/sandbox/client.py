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

from axoneme.net import netns
from axoneme.sandbox import exchange
from axoneme.sandbox.echo.answers import Answer

_IPPROTO_SCTP: Final = 132
_LARGEST: Final = 65536


class Protocol(enum.Enum):
    TCP = "tcp"
    UDP = "udp"
    SCTP = "sctp"
    HTTP = "http"
    HTTP2 = "http2"
    ICMP = "icmp"


class Verdict(enum.Enum):
    """What became of a probe. UNREACHABLE: this side had no way there, or a router said so."""

    CONNECTED = "connected"
    REFUSED = "refused"
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Probe:
    """One connection to try, from the namespace that the file `namespace` holds.

    `payload` is what is sent, the body over HTTP. Without one TCP and SCTP only connect; UDP and ICMP send
    something all the same. `path` is for HTTP; `port` means nothing to ICMP. `timeout`: seconds for all.
    `source` is the address to send from, of the namespace; the kernel chooses when it is empty.
    """

    namespace: Path
    address: str
    port: int = 0
    protocol: Protocol = Protocol.TCP
    timeout: float = 1.0
    payload: bytes = b""
    path: str = "/"
    source: str = ""


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """`latency`: seconds until connected; until the first answer where the protocol has no handshake.
    `status` is that of HTTP, 0 for others. `detail` says more about a failure. `local_address` and
    `local_port` (0 for ICMP) are this end's, as far as it came to have them."""

    verdict: Verdict
    latency: float
    answer: Answer | None = None
    status: int = 0
    detail: str = ""
    local_address: str = ""
    local_port: int = 0


async def probe(wish: Probe) -> ProbeResult:
    """Tries one connection; raises only FileNotFoundError, when there is no such namespace."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    attempt: _Attempt | None = None
    try:
        opened = _open(wish)
    except FileNotFoundError:
        raise
    except OSError as failure:
        return ProbeResult(Verdict.UNREACHABLE, 0.0, detail=str(failure))
    local = ("", 0)
    try:
        if wish.source:
            opened.bind((wish.source, 0))
        async with asyncio.timeout(wish.timeout):
            failed = opened.connect_ex(_target(wish))
            local = opened.getsockname()[:2]  # now: a socket that was refused has forgotten it
            if failed == errno.EINPROGRESS:
                await loop.sock_connect(opened, _target(wish))
            elif failed:
                raise OSError(failed, os.strerror(failed))
            attempt = _Attempt(wish, opened, loop)
            await attempt.run()
    except (OSError, exchange.BadResponse) as failure:  # TimeoutError is an OSError
        if attempt is None or attempt.connected is None:
            return ProbeResult(_verdict(failure), loop.time() - started, None, 0, str(failure), *local)
        attempt.detail = str(failure) or type(failure).__name__
    finally:
        opened.close()
    # What happens after the handshake does not unmake the connection.
    connected = attempt.connected or loop.time()
    return ProbeResult(
        Verdict.CONNECTED, connected - started, attempt.answer, attempt.status, attempt.detail, *local
    )


async def probe_all(wishes: Iterable[Probe], at_once: int = 256) -> list[ProbeResult]:
    """All results in the order of the wishes, at most `at_once` of them under way."""
    turn = asyncio.Semaphore(at_once)

    async def one(wish: Probe) -> ProbeResult:
        async with turn:
            return await probe(wish)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(wish)) for wish in wishes]
    return [task.result() for task in tasks]


class _Attempt:
    """A probe whose socket is connected; for datagrams that says nothing yet."""

    def __init__(self, wish: Probe, opened: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self._wish = wish
        self._socket = opened
        self._loop = loop
        self.connected: float | None = None
        self.answer: Answer | None = None
        self.status = 0
        self.detail = ""

    async def run(self) -> None:
        match self._wish.protocol:
            case Protocol.UDP:
                await self._datagram()
            case Protocol.ICMP:
                await self._ping()
            case Protocol.TCP | Protocol.SCTP:
                self.connected = self._loop.time()
                await self._bytes()
            case Protocol.HTTP | Protocol.HTTP2:
                self.connected = self._loop.time()
                await self._http()

    async def _bytes(self) -> None:
        if not self._wish.payload:
            return
        await self._loop.sock_sendall(self._socket, self._wish.payload)
        heard = b""
        while b"\n" not in heard and len(heard) < _LARGEST:
            part = await self._loop.sock_recv(self._socket, _LARGEST)
            if not part:
                break
            heard += part
        self.answer = _parse(heard.partition(b"\n")[0])

    async def _http(self) -> None:
        wish = self._wish
        host = f"[{wish.address}]:{wish.port}" if ":" in wish.address else f"{wish.address}:{wish.port}"
        method = "POST" if wish.payload else "GET"
        request = exchange.Request(host, wish.path, method, body=wish.payload)
        ask = exchange.http2 if wish.protocol is Protocol.HTTP2 else exchange.http1
        response = await ask(self._socket, request)
        self.status = response.status
        self.answer = _parse(response.body)

    async def _datagram(self) -> None:
        await self._loop.sock_sendall(self._socket, self._wish.payload or b"who are you?")
        heard = await self._loop.sock_recv(self._socket, _LARGEST)
        self.connected = self._loop.time()
        self.answer = _parse(heard)

    async def _ping(self) -> None:
        six = self._socket.family == socket.AF_INET6
        sent = os.urandom(4)  # identifier and sequence: raw sockets hear every echo of the namespace
        # ICMPv6's checksum covers addresses and is the kernel's work on such sockets (RFC 3542, 3.1).
        packet = struct.pack("!BBH4s", 128 if six else 8, 0, 0, sent) + self._wish.payload
        if not six:
            packet = packet[:2] + struct.pack("!H", _checksum(packet)) + packet[4:]
        await self._loop.sock_sendall(self._socket, packet)
        while True:
            heard = await self._loop.sock_recv(self._socket, _LARGEST)
            if not six:
                heard = heard[(heard[0] & 15) * 4 :]  # IPv4's raw sockets show the IP header
            if heard[0] == (129 if six else 0) and heard[4:8] == sent:
                self.connected = self._loop.time()
                return


def _open(wish: Probe) -> socket.socket:
    family = socket.AF_INET6 if ":" in wish.address else socket.AF_INET
    match wish.protocol:
        case Protocol.UDP:
            return netns.open_socket(wish.namespace, family, socket.SOCK_DGRAM)
        case Protocol.SCTP:
            return netns.open_socket(wish.namespace, family, socket.SOCK_STREAM, _IPPROTO_SCTP)
        case Protocol.ICMP:
            number = socket.IPPROTO_ICMPV6 if family == socket.AF_INET6 else socket.IPPROTO_ICMP
            return netns.open_socket(wish.namespace, family, socket.SOCK_RAW, number)
        case Protocol.TCP | Protocol.HTTP | Protocol.HTTP2:
            return netns.open_socket(wish.namespace, family, socket.SOCK_STREAM)


def _target(wish: Probe) -> tuple[str, int]:
    return str(ipaddress.ip_address(wish.address)), 0 if wish.protocol is Protocol.ICMP else wish.port


def _verdict(failure: Exception) -> Verdict:
    if isinstance(failure, TimeoutError):
        return Verdict.TIMEOUT
    if isinstance(failure, ConnectionError):
        return Verdict.REFUSED
    assert isinstance(failure, OSError)
    return Verdict.TIMEOUT if failure.errno == errno.ETIMEDOUT else Verdict.UNREACHABLE


def _parse(heard: bytes) -> Answer | None:
    """The echo server's answer; None for what another server says."""
    try:
        return msgspec.json.decode(heard, type=Answer)
    except msgspec.DecodeError:
        return None


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
