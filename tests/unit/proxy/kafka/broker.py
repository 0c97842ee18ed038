"""A conversation between a client and a broker that are played: requests as bytes, answers by hand."""

from __future__ import annotations

from typing import Any

from axoneme.model.l7 import KafkaRule
from axoneme.proxy.kafka.conversation import Conversation, Exchange, Verdict
from axoneme.proxy.kafka.judging import Names
from axoneme.proxy.kafka.messages import Struct, decode, encode, layout
from axoneme.proxy.kafka.refusals import response
from axoneme.proxy.kafka.requests import API_VERSIONS, Header, read_body, read_header
from axoneme.proxy.kafka.wire import Reader, Writer

PRODUCE, FETCH, METADATA, OFFSET_COMMIT, HEARTBEAT = 0, 1, 3, 8, 12


def request(key: int, version: int, body: Struct, correlation: int = 1, client: str | None = "me") -> bytes:
    form = layout(key, version, "request")
    writer = Writer()
    writer.number("int32", 0)
    writer.number("int16", key)
    writer.number("int16", version)
    writer.number("int32", correlation)
    if (key, version) != (7, 0):
        writer.text(client, compact=False)
    if form.compact:
        writer.tags({})
    encode(form, body, writer)
    writer.data[:4] = (len(writer.data) - 4).to_bytes(4, "big")
    return bytes(writer.data)


def produce(
    *topics: str, version: int = 9, acks: int = -1, correlation: int = 1, records: bytes = b"r"
) -> bytes:
    data = [{"Name": each, "PartitionData": [{"Index": 3, "Records": records}]} for each in topics]
    body = {"TransactionalId": None, "Acks": acks, "TimeoutMs": 1, "TopicData": data}
    return request(PRODUCE, version, body, correlation)


def produce_by_id(number: bytes, correlation: int = 1, records: bytes = b"r") -> bytes:
    data = [{"TopicId": number, "PartitionData": [{"Index": 3, "Records": records}]}]
    body = {"TransactionalId": None, "Acks": -1, "TimeoutMs": 1, "TopicData": data}
    return request(PRODUCE, 13, body, correlation)


def metadata(*topics: str, version: int = 9, correlation: int = 1) -> bytes:
    return request(METADATA, version, {"Topics": [{"Name": each} for each in topics]}, correlation)


def fetch(*topics: str, version: int = 11, session: int = 0, epoch: int = 0, correlation: int = 1) -> bytes:
    body = {"SessionId": session, "SessionEpoch": epoch}
    wanted = [{"Topic": each, "Partitions": [{"Partition": 1}]} for each in topics]
    return request(FETCH, version, {**body, "Topics": wanted}, correlation)


def answer(key: int, version: int, body: Struct, correlation: int = 1) -> bytes:
    header = Header(key, version, correlation, "", 0)
    return response(header, layout(key, version, "response"), body)


def read_answer(key: int, version: int, data: bytes) -> Struct:
    """Of one whole response."""
    assert int.from_bytes(data[:4], "big") == len(data) - 4
    form = layout(key, version, "response")
    reader = Reader(data, 8)
    if form.compact and key != API_VERSIONS:
        reader.tags()
    made = decode(form, reader)
    assert reader.place == len(data)
    return made


def frames(data: bytes) -> list[bytes]:
    found = []
    while len(data) >= 4:
        size = 4 + int.from_bytes(data[:4], "big")
        found.append(data[:size])
        data = data[size:]
    return found


class Played:
    """``to_server`` and ``to_client`` are what each has got since it was last looked at."""

    def __init__(self, *rules: KafkaRule, names: Names | None = None, audit: bool = False) -> None:
        self.server = bytearray()
        self.client = bytearray()
        self.told: list[tuple[str, tuple[str, ...], str]] = []
        self.answered: list[tuple[str, int]] = []
        self.conversation = Conversation(
            rules,
            names or Names(),
            self.server.extend,
            self.client.extend,
            self._tell,
            lambda exchange, error: self.answered.append((exchange.header.name, error)),
            lambda: 0.0,
            audit,
        )

    def _tell(self, exchange: Exchange, verdict: Verdict, reason: str) -> None:
        self.told.append((verdict.value, exchange.topics, reason))

    def sends(self, *requests: bytes) -> bytes:
        """What the server gets of it."""
        for each in requests:
            self.conversation.from_client(each)
        return self.to_server()

    def hears(self, *answers: bytes) -> bytes:
        """What the client gets of what the server says."""
        for each in answers:
            self.conversation.from_server(each)
        return self.to_client()

    def to_server(self) -> bytes:
        got, self.server[:] = bytes(self.server), b""
        return got

    def to_client(self) -> bytes:
        got, self.client[:] = bytes(self.client), b""
        return got


def read_request(data: bytes) -> tuple[Header, dict[str, Any]]:
    header = read_header(data)
    return header, read_body(header, data)
