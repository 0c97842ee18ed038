"""The DNS proxy's process between resolvers and a name server that know nothing of it."""

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
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from steered import ADDRESSES, PORT, Rig, rig_in

from axoneme.model.l7 import L7, L7Kind, NameMatch
from axoneme.proxy.following import read_report, write_plan
from axoneme.proxy.names import JOURNAL, LEARN, SOCKET, Learn, Names, read_journal
from axoneme.proxy.plan import Listener, Plan, Refusal, directory
from axoneme.rpc import Server

FAMILIES = pytest.mark.parametrize("family", ADDRESSES, ids=["ipv4", "ipv6"])
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

    def plan(self, rules: tuple[NameMatch, ...] = RULES, refusal: Refusal = Refusal.REFUSED) -> None:
        self.revision += 1
        listener = Listener(PORT, "egress", L7(L7Kind.DNS, dns=rules))
        write_plan(
            self.folder,
            Plan("node1", self.revision, (4, 6), str(self.events), (listener,), names=NAMES, refusal=refusal),
        )

    def replan(self, *args: object) -> None:
        self.plan(*args)  # type: ignore[arg-type]
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


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with rig_in(tmp_path_factory.mktemp("rig")) as made:
        yield made


@pytest.fixture(scope="module")
def server(rig: Rig) -> Iterator[NameServer]:
    made = NameServer(rig)
    yield made
    made.close()


@pytest.fixture(scope="module")
def proxy(rig: Rig, server: NameServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    made = Proxy(rig, tmp_path_factory.mktemp("proxy"))
    yield made
    made.kill()


@contextmanager
def agent(proxy: Proxy) -> Iterator[Agent]:
    made = Agent(proxy.folder, proxy.uid)
    try:
        yield made
    finally:
        made.close()


@FAMILIES
@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_allowed_names_are_asked_in_the_clients_name_and_others_refused(
    proxy: Proxy, server: NameServer, family: socket.AddressFamily, tcp: bool
) -> None:
    server.askers.clear()
    said = proxy.ask("Www.Test", family=family, tcp=tcp)
    assert [each.to_text() for each in said.answer] == ["Www.Test. 60 IN A 192.0.2.1"]
    (asker,) = server.askers
    assert asker[0] == ADDRESSES[family][0] and asker[1] >= 61000
    refused = proxy.ask("www.example", family=family, tcp=tcp)
    assert refused.rcode() == dns.rcode.REFUSED and refused.edns == 0
    assert len(server.askers) == 1


def test_an_answer_that_is_too_large_is_asked_for_by_tcp(proxy: Proxy) -> None:
    assert proxy.ask("many.test").flags & dns.flags.TC
    assert sorted(each.address for each in proxy.ask("many.test", tcp=True).answer[0]) == sorted(MANY)


def test_what_is_of_interest_is_told_before_it_is_let_out(proxy: Proxy) -> None:
    with agent(proxy) as heard:
        proxy.ask("alias.told.test")
        assert heard.told == {"alias.told.test": {"192.0.2.3": 30}}
        proxy.ask("a.told.test", "AAAA", family=socket.AF_INET6)
        assert heard.told["a.told.test"] == {"2001:db8::1": 60}
        proxy.ask("many.told.test", tcp=True)
        assert len(heard.told["many.told.test"]) == 500
        proxy.ask("other.test")
        assert "other.test" not in heard.told


def test_nothing_is_lost_while_the_agent_is_away_or_the_proxy_is_killed(proxy: Proxy) -> None:
    assert proxy.ask("b.told.test").answer
    proxy.kill()
    proxy.start()
    assert proxy.ask("www.example").rcode() == dns.rcode.REFUSED
    assert proxy.ask("c.told.test").answer
    names = {each.name for each in read_journal(proxy.folder / JOURNAL)}
    assert {"b.told.test", "c.told.test"} <= names
    with agent(proxy) as heard:
        proxy.until(lambda: "c.told.test" in heard.told)


def test_rules_and_refusals_change_in_place(proxy: Proxy) -> None:
    proxy.replan((NameMatch("only.test"),), Refusal.NAME_ERROR)
    assert proxy.ask("www.test").rcode() == dns.rcode.NXDOMAIN
    assert proxy.ask("only.test").answer
    proxy.replan()
    assert proxy.ask("www.test").answer


def test_ten_thousand_questions_without_an_answer_exhaust_nothing(proxy: Proxy, server: NameServer) -> None:
    before = server.queries
    wire = dns.message.make_query("silent.test", "A").to_wire()
    with proxy.rig.socket(proxy.rig.client, socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect((ADDRESSES[socket.AF_INET][1], 53))
        for number in range(10_000):
            client.send(number.to_bytes(2) + wire[2:])
            if number % 500 == 499:
                assert proxy.ask(f"{number}.test").answer
    assert server.queries - before > 5_000
    descriptors = len(list(Path(f"/proc/{proxy.process.pid}/fd").iterdir()))
    assert descriptors < 200
    status = Path(f"/proc/{proxy.process.pid}/status").read_text()
    resident = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
    assert resident < 100_000, f"{resident} KiB"


def test_garbage_does_not_stop_it(proxy: Proxy) -> None:
    with proxy.rig.socket(proxy.rig.client, socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect((ADDRESSES[socket.AF_INET][1], 53))
        for size in (0, 1, 11, 12, 13, 500, 5000):
            client.send(os.urandom(size) if size != 12 else bytes(12))
    with proxy.rig.socket(proxy.rig.client, socket.AF_INET, socket.SOCK_STREAM) as client:
        client.connect((ADDRESSES[socket.AF_INET][1], 53))
        client.sendall(b"\0\5GET /")
        assert client.recv(100) == b""
    assert proxy.ask("www.test").answer


def test_it_ends_with_its_plan(proxy: Proxy) -> None:
    (proxy.folder / "plan.json").unlink()
    assert proxy.process.wait(20) == 0
    proxy.plan()
    proxy.start()
