"""Clients' connections, with a server at the other end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import dns.edns
import dns.message
import dns.rcode
import dns.rdatatype

from axoneme.model.l7 import NameMatch
from axoneme.proxy.dns import streams
from axoneme.proxy.dns.streams import PIPELINE, Session
from axoneme.proxy.sockets import End
from unit.proxy.dns.exchange import CLIENT, SERVER, Exchange, answer, listener, query


class Trial:
    def __init__(self) -> None:
        self.exchange = Exchange()
        self.accepted: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
        self.calls = 0

    async def connect(self, client: End, server: End, direction: str) -> socket.socket:
        assert (client, server, direction) == (CLIENT, SERVER, "egress")
        self.calls += 1
        near, far = socket.socketpair()
        near.setblocking(False)
        self.accepted.put_nowait(await asyncio.open_connection(sock=far))
        return near

    async def server(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await self.accepted.get()

    def ask(self, *queries: dns.message.Message) -> None:
        self.writer.write(b"".join(framed(each.to_wire(max_size=65535)) for each in queries))

    async def said(self) -> dns.message.Message:
        return dns.message.from_wire(await message(self.reader))


def framed(wire: bytes) -> bytes:
    return len(wire).to_bytes(2) + wire


async def message(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(int.from_bytes(await reader.readexactly(2)))


@asynccontextmanager
async def trial() -> AsyncIterator[Trial]:
    made = Trial()
    near, far = socket.socketpair()
    session = Session(made.exchange.served, made.exchange.desk, CLIENT, SERVER, made.connect)
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        made.session = tasks.create_task(session.run(far))
        made.reader, made.writer = await asyncio.open_connection(sock=near)
        yield made
        made.writer.close()


async def test_questions_are_answered_in_any_order_on_one_connection() -> None:
    async with trial() as t:
        asked = [query(f"{number}.test") for number in range(10)]
        for each in asked:
            each.id = 99  # a client may do that
        t.ask(*asked)
        reader, writer = await t.server()
        wires = [await message(reader) for _ in asked]
        assert len({wire[:2] for wire in wires}) == len(asked)
        for wire in reversed(wires):
            writer.write(framed(answer(wire)))
        said = [await t.said() for _ in asked]
        assert [str(each.question[0].name) for each in said] == [
            f"{number}.test." for number in range(9, -1, -1)
        ]
        assert {each.id for each in said} == {99}
        assert t.calls == 1


async def test_refusals_stand_between_answers_and_the_connection_lives() -> None:
    async with trial() as t:
        t.ask(query("a.example"))
        assert (await t.said()).rcode() == dns.rcode.REFUSED
        assert t.calls == 0
        t.ask(query("a.test"))
        reader, writer = await t.server()
        writer.write(framed(answer(await message(reader))))
        assert (await t.said()).answer
        t.ask(query("b.example"))
        assert (await t.said()).rcode() == dns.rcode.REFUSED


async def test_large_answers_pass_as_they_are() -> None:
    async with trial() as t:
        t.ask(query("a.test"))
        reader, writer = await t.server()
        wire = await message(reader)
        made = dns.message.make_response(dns.message.from_wire(wire))
        texts = " ".join(f'"{"x" * 250}"' for _ in range(200))
        made.answer = [dns.rrset.from_text("a.test.", 5, "IN", "TXT", texts)]
        writer.write(framed(made.to_wire(max_size=65535)))
        assert (await t.said()).answer == made.answer


async def test_a_zone_comes_in_several_messages() -> None:
    async with trial() as t:
        t.exchange.served.use(listener(NameMatch("*", pattern=True)))
        t.ask(query("test", "AXFR", edns=False))
        reader, writer = await t.server()
        first = answer(await message(reader))
        further = first[:4] + bytes(8)
        writer.write(framed(first) + framed(further) + framed(further))
        assert (await t.said()).answer
        assert [len(await message(t.reader)) for _ in range(2)] == [12, 12]


async def test_a_server_that_closes_ends_the_clients_connection() -> None:
    async with trial() as t:
        t.ask(query("a.test"))
        _, writer = await t.server()
        writer.close()
        assert await t.reader.read() == b""
        assert t.exchange.events[-1].reason == "the connection has ended"


async def test_a_client_that_has_said_all_still_gets_its_answers() -> None:
    async with trial() as t:
        t.ask(query("a.test"))
        t.writer.write_eof()
        reader, writer = await t.server()
        writer.write(framed(answer(await message(reader))))
        assert (await t.said()).answer
        assert await t.reader.read() == b""


async def test_more_is_not_read_than_may_be_without_an_answer() -> None:
    async with trial() as t:
        many = 2 * PIPELINE
        t.ask(*(query(f"{number}.test") for number in range(many)))
        reader, writer = await t.server()
        wires = [await message(reader) for _ in range(PIPELINE)]
        assert sum(each.type == "REQUEST" for each in t.exchange.events) == PIPELINE
        for wire in wires:
            writer.write(framed(answer(wire)))
        for _ in range(many - PIPELINE):
            writer.write(framed(answer(await message(reader))))
        for _ in range(many):
            assert (await t.said()).answer


async def test_what_is_no_dns_ends_the_connection() -> None:
    async with trial() as t:
        t.writer.write(framed(b"GET /"))
        assert await t.reader.read() == b""


async def test_answers_to_nothing_are_passed_over_and_wrong_ones_fail() -> None:
    async with trial() as t:
        t.ask(query("a.test"))
        reader, writer = await t.server()
        wire = await message(reader)
        writer.write(framed(answer(bytes((wire[0] ^ 1,)) + wire[1:])))
        writer.write(framed(answer(wire.replace(b"\4test", b"\4tess"))))
        assert (await t.said()).rcode() == dns.rcode.SERVFAIL


async def test_a_client_that_is_too_slow_is_left(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(streams, "IDLE", 0.05)
    async with trial() as t:
        t.writer.write(b"\0")
        assert await t.reader.read() == b""


async def test_long_questions_wait_for_each_other() -> None:
    async with trial() as t:
        asked = query("a.test")
        asked.use_edns(0, options=[dns.edns.GenericOption(12, bytes(40_000))])
        t.ask(*[asked] * 3)
        reader, writer = await t.server()
        for number in range(3):
            wire = await message(reader)
            assert sum(each.type == "REQUEST" for each in t.exchange.events) == number + 1
            writer.write(framed(answer(wire)))
            assert (await t.said()).answer
