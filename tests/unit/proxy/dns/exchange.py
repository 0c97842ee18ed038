"""A desk that learns nothing and keeps its events, and a server to be asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import dns.message
import dns.rrset

from axoneme.model.l7 import L7, L7Kind, NameMatch
from axoneme.model.l7event import L7Event
from axoneme.proxy.config import Refusal
from axoneme.proxy.dns.desk import Desk, Question, Served
from axoneme.proxy.dns.telling import Telling
from axoneme.proxy.plan import Listener
from axoneme.proxy.sockets import End

CLIENT, SERVER = End("10.0.0.1", 40000), End("10.0.0.53", 53)


def listener(*rules: NameMatch, audit: bool = False) -> Listener:
    return Listener(10000, "egress", L7(L7Kind.DNS, dns=rules), audit)


class Learning:
    """Lets answers out at once, or, while `held` is a list, keeps them there."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, bytes, dict[str, int]]] = []
        self.held: list[Callable[[], None]] | None = None

    def learn(self, client: str, name: bytes, addresses: dict[str, int], release: Callable[[], None]) -> None:
        self.heard.append((client, name, addresses))
        if self.held is None:
            release()
        else:
            self.held.append(release)


class Exchange:
    """Of one client with rules that allow what is below ``test``."""

    def __init__(self, *rules: NameMatch, audit: bool = False, refusal: Refusal = Refusal.REFUSED) -> None:
        self.learning = Learning()
        self.events: list[L7Event] = []
        telling = Telling(lambda *events: self.events.extend(events), lambda flush: flush())
        self.desk = Desk(self.learning, telling, refusal)
        self.served = Served(listener(*(rules or (NameMatch("**.test", pattern=True),)), audit=audit))
        self.replies: asyncio.Queue[bytes] = asyncio.Queue()

    def take(self, wire: bytes, client: End = CLIENT, server: End = SERVER) -> Question | None:
        return self.desk.take(wire, self.served, client, server, "UDP", self.replies.put_nowait)

    async def reply(self) -> dns.message.Message:
        return dns.message.from_wire(await self.replies.get())

    def said(self) -> dns.message.Message:
        return dns.message.from_wire(self.replies.get_nowait())


def query(name: str = "a.test", kind: str = "A", *, edns: bool = True) -> dns.message.Message:
    return dns.message.make_query(name, kind, use_edns=0 if edns else -1)


def answer(wire: bytes, address: str = "192.0.2.1") -> bytes:
    """Whatever was asked, it has this address, for a minute."""
    asked = dns.message.from_wire(wire)
    made = dns.message.make_response(asked)
    made.answer = [dns.rrset.from_text(asked.question[0].name, 60, "IN", "A", address)]
    return made.to_wire()
