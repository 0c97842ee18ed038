"""What becomes of a query, and of its answer, however they travel.

A query is refused, or asked onwards; an answer is let out when what it says is known where it matters.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from axoneme.model.names import EVERY_NAME, NameIndex
from axoneme.proxy.config import Refusal
from axoneme.proxy.dns import message
from axoneme.proxy.dns.message import Answer, Malformed, Query
from axoneme.proxy.dns.telling import Telling
from axoneme.proxy.plan import Listener
from axoneme.proxy.sockets import End

#: Names whose judgement is remembered, for each listener.
_REMEMBERED: Final = 4096
#: Labels of a name that may come of a search list: what it might stand for is looked up name by name, so one
#: of as many labels as fit would cost 20 ms.
_MOST_LABELS: Final = 20
_REFUSALS: Final = {Refusal.REFUSED: message.REFUSED, Refusal.NAME_ERROR: message.NXDOMAIN}


class Judgement(enum.Enum):
    ALLOWED = enum.auto()
    SEARCHED = enum.auto()  # not allowed; but what the resolver asks for next may be
    REFUSED = enum.auto()


class Served:
    """The rules of one listener, which may be replaced while it is at work."""

    def __init__(self, listener: Listener) -> None:
        self.use(listener)

    def use(self, listener: Listener) -> None:
        self.listener = listener
        self._names = NameIndex(listener.rules.dns)
        #: Whatever is asked for, zones and changes too.
        self.everything = EVERY_NAME in listener.rules.dns
        self._judged: dict[bytes, Judgement] = {}

    def judge(self, name: bytes) -> Judgement:
        """Of a name in the form of `message`."""
        judged = self._judged.get(name)
        if judged is None:
            if len(self._judged) >= _REMEMBERED:
                self._judged.clear()
            judged = self._judged[name] = self._look_up(message.text(name))
        return judged

    def _look_up(self, name: str) -> Judgement:
        if self._names.matches(name):
            return Judgement.ALLOWED
        others = map(self._names.matches, _searched_for(name))
        return Judgement.SEARCHED if any(others) else Judgement.REFUSED


def _searched_for(name: str) -> Iterator[str]:
    """What a resolver will ask for next, if this name comes of its search list: the name without the domain
    behind it, or, in a cluster, with ``svc.DOMAIN`` or ``DOMAIN`` instead."""
    labels = name.split(".")
    if len(labels) > _MOST_LABELS:
        return
    for end in range(1, len(labels)):
        yield ".".join(labels[:end])
    if "svc" in labels:
        place = len(labels) - 1 - labels[::-1].index("svc")  # the last: others are services and namespaces
        for end in (place - 1, place):  # without the namespace, or where there is none
            for rest in (labels[place:], labels[place + 1 :]):
                if end > 0:
                    yield ".".join(labels[:end] + rest)


class Question:
    """A query on its way: whose it is, and how its answer gets back."""

    __slots__ = ("asked", "audited", "client", "protocol", "query", "reply", "served", "server")

    def __init__(
        self,
        served: Served,
        client: End,
        server: End,
        protocol: str,
        query: Query,
        reply: Callable[[bytes], None],
    ) -> None:
        self.served = served
        self.client = client
        self.server = server
        self.protocol = protocol  # UDP, TCP
        self.query = query
        self.reply = reply
        self.asked = time.monotonic_ns()
        self.audited = False


class Learning(Protocol):
    def learn(self, client: str, name: bytes, addresses: dict[str, int], release: Callable[[], None]) -> None:
        """Calls ``release`` when the addresses are in the kernel, or when it has waited long enough."""


class Desk:
    def __init__(self, learning: Learning, telling: Telling, refusal: Refusal = Refusal.REFUSED) -> None:
        self._learning = learning
        self._telling = telling
        self._refused = _REFUSALS[refusal]

    def take(
        self,
        wire: bytes,
        served: Served,
        client: End,
        server: End,
        protocol: str,
        reply: Callable[[bytes], None],
    ) -> Question | None:
        """What has to be asked onwards; None when the query is dealt with."""
        try:
            query = message.read_query(wire, operations=served.everything)
        except Malformed as error:
            if error.rcode is not None:
                reply(message.complaint(wire, error.rcode))
            self._telling.malformed(served.listener.direction, client, server, protocol, str(error))
            return None
        question = Question(served, client, server, protocol, query, reply)
        transfer = query.transfer and not served.everything
        judged = served.judge(query.name)
        if judged is Judgement.ALLOWED and not transfer:
            self._telling.query(question, "FORWARDED")
            return question
        reason = (
            "a zone transfer, which names more than was asked for" if transfer else "no rule has the name"
        )
        if served.listener.audit and not transfer:
            question.audited = True
            self._telling.query(question, "AUDIT", reason)
            return question
        # Resolvers end their search at the first REFUSED.
        rcode = message.NXDOMAIN if judged is Judgement.SEARCHED else self._refused
        reply(message.refusal(query, rcode, prohibited=True))
        self._telling.query(question, "DROPPED", reason)
        return None

    def answered(self, question: Question, wire: bytes) -> None:
        """An answer that `message.belongs` to the question, with whatever ID."""
        query = question.query
        try:
            answer = message.read_answer(wire, query)
        except Malformed as error:
            self.failed(question, f"the server's answer is none: {error}")
            return
        wire = query.wire[:2] + wire[2:]
        if answer.addresses:
            self._learning.learn(
                question.client.address,
                query.name,
                answer.addresses,
                lambda: self._release(question, wire, answer),
            )
        else:
            self._release(question, wire, answer)

    def failed(self, question: Question, reason: str) -> None:
        """There will be no answer, and the client need not wait for one."""
        question.reply(message.refusal(question.query, message.SERVFAIL))
        self._telling.answer(question, Answer(message.SERVFAIL, {}), "ERROR", reason)

    def dropped(self, question: Question, reason: str) -> None:
        """There is no answer, and nobody is told."""
        self._telling.answer(question, Answer(message.SERVFAIL, {}), "ERROR", reason)

    def _release(self, question: Question, wire: bytes, answer: Answer) -> None:
        question.reply(wire)
        self._telling.answer(question, answer, "AUDIT" if question.audited else "FORWARDED")
