"""The Kafka proxy: whatever a client sends, and whatever a broker answers."""

from __future__ import annotations

from collections.abc import Iterable

from axoneme.model.kafkaapis import ALWAYS
from axoneme.model.l7 import KafkaRule
from axoneme.proxy.kafka.conversation import Conversation, Exchange, Verdict
from axoneme.proxy.kafka.judging import Names
from axoneme.proxy.kafka.requests import bears_topics, read_body, read_header, topics
from axoneme.proxy.kafka.wire import Malformed
from fuzz.target import Target, says_why

_RULES = (KafkaRule(api_keys=(0, 1, 3, 8), topic="alpha"), KafkaRule(api_keys=(12,), client_id="me"))
_KNOWN = bytes(range(16))


class _Both:
    """A conversation, and what both sides have got of it."""

    def __init__(self) -> None:
        self.server = bytearray()
        self.client = bytearray()
        self.answers: list[bytes] = []
        names = Names()
        names.learn(_KNOWN, "alpha")
        self.conversation = Conversation(
            _RULES, names, self.server.extend, self.client.extend, self._told, self._answered, lambda: 0.0
        )

    def _told(self, exchange: Exchange, verdict: Verdict, reason: str) -> None:
        assert (verdict is Verdict.DROPPED) == bool(reason) or exchange.header.api_key in ALWAYS

    def _answered(self, exchange: Exchange, error: int) -> None:
        assert isinstance(error, int)


def check_client(data: bytes) -> None:
    """What reaches the broker is what the rules allow, read as a broker would, from the start."""
    both = _Both()
    try:
        for start in range(0, len(data), 1000):
            both.conversation.from_client(data[start : start + 1000])
    except Malformed as error:
        says_why(error)
    sent = bytes(both.server)
    while sent:
        size = 4 + int.from_bytes(sent[:4], "big")
        _judge(sent[:size], size)
        sent = sent[size:]


def _judge(request: bytes, size: int) -> None:
    header = read_header(request)
    if header.api_key in ALWAYS or len(request) < size:
        return
    assert any(
        header.api_key in rule.api_keys and rule.client_id in ("", header.client_id) for rule in _RULES
    ), header
    if not bears_topics(header.layout):
        return
    try:
        found = topics(header.layout, read_body(header, request))
    except Malformed:
        # Only records may be anything: they come when the one topic before them was judged.
        assert (header.api_key == 0 and b"alpha" in request[: header.end + 64]) or _KNOWN in request
        return
    ours = header.api_key == 3 and header.version == 12
    assert found.names <= {"alpha"} and (found.ids <= {_KNOWN} or ours), found


def check_server(data: bytes) -> None:
    """Nothing that a broker says breaks the proxy."""
    both = _Both()
    for each in _seeds():
        if both.conversation.full:
            break
        both.conversation.from_client(each)
    try:
        both.conversation.from_server(data)
    except Malformed as error:
        says_why(error)


def _seeds() -> Iterable[bytes]:
    from unit.proxy.kafka import broker

    yield broker.produce("alpha")
    yield broker.produce("alpha", "beta", correlation=2)
    yield broker.metadata("alpha", "beta", correlation=3)
    yield broker.fetch("alpha", correlation=4)
    yield broker.request(18, 3, {"ClientSoftwareName": "a"}, 5)
    yield broker.request(12, 4, {"GroupId": "g", "MemberId": "m"}, 6)
    yield broker.produce_by_id(_KNOWN, 7)
    yield broker.produce_by_id(bytes(15) + b"\1", 8)


def _answer_seeds() -> Iterable[bytes]:
    from unit.proxy.kafka import broker

    first = broker.answer(0, 9, {})
    second = broker.answer(3, 9, {"Topics": [{"Name": "alpha"}]}, 3)
    third = broker.answer(1, 11, {"SessionId": 4}, 4)
    fourth = broker.answer(18, 3, {"ApiKeys": [{"ApiKey": 0, "MinVersion": 0, "MaxVersion": 99}]}, 5)
    yield first
    yield first + second + third + fourth


TARGETS = [
    Target("kafka-client", check_client, _seeds),
    Target("kafka-server", check_server, _answer_seeds),
]
