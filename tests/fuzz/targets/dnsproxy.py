"""The DNS proxy: pods may ask anything, and servers may answer anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import dns.message
import dns.rrset

from axoneme.model.l7 import L7, L7Kind, NameMatch
from axoneme.proxy.dns import message
from axoneme.proxy.dns.desk import Desk, Served
from axoneme.proxy.dns.telling import Telling
from axoneme.proxy.plan import Listener
from axoneme.proxy.sockets import End
from fuzz.target import Target

_RULES = L7(L7Kind.DNS, dns=(NameMatch("a.test"), NameMatch("*.b.test", pattern=True)))
_ENDS = End("10.0.0.1", 40000), End("10.0.0.53", 53)
_ALLOWED = dns.message.make_query("a.test", "A", use_edns=0)


class _Learning:
    def learn(self, client: str, name: bytes, addresses: dict[str, int], release: Callable[[], None]) -> None:
        assert client == _ENDS[0].address and addresses and message.text(name)
        release()


def _desk() -> tuple[Desk, Served]:
    telling = Telling(lambda *_: None, lambda flush: flush())
    return Desk(_Learning(), telling), Served(Listener(10000, "egress", _RULES))


def check_query(data: bytes) -> None:
    """Only what another reader takes for a query for an allowed name is sent on; what is answered, is
    answered under its number."""
    desk, served = _desk()
    said: list[bytes] = []
    question = desk.take(data, served, *_ENDS, "UDP", said.append)
    if question is not None:
        assert not said and question.query.wire == data
        # This reader takes no message for one that has odd records behind the question; servers may.
        read = dns.message.from_wire(data, question_only=True)
        name = read.question[0].name.to_text(omit_final_dot=True).lower()
        assert len(read.question) == 1
        assert name == "a.test" or (name.endswith(".b.test") and name.count(".") == 2), name
    for wire in said:
        assert wire[:2] == data[:2] and wire[2] & 0x80
        dns.message.from_wire(wire)


def _queries() -> Iterable[bytes]:
    for name in ("a.test", "x.b.test", "c.test", "A.TEST"):
        yield dns.message.make_query(name, "AAAA").to_wire()
        yield dns.message.make_query(name, "A", use_edns=0, want_dnssec=True).to_wire()
    yield dns.message.make_query("a.test", "IXFR").to_wire()


def check_answer(data: bytes) -> None:
    """It is let out as it is, or the client is told that the server has failed."""
    desk, served = _desk()
    said: list[bytes] = []
    question = desk.take(_ALLOWED.to_wire(), served, *_ENDS, "UDP", said.append)
    assert question is not None
    if message.belongs(data, question.query):
        desk.answered(question, data)
        (wire,) = said
        assert wire[:2] == question.query.wire[:2]
        assert wire[2:] == data[2:] or dns.message.from_wire(wire).rcode() == message.SERVFAIL


def _answers() -> Iterable[bytes]:
    made = dns.message.make_response(_ALLOWED)
    yield made.to_wire()
    for kind, text in (("CNAME", "x.b.test."), ("A", "192.0.2.1"), ("AAAA", "2001:db8::1"), ("TXT", '"t"')):
        name = "a.test." if kind == "CNAME" else "x.b.test."
        made.answer.append(dns.rrset.from_text(name, 60, "IN", kind, text))
        yield made.to_wire()


TARGETS = [Target("dnsproxy-query", check_query, _queries), Target("dnsproxy-answer", check_answer, _answers)]
