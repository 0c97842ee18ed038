"""Questions to a server on loopback; time is told."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import dns.message
import dns.rcode
import pytest

from axoneme.proxy.dns import upstream
from axoneme.proxy.dns.upstream import LIFE, LINES, LINES_EACH, MOST, MOST_EACH, PATIENCE, SHARED, Upstream
from axoneme.proxy.sockets import End
from unit.proxy.dns.exchange import CLIENT, Exchange, answer, query


class Trial(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.exchange = Exchange()
        self.now = 0.0
        self.asked: list[tuple[bytes, tuple[str, int]]] = []
        self.answer: Callable[[bytes], list[bytes]] = lambda wire: [answer(wire)]
        self.upstream = Upstream(self.exchange.desk, self.call, lambda: self.now)
        self.calls = 0

    def call(self, client: End, server: End, direction: str) -> socket.socket:
        assert direction == "egress"
        self.calls += 1
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        made.connect(self.address)
        return made

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.address = transport.get_extra_info("sockname")

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        self.asked.append((data, address))
        for each in self.answer(data):
            self.transport.sendto(each, address)  # type: ignore[attr-defined]

    def ask(
        self, name: str = "a.test", client: str = CLIENT.address, server: End | None = None
    ) -> dns.message.Message:
        asked = query(name)
        question = self.exchange.take(asked.to_wire(), End(client, 40000))
        assert question is not None
        question.server = server or question.server
        self.upstream.ask(question)
        return asked


@asynccontextmanager
async def trial() -> AsyncIterator[Trial]:
    async with asyncio.timeout(30):
        transport, made = await asyncio.get_running_loop().create_datagram_endpoint(
            Trial, local_addr=("127.0.0.1", 0)
        )
        running = asyncio.create_task(made.upstream.run())
        await asyncio.sleep(0)
        try:
            yield made
        finally:
            running.cancel()
            await asyncio.wait([running])
            transport.close()
            assert made.upstream.lines == 0


async def test_answers_find_their_questions_whatever_their_ids() -> None:
    async with trial() as t:
        asked = [t.ask(f"{number}.test") for number in range(20)]
        for each in asked:
            each.id = 7
        said = [await t.exchange.reply() for _ in asked]
        assert {str(each.question[0].name) for each in said} == {f"{number}.test." for number in range(20)}
        assert len({wire[:2] for wire, _ in t.asked}) == 20
        assert t.calls == 1 and len(t.upstream) == 0


async def test_forged_answers_are_passed_over() -> None:
    async with trial() as t:

        def forge(wire: bytes) -> list[bytes]:
            other_id = bytes((wire[0] ^ 1,)) + wire[1:]
            other_name = wire.replace(b"\4test", b"\4tess")
            return [answer(other_id), answer(other_name), b"", wire, answer(wire, "192.0.2.9")]

        t.answer = forge
        t.ask()
        said = await t.exchange.reply()
        assert said.answer[0][0].address == "192.0.2.9"
        assert t.exchange.replies.empty()


async def test_lines_are_left_after_a_while_and_closed_when_all_is_answered() -> None:
    async with trial() as t:
        t.answer = lambda _: []
        t.ask()
        t.now = LIFE + 1
        t.ask()
        assert t.calls == 2 and t.upstream.lines == 2
        t.now = PATIENCE + 1
        t.upstream.tidy()
        assert t.upstream.lines == 1 and len(t.upstream) == 1
        assert t.exchange.events[-1].reason == "no answer"
        assert t.exchange.replies.empty()
        t.now = 2 * PATIENCE + LIFE
        t.upstream.tidy()
        assert t.upstream.lines == 0 and len(t.upstream) == 0


async def test_nothing_grows_without_bound() -> None:
    async with trial() as t:
        t.answer = lambda _: []
        for _ in range(MOST_EACH + 100):
            t.ask()
        assert len(t.upstream) == MOST_EACH
        assert (
            t.upstream.lines == -(-(MOST_EACH + 100) // SHARED) or t.upstream.lines <= MOST_EACH // SHARED + 1
        )
        for number in range(MOST):
            t.ask(client=f"10.1.{number >> 8}.{number & 255}")
            assert t.upstream.lines <= LINES and len(t.upstream) <= MOST
        reasons = {each.reason for each in t.exchange.events if each.verdict == "ERROR"}
        assert reasons == {"too many questions without an answer", "too many clients"}


async def test_who_asks_many_servers_displaces_nobody_else() -> None:
    async with trial() as t:
        t.answer = lambda _: []
        t.ask(client="10.0.0.2")
        for number in range(LINES + 100):
            t.ask(server=End(f"192.0.{number >> 8}.{number & 255}", 53))
            assert t.upstream.lines <= 1 + LINES_EACH
        dropped = [each for each in t.exchange.events if each.verdict == "ERROR"]
        assert {each.reason for each in dropped} == {"too many servers"}
        assert {each.source for each in dropped} == {CLIENT.address}
        assert len(t.upstream) == 1 + LINES_EACH


async def test_a_server_that_does_not_listen_fails_at_once() -> None:
    async with trial() as t:
        t.transport.close()
        await asyncio.sleep(0)
        t.ask()
        said = await t.exchange.reply()
        assert said.rcode() == dns.rcode.SERVFAIL and len(t.upstream) == 0


async def test_a_server_that_cannot_be_asked_fails_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with trial() as t:

        def unreachable(*_: object) -> socket.socket:
            raise OSError(101, "")

        monkeypatch.setattr(t.upstream, "_call", unreachable)
        t.ask()
        assert t.exchange.said().rcode() == dns.rcode.SERVFAIL
        assert "unreachable" in t.exchange.events[-1].reason


def test_ids_are_not_a_sequence() -> None:
    assert len({upstream._number() for _ in range(1000)}) > 900
