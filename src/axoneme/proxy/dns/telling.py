"""What the flow server is told of queries and answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from axoneme.model.l7event import DNSEvent, L7Event
from axoneme.proxy.dns import message
from axoneme.proxy.dns.message import Answer
from axoneme.proxy.sockets import End

if TYPE_CHECKING:
    from axoneme.proxy.dns.desk import Question

#: Of the IANA registry, what is in use; the others are TYPE123 (RFC 3597).
_TYPES: Final = {
    1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 13: "HINFO", 15: "MX", 16: "TXT", 28: "AAAA", 33: "SRV",
    35: "NAPTR", 39: "DNAME", 41: "OPT", 43: "DS", 44: "SSHFP", 46: "RRSIG", 47: "NSEC", 48: "DNSKEY",
    50: "NSEC3", 52: "TLSA", 64: "SVCB", 65: "HTTPS", 99: "SPF", 250: "TSIG", 251: "IXFR", 252: "AXFR",
    255: "ANY", 257: "CAA",
}  # fmt: skip


class Telling:
    """Collects events, and sends those of one turn of the event loop together.

    ``send`` takes them; ``soon`` has a function called when the turn is over.
    """

    def __init__(
        self,
        send: Callable[..., None],
        soon: Callable[[Callable[[], None]], object],
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._send = send
        self._soon = soon
        self._clock = clock
        self._events: list[L7Event] = []

    def query(self, question: Question, verdict: str, reason: str = "") -> None:
        query = question.query
        found = DNSEvent(f"{message.text(query.name)}.", (type_name(query.qtype),))
        self._tell(question, "REQUEST", verdict, reason, 0, found)

    def answer(self, question: Question, answer: Answer, verdict: str, reason: str = "") -> None:
        query = question.query
        found = DNSEvent(
            f"{message.text(query.name)}.",
            (type_name(query.qtype),),
            answer.rcode,
            tuple(answer.addresses),
            min(answer.addresses.values(), default=0),
            tuple(f"{message.text(each)}." for each in answer.cnames),
            tuple(map(type_name, answer.rrtypes)),
        )
        self._tell(question, "RESPONSE", verdict, reason, time.monotonic_ns() - question.asked, found)

    def malformed(self, direction: str, client: End, server: End, protocol: str, reason: str) -> None:
        """Something came that is no query."""
        self._add(direction, client, server, protocol, "REQUEST", "DROPPED", reason, 0, None)

    def _tell(
        self, question: Question, kind: str, verdict: str, reason: str, latency: int, found: DNSEvent
    ) -> None:
        direction, client = question.served.listener.direction, question.client
        self._add(
            direction, client, question.server, question.protocol, kind, verdict, reason, latency, found
        )

    def _add(
        self,
        direction: str,
        client: End,
        server: End,
        protocol: str,
        kind: str,
        verdict: str,
        reason: str,
        latency: int,
        found: DNSEvent | None,
    ) -> None:
        ends = (*client, *server)
        self._events.append(
            L7Event(self._clock(), direction, protocol, *ends, kind, verdict, reason, latency, dns=found)
        )
        if len(self._events) == 1:
            self._soon(self._flush)

    def _flush(self) -> None:
        events, self._events = self._events, []
        self._send(*events)


def type_name(number: int) -> str:
    return _TYPES.get(number) or f"TYPE{number}"
