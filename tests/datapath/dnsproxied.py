"""The DNS proxy's process, with a name server behind it and an agent beside it."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rrset
from steered import ADDRESSES, PORT, Rig

from axoneme.model.l7 import L7, L7Kind, NameMatch
from axoneme.proxy.following import read_report, write_plan
from axoneme.proxy.names import LEARN, SOCKET, Learn, Names
from axoneme.proxy.plan import Listener, Plan, directory
from axoneme.rpc import Server

RULES = (NameMatch("**.test", pattern=True),)
NAMES = Names((NameMatch("**.told.test", pattern=True),))
MANY = [f"192.0.{number >> 8}.{number & 255}" for number in range(500)]


def answer(wire: bytes, tcp: bool) -> bytes | None:
    """What the name server says."""
    query = dns.message.from_wire(wire)
    made = dns.message.make_response(query)
    question = query.question[0]
    name = question.name.to_text().lower()
    if name.startswith("silent."):
        return None
    if name.startswith("many.") and question.rdtype == dns.rdatatype.A:
        made.answer = [dns.rrset.from_text(question.name, 60, "IN", "A", *MANY)]
    elif name.startswith("alias.") and question.rdtype == dns.rdatatype.A:
        made.answer = [
            dns.rrset.from_text(question.name, 60, "IN", "CNAME", "end.test."),
            dns.rrset.from_text("end.test.", 30, "IN", "A", "192.0.2.3"),
        ]
    elif name.startswith("none."):
        made.set_rcode(dns.rcode.NXDOMAIN)
    elif question.rdtype == dns.rdatatype.A:
        made.answer = [dns.rrset.from_text(question.name, 60, "IN", "A", "192.0.2.1")]
    elif question.rdtype == dns.rdatatype.AAAA:
        made.answer = [dns.rrset.from_text(question.name, 60, "IN", "AAAA", "2001:db8::1")]
    return made.to_wire(max_size=65535 if tcp else max(512, query.payload), prefer_truncation=True)


class NameServer:
    """In the server's network, in threads; `askers` has whom it has heard of."""

    def __init__(self, rig: Rig) -> None:
        self.askers: list[tuple[str, int]] = []
        self.queries = 0
        self._ended = False
        self._sockets: list[socket.socket] = []
        for family, (_, address, *_) in ADDRESSES.items():
            for kind, serve in ((socket.SOCK_DGRAM, self._datagrams), (socket.SOCK_STREAM, self._streams)):
                made = rig.socket(rig.server, family, kind)
                made.bind((address, 53))
                if kind == socket.SOCK_STREAM:
                    made.listen()
                self._sockets.append(made)
                threading.Thread(target=serve, args=(made,), daemon=True).start()

    def _datagrams(self, made: socket.socket) -> None:
        while (found := self._next(lambda: made.recvfrom(4096))) is not None:
            wire, asker = found
            self.askers.append(asker[:2])
            self.queries += 1
            if (said := answer(wire, False)) is not None:
                made.sendto(said, asker)

    def _streams(self, made: socket.socket) -> None:
        while (found := self._next(made.accept)) is not None:
            connection, asker = found
            self.askers.append(asker[:2])
            threading.Thread(target=self._stream, args=(connection,), daemon=True).start()

    def _stream(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rwb") as file:
            while size := int.from_bytes(file.read(2)):
                self.queries += 1
                said = answer(file.read(size), True)
                if said is not None:
                    file.write(len(said).to_bytes(2) + said)
                    file.flush()

    def _next(self, take: Callable[[], tuple]) -> tuple | None:  # type: ignore[type-arg]
        while not self._ended:
            try:
                return take()
            except TimeoutError:
                continue
            except OSError:
                return None
        return None

    def close(self) -> None:
        self._ended = True
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


class Agent:
    """Takes what is learnt, in a thread with a loop of its own."""

    def __init__(self, folder: Path, uid: int) -> None:
        self.told: dict[str, dict[str, int]] = {}
        self._path, self._uid = folder / SOCKET, uid
        self._loop = asyncio.new_event_loop()
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._up.wait(20)

    def _run(self) -> None:
        self._task = self._loop.create_task(self._serve())
        with suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._task)
        self._loop.close()

    async def _serve(self) -> None:
        server = Server(self._path)
        server.method(LEARN, Learn, self._learn)
        serving = asyncio.ensure_future(server.serve())
        while not self._path.exists():
            await asyncio.sleep(0.01)
        os.chown(self._path, self._uid, -1)
        self._up.set()
        await serving

    async def _learn(self, params: Learn) -> None:
        for each in params.answers:
            self.told.setdefault(each.name, {}).update(each.addresses)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(20)


class Proxy:
    def __init__(self, rig: Rig, outer: Path) -> None:
        self.rig = rig
        place = outer / "run"
        place.mkdir()
        self.config = place / "agent.yaml"
        self.config.write_text(json.dumps({"node": "node1", "directory": str(place)}))
        self.folder = directory(place / "state", "dns")
        self.folder.mkdir(parents=True)
        self.uid = pwd.getpwnam("nobody").pw_uid
        self.events = place / "l7.sock"
        self.revision = 0
        self.plan()
        self.start()

    def start(self) -> None:
        command = ["nsenter", f"--net={self.rig.proxy}", sys.executable, "-m", "axoneme.proxy", "dns"]
        self.process = subprocess.Popen([*command, str(self.config)])
        self.until(lambda: self._ready() == self.revision)

    def plan(self, rules: tuple[NameMatch, ...] = RULES) -> None:
        self.revision += 1
        listener = Listener(PORT, "egress", L7(L7Kind.DNS, dns=rules))
        write_plan(
            self.folder,
            Plan("node1", self.revision, (4, 6), str(self.events), (listener,), names=NAMES),
        )

    def replan(self, *rules: NameMatch) -> None:
        self.plan(rules or RULES)
        self.until(lambda: self._ready() == self.revision)

    def _ready(self) -> int:
        report = read_report(self.folder)
        if report is None or report.ready != (PORT,) or report.pid != self.process.pid:
            return 0
        return report.revision

    def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 20
        while not condition():
            assert self.process.poll() is None, "the proxy has ended"
            assert time.monotonic() < end
            time.sleep(0.01)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def ask(
        self, name: str, kind: str = "A", family: socket.AddressFamily = socket.AF_INET, tcp: bool = False
    ) -> dns.message.Message:
        """As a resolver does, with EDNS."""
        query = dns.message.make_query(name, kind, use_edns=0, payload=1232)
        server = ADDRESSES[family][1]
        with self.rig.socket(
            self.rig.client, family, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
        ) as made:
            if tcp:
                made.connect((server, 53))
                return dns.query.tcp(query, server, timeout=10, sock=made)
            made.connect((server, 53))
            made.setblocking(False)
            for _ in range(10):  # datagrams may be lost
                with suppress(dns.exception.Timeout):
                    return dns.query.udp(query, server, timeout=1, sock=made)
        raise TimeoutError(name)


@contextmanager
def agent(proxy: Proxy) -> Iterator[Agent]:
    made = Agent(proxy.folder, proxy.uid)
    try:
        yield made
    finally:
        made.close()
