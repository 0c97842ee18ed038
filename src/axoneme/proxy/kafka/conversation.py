"""One connection between a client and a broker, as bytes that come and go; no I/O.

Requests are judged one after the other. What is permitted goes on as it came, a long one in parts as they
come. What is refused is answered here, in the request's own API and version, when the broker has answered
everything before it: answers come in the order of the requests. What cannot be understood ends the
connection.

Three exchanges do not pass as they are. The answer about API versions names those that are understood here as
well. A request for metadata goes on with the topics that are permitted, and its answer says of the others
that they are not. And where a request names topics by their ids, the broker is asked what they are, in the
client's name, before it is judged.
"""

from __future__ import annotations

import enum
import struct
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from axoneme.model.l7 import KafkaRule
from axoneme.proxy.kafka import refusals, rewriting
from axoneme.proxy.kafka.judging import Decision, Names, answer, judge
from axoneme.proxy.kafka.messages import NAMES, VERSIONS, Struct
from axoneme.proxy.kafka.requests import (
    API_VERSIONS,
    LENGTH,
    PRODUCE,
    Header,
    ProduceHead,
    Topics,
    bears_topics,
    read_body,
    read_header,
    read_produce_head,
    topics,
)
from axoneme.proxy.kafka.rules import Scope, permission
from axoneme.proxy.kafka.sessions import Sessions, begins, has_sessions
from axoneme.proxy.kafka.wire import Malformed, Short

#: Bytes of a request: brokers take no more by default (socket.request.max.bytes).
LONGEST: Final = 100 << 20
#: Bytes of a request that has to be here as a whole to be judged or refused.
LONGEST_HELD: Final = 4 << 20
#: Bytes of an answer that is changed.
LONGEST_CHANGED: Final = 4 << 20
#: A header, and what of a produce request comes before its records.
_LONGEST_HEAD: Final = 128 << 10
#: Of an answer, in which an error is looked for; of one that is here as a whole.
_HEAD_OF_ANSWER: Final = 64
_SHORT_ANSWER: Final = 2048
#: Requests that wait for their answers; then the client waits.
_MOST_PENDING: Final = 1000
#: What all requests begin with: API key, version, correlation id.
_FRONT: Final = struct.Struct("!hhi")


class Verdict(enum.Enum):
    FORWARDED = "FORWARDED"
    DROPPED = "DROPPED"
    AUDIT = "AUDIT"  # rules refuse it, and it passes all the same


@dataclass(slots=True)
class Exchange:
    """A request whose answer is to come."""

    header: Header
    begun: float
    topics: tuple[str, ...] = ()  # that are known, for people
    #: The answer, where it is not the broker's.
    answer: bytes | None = None
    #: What the client gets in place of the broker's answer; None: nothing, it was we who asked.
    change: Callable[[bytes], bytes | None] | None = None
    #: Of a fetch that begins a session: what it is about.
    session: Topics | None = None
    silent: bool = False  # the client wants no answer
    ours: bool = False  # the client knows nothing of it


class Conversation:
    """``to_server`` and ``to_client`` take what is sent. ``rules`` and ``audit`` may be replaced at any time.

    ``told`` hears of each request (verdict, reason), ``answered`` of each of the broker's answers (error
    code). ``clock`` is monotonic, in seconds.
    """

    def __init__(
        self,
        rules: Sequence[KafkaRule],
        names: Names,
        to_server: Callable[[bytes | memoryview], None],
        to_client: Callable[[bytes | memoryview], None],
        told: Callable[[Exchange, Verdict, str], None],
        answered: Callable[[Exchange, int], None],
        clock: Callable[[], float],
        audit: bool = False,
    ) -> None:
        self.rules = rules
        self.audit = audit
        self._names = names
        self._to_server = to_server
        self._to_client = to_client
        self._told = told
        self._answered = answered
        self._clock = clock
        self._requests = bytearray()  # what was not judged yet
        self._needed = 0  # how long that has to become before it is looked at again
        self._passing = 0  # bytes of a request that are to come
        self._answers = b""
        self._returning = 0
        self._pending: deque[Exchange] = deque()
        self._owed = 0  # bytes of our own answers that wait for their turn
        self._asking = False  # the broker, for topics' ids
        self._vain: frozenset[bytes] = frozenset()  # ids of which it has not known the topics just now
        self._sessions = Sessions()
        self._blind = False

    @property
    def held(self) -> int:
        """Bytes that are kept here."""
        return len(self._requests) + len(self._answers) + self._owed

    @property
    def full(self) -> bool:
        """Whether the client has to wait before it sends more."""
        return self._asking or len(self._pending) >= _MOST_PENDING or self._owed > LONGEST_HELD

    # ---- requests -------------------------------------------------------------------------------

    def from_client(self, data: bytes) -> None:
        """Raises `Malformed` where the connection has to end."""
        if self._blind:
            self._to_server(data)
            return
        if self._passing:
            part = memoryview(data)[: self._passing]
            self._passing -= len(part)
            self._to_server(part)
            data = data[len(part) :]
        self._requests += data
        self._go_on()

    def _go_on(self) -> None:
        try:
            while not self._passing and not self.full and len(self._requests) >= max(self._needed, 1):
                self._needed = 0
                self._next()
                self._flush()
        except Malformed:
            if not self.audit:
                raise
            # What cannot be understood cannot be followed either.
            self._blind = True
            self._to_server(bytes(self._requests))
            self._to_client(self._answers)
            self._requests.clear()
            self._answers = b""

    def _next(self) -> None:
        """Judges the next request, or says how much of it is needed for that."""
        have = len(self._requests)
        if have < LENGTH + 8:
            self._needed = LENGTH + 8
            return
        if self._requests.startswith(b"\x16\x03"):
            raise Malformed("this is TLS, into which rules for Kafka cannot look")
        size = LENGTH + int.from_bytes(self._requests[:LENGTH], "big")
        if not LENGTH + 8 <= size <= LENGTH + LONGEST:
            raise Malformed(f"a request of {size - LENGTH} bytes")
        key, version, correlation = _FRONT.unpack_from(self._requests, LENGTH)
        if key == API_VERSIONS and version not in VERSIONS[key]:
            # A newer client asks as it would like to, and goes on with what it hears then.
            if self._is_whole(size, NAMES[key]):
                header = Header(key, 0, correlation, "", 0)
                self._answer(size, Exchange(header, self._clock()), rewriting.own_versions(correlation))
            return
        end = min(size, _LONGEST_HEAD)
        head = bytes(self._requests[:end])
        try:
            header = read_header(head)
            produce = read_produce_head(header, head) if header.api_key == PRODUCE else None
        except Short:
            if have >= end:
                raise
            self._needed = min(end, 2 * have)  # so that single bytes are not looked at one by one
            return
        self._decide(size, header, produce)

    def _decide(self, size: int, header: Header, produce: ProduceHead | None) -> None:
        allowed = permission(self.rules, header)
        exchange = Exchange(header, self._clock(), silent=produce is not None and produce.acks == 0)
        is_about_topics = bears_topics(header.layout)
        if allowed.scope is Scope.ALL or (allowed.scope is Scope.SOME and not is_about_topics):
            self._pass_unjudged(size, exchange, produce, is_about_topics)
            return
        # A request that may hold many records is judged by its first bytes, if these say all.
        if produce and produce.topics and allowed.scope is Scope.SOME:
            decision = judge(header, {}, produce.topics, allowed, self._names, self._sessions, self._vain)
            if not decision.error or decision.ask:
                self._follow(size, exchange, {}, produce.topics, decision)
                return
        if self._is_whole(size, header.name):
            body = read_body(header, bytes(self._requests[:size]))
            asked = topics(header.layout, body) if is_about_topics else Topics()
            decision = judge(header, body, asked, allowed, self._names, self._sessions, self._vain)
            self._follow(size, exchange, body, asked, decision)

    def _pass_unjudged(
        self, size: int, exchange: Exchange, produce: ProduceHead | None, is_about_topics: bool
    ) -> None:
        """Rules do not ask which topics it is about; who watches would like to know, where that is easy."""
        header = exchange.header
        if header.api_key == API_VERSIONS:
            exchange.change = lambda answer: rewriting.common_versions(header, answer)
        if has_sessions(header):
            self._sessions.clear()
        if produce and produce.topics:
            exchange.topics = self._names.shown(produce.topics)
        elif is_about_topics and size <= min(len(self._requests), _LONGEST_HEAD):
            body = read_body(header, bytes(self._requests[:size]))
            exchange.topics = self._names.shown(topics(header.layout, body))
        self._pass(size, exchange)

    def _follow(self, size: int, exchange: Exchange, body: Struct, asked: Topics, decision: Decision) -> None:
        header = exchange.header
        if decision.ask:
            self._ask(header, decision.ask)
            return
        self._vain = frozenset()
        exchange.topics = decision.shown or self._names.shown(asked)
        if decision.error and not self.audit:
            made = None if exchange.silent else answer(header, body, decision)
            self._answer(size, exchange, made, decision.reason)
        elif decision.error:
            self._pass(size, exchange, Verdict.AUDIT, decision.reason)
        elif decision.without:
            self._pass_in_part(size, exchange, body, decision)
        else:
            if has_sessions(header):
                self._sessions.passed(header, body, decision.topics)
                exchange.session = decision.topics if begins(header, body) else None
            self._pass(size, exchange)

    def _pass_in_part(self, size: int, exchange: Exchange, body: Struct, decision: Decision) -> None:
        header = exchange.header
        kept, taken = rewriting.split(body, decision.without, self._names)
        if self.audit:
            self._pass(size, exchange, Verdict.AUDIT, decision.reason)
        elif not kept and header.version == 0:  # where no topics are all topics
            made = refusals.refusal(header, body, refusals.TOPIC_AUTHORIZATION_FAILED)
            self._answer(size, exchange, made, decision.reason)
        else:
            request = self._take(size)
            self._told(exchange, Verdict.DROPPED, decision.reason)
            exchange.change = lambda made: rewriting.completed(header, made, taken, self._names)
            self._pending.append(exchange)
            self._to_server(rewriting.reduced(header, request, body, kept))

    def _ask(self, header: Header, ids: frozenset[bytes]) -> None:
        ours, request = rewriting.question(header, ids)

        def learn(answer: bytes) -> None:
            rewriting.learn(ours, answer, ids, self._names)
            self._vain = self._names.unknown(Topics(ids=ids))
            self._asking = False

        self._asking = True
        self._pending.append(Exchange(ours, self._clock(), change=learn, ours=True))
        self._to_server(request)

    def _pass(
        self, size: int, exchange: Exchange, verdict: Verdict = Verdict.FORWARDED, reason: str = ""
    ) -> None:
        self._told(exchange, verdict, reason)
        if not exchange.silent:
            self._pending.append(exchange)
        part = self._take(size)
        self._passing = size - len(part)
        self._to_server(part)

    def _answer(self, size: int, exchange: Exchange, made: bytes | None, reason: str = "") -> None:
        """In the broker's place; None: the client wants no answer."""
        self._take(size)
        self._told(exchange, Verdict.DROPPED, reason)
        if made is not None:
            exchange.answer = made
            self._owed += len(made)
            self._pending.append(exchange)

    def _is_whole(self, size: int, name: str) -> bool:
        if size <= len(self._requests):
            return True
        if size > LONGEST_HELD:
            raise Malformed(f"a request {name} of {size} bytes, which is too long to be judged")
        self._needed = size
        return False

    def _take(self, size: int) -> bytes:
        part = bytes(self._requests[:size])
        del self._requests[:size]
        return part

    # ---- answers --------------------------------------------------------------------------------

    def from_server(self, data: bytes) -> None:
        """Raises `Malformed` where the connection has to end."""
        if self._blind:
            self._to_client(data)
            return
        rest = memoryview(self._answers + data if self._answers else data)
        self._answers = b""
        while rest:
            if not self._returning:
                used = self._next_answer(rest)
                if not used:
                    self._answers = bytes(rest)
                    break
                rest = rest[used:]
            part = rest[: self._returning]
            if part:
                self._to_client(part)
                self._returning -= len(part)
                rest = rest[len(part) :]
            if not self._returning:
                self._pending.popleft()
                self._flush()
        self._go_on()

    def _next_answer(self, data: memoryview) -> int:
        """Begins with the next answer; returns how much of it was used up, 0 when more is needed."""
        if len(data) < LENGTH + 4:
            return 0
        size = LENGTH + int.from_bytes(data[:LENGTH], "big")
        if not self._pending or self._pending[0].answer is not None:
            raise Malformed("the broker answers what was not asked")
        exchange = self._pending[0]
        if (
            int.from_bytes(data[4:8], "big", signed=True) != exchange.header.correlation_id
            or size < LENGTH + 4
        ):
            raise Malformed("the broker answers something else than was asked")
        if exchange.change is not None:
            if size > LONGEST_CHANGED:
                raise Malformed(f"an answer to {exchange.header.name} of {size} bytes")
            if len(data) < size:
                return 0
            whole = bytes(data[:size])
            self._hear(exchange, whole)
            changed = exchange.change(whole)
            if changed is not None:
                self._to_client(changed)
            return size
        if len(data) < min(size, _HEAD_OF_ANSWER):
            return 0
        short = size <= min(len(data), _SHORT_ANSWER)
        self._hear(exchange, bytes(data[: size if short else min(size, _HEAD_OF_ANSWER)]))
        self._returning = size
        part = data[:size]
        self._to_client(part)
        self._returning -= len(part)
        return len(part)

    def _hear(self, exchange: Exchange, head: bytes) -> None:
        error, session = rewriting.head_of_answer(exchange.header, head)
        if exchange.session is not None and not error:
            self._sessions.begun(session, exchange.session)
        if not exchange.ours:
            self._answered(exchange, error)

    def _flush(self) -> None:
        """Answers of ours go when those before them are gone."""
        while self._pending and (made := self._pending[0].answer) is not None:
            self._pending.popleft()
            self._owed -= len(made)
            self._to_client(made)
