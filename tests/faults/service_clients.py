"""Clients of services that notice what happens to them: new connections, long ones and datagrams, each answer
with the name of the pod that gave it.

One process for each place, because what a socket is translated by is the control group of its process. It
gets its streams as JSON on standard input, runs until that is closed, and says then what came of them.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import random
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import dns.asyncresolver
import msgspec

#: Seconds after which a client gives up: well beyond two retransmissions of a SYN.
PATIENCE: Final = 8.0
#: Seconds after which a datagram without an answer is lost.
DATAGRAM: Final = 3.0


class Stream(msgspec.Struct, frozen=True):
    """``kind``: ``new`` (connect, ask, close), ``long`` (asks again and again), the same over UDP: ``ask``,
    ``connected``, and ``loose`` (one socket, not connected). ``via`` is the node whose tables lead there.
    ``requests`` on one connection, then comes another; 0: for ever. ``server``: where ``name`` is asked for
    before each call."""

    kind: str
    address: str
    port: int
    via: str
    interval: float = 0.1
    requests: int = 0
    name: str = ""
    server: str = ""

    def __str__(self) -> str:
        return f"{self.kind} to {self.name or self.address} port {self.port} by {self.via}"


class Failure(msgspec.Struct, frozen=True):
    """``pod``: who answered last on that connection; empty for a new one. Seconds of CLOCK_MONOTONIC."""

    stream: Stream
    began: float
    failed: float
    pod: str
    error: str


class Outcome(msgspec.Struct, frozen=True):
    """Of all streams of a place: answers by kind and by pod, requests that failed, and the longest time in
    seconds for which the clients themselves did nothing."""

    answers: dict[str, int]
    pods: dict[str, int]
    failures: list[Failure]
    pause: float


@dataclass(frozen=True, slots=True)
class Place:
    """``group`` None: nobody's, so that packets are translated and not sockets."""

    name: str
    namespace: Path
    group: Path | None
    streams: Sequence[Stream]


class Clients:
    """The processes at work."""

    def __init__(self, places: Sequence[Place]) -> None:
        self._processes = {
            place.name: subprocess.Popen(
                [
                    "nsenter",
                    f"--net={place.namespace}",
                    "--",
                    sys.executable,
                    __file__,
                    str(place.group or ""),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            for place in places
        }
        for place, process in zip(places, self._processes.values(), strict=True):
            assert process.stdin is not None
            process.stdin.write(msgspec.json.encode(place.streams) + b"\n")
            process.stdin.flush()

    def wait_ready(self) -> None:
        """Until each stream has had an answer."""
        for name, process in self._processes.items():
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line == b"ready\n", f"the clients in {name} did not start: {line!r}"

    def finish(self) -> dict[str, Outcome]:
        """Sends no more, and waits for what is on its way."""
        for process in self._processes.values():
            assert process.stdin is not None
            process.stdin.close()
        found = {}
        for name, process in self._processes.items():
            assert process.stdout is not None
            found[name] = msgspec.json.decode(process.stdout.read(), type=Outcome)
            process.wait()
        return found

    def kill(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()


# ---- the program -----------------------------------------------------------------------------------


class _Lost(Exception):
    """What went wrong with one request."""


class _Program:
    def __init__(self) -> None:
        self.answers: Counter[str] = Counter()
        self.pods: Counter[str] = Counter()
        self.failures: list[Failure] = []
        self.ending = asyncio.Event()
        self.pause = 0.0
        self._first: set[Stream] = set()
        # A port that comes again would be the old connection to its old backend. Lower ones are the node's.
        self.ports = itertools.count(random.randrange(33_000, 42_000))

    async def run(self, streams: Sequence[Stream]) -> None:
        loop = asyncio.get_running_loop()
        ended = loop.run_in_executor(None, sys.stdin.buffer.read)
        ended.add_done_callback(lambda _: self.ending.set())
        tasks = [asyncio.create_task(self._stream(each)) for each in streams]
        beat = asyncio.create_task(self._beat())
        while len(self._first) < len(streams) and not self.ending.is_set():
            await asyncio.sleep(0.02)
            for task in tasks:
                if task.done():
                    task.result()
        # What went wrong before everything was there is none of the fault's.
        self.failures.clear()
        print("ready", flush=True)
        await asyncio.gather(*tasks)
        beat.cancel()
        outcome = Outcome(dict(self.answers), dict(self.pods), self.failures, self.pause)
        sys.stdout.buffer.write(msgspec.json.encode(outcome))

    async def _beat(self) -> None:
        """The longest time for which this process itself did nothing."""
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.01)
            self.pause = max(self.pause, time.monotonic() - began)

    async def _stream(self, stream: Stream) -> None:
        work = _KINDS[stream.kind]
        await asyncio.sleep(random.uniform(0, stream.interval))
        while not self.ending.is_set():
            began, call = time.monotonic(), _Call(self, stream)
            try:
                await work(call)
            except (OSError, _Lost, TimeoutError, dns.exception.DNSException) as error:
                self.failures.append(
                    Failure(stream, call.began, time.monotonic(), call.pod, f"{type(error).__name__} {error}")
                )
            finally:
                call.close()
            await asyncio.sleep(max(0.0, began + stream.interval - time.monotonic()))

    def answered(self, stream: Stream, pod: str) -> None:
        self.answers[stream.kind] += 1
        self.pods[pod] += 1
        self._first.add(stream)


class _Call:
    """One socket, and what was said on it."""

    def __init__(self, program: _Program, stream: Stream) -> None:
        self.stream, self.program = stream, program
        self.began, self.pod, self._asked = time.monotonic(), "", 0
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None

    def going(self) -> bool:
        """Whether it shall ask once more."""
        self._asked += 1
        enough = self.stream.requests and self._asked > self.stream.requests
        return not enough and not self.program.ending.is_set()

    async def open(self, kind: socket.SocketKind, connect: bool = True) -> tuple[str, int]:
        address = self.stream.address
        if self.stream.name:
            resolver = dns.asyncresolver.Resolver(configure=False)
            resolver.nameservers, resolver.lifetime, resolver.timeout = [self.stream.server], PATIENCE, 2.0
            address = next(iter(await resolver.resolve(self.stream.name, "A"))).to_text()
        made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
        self._socket = made
        made.setblocking(False)
        if kind == socket.SOCK_DGRAM:
            self._bind(made)
        if connect:
            async with asyncio.timeout(PATIENCE):
                await self._loop.sock_connect(made, (address, self.stream.port))
        return address, self.stream.port

    def _bind(self, made: socket.socket) -> None:
        """To a port that it has not had before, and that nobody else has."""
        while True:
            try:
                made.bind(("", next(self.program.ports)))
                return
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise

    async def say(self) -> None:
        """A line over TCP."""
        assert self._socket is not None
        self.began = time.monotonic()
        async with asyncio.timeout(PATIENCE):
            await self._loop.sock_sendall(self._socket, b"who?\n")
            heard = b""
            while not heard.endswith(b"\n"):
                part = await self._loop.sock_recv(self._socket, 4096)
                if not part:
                    raise _Lost("closed")
                heard += part
        self._heard(heard.decode().strip())

    async def datagram(self, number: int, to: tuple[str, int] | None) -> None:
        assert self._socket is not None
        self.began = time.monotonic()
        if to:
            await self._loop.sock_sendto(self._socket, str(number).encode(), to)
        else:
            await self._loop.sock_sendall(self._socket, str(number).encode())
        async with asyncio.timeout(DATAGRAM):
            while True:
                heard, sender = await self._loop.sock_recvfrom(self._socket, 4096)
                pod, said = heard.decode().split()
                if to and sender[:2] != to:
                    raise _Lost(f"an answer of {pod} from {sender}")
                if int(said) == number:
                    self._heard(pod)
                    return

    def _heard(self, pod: str) -> None:
        if self.stream.kind == "long" and self.pod not in ("", pod):
            raise _Lost(f"the connection of {self.pod} was answered by {pod}")
        self.pod = pod
        self.program.answered(self.stream, pod)

    async def rest(self) -> None:
        await asyncio.sleep(max(0.0, self.began + self.stream.interval - time.monotonic()))

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()


async def _new(call: _Call) -> None:
    await call.open(socket.SOCK_STREAM)
    await call.say()


async def _long(call: _Call) -> None:
    await call.open(socket.SOCK_STREAM)
    while call.going():
        await call.say()
        await call.rest()


async def _ask(call: _Call) -> None:
    await call.open(socket.SOCK_DGRAM)
    await call.datagram(1, None)


async def _connected(call: _Call) -> None:
    await call.open(socket.SOCK_DGRAM)
    await _datagrams(call, None)


async def _loose(call: _Call) -> None:
    await _datagrams(call, await call.open(socket.SOCK_DGRAM, connect=False))


async def _datagrams(call: _Call, to: tuple[str, int] | None) -> None:
    number = 0
    while call.going():
        number += 1
        await call.datagram(number, to)
        await call.rest()


_KINDS: Final[dict[str, Callable[[_Call], Awaitable[None]]]] = {
    "new": _new,
    "long": _long,
    "ask": _ask,
    "connected": _connected,
    "loose": _loose,
}

if __name__ == "__main__":
    if sys.argv[1]:
        (Path(sys.argv[1]) / "cgroup.procs").write_text(str(os.getpid()))
    asyncio.run(_Program().run(msgspec.json.decode(sys.stdin.buffer.readline(), type=list[Stream])))
