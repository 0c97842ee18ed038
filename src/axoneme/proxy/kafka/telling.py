"""What is told of requests: each as it is judged, and its answer with how long that took."""

from __future__ import annotations

import time
from collections.abc import Callable

from axoneme.model.l7event import KafkaEvent, L7Event
from axoneme.proxy.kafka.conversation import Exchange, Verdict
from axoneme.proxy.kafka.requests import Header
from axoneme.proxy.sockets import End

#: Topics of one request that are told of, each by an event of its own.
_MOST_TOPICS = 16


class Telling:
    """Gathers what is said in one turn of the loop: several events at once cost less."""

    def __init__(self, send: Callable[..., None], soon: Callable[[Callable[[], None]], object]) -> None:
        """``send`` takes events, ``soon`` a function to be called when the present turn is over."""
        self._send = send
        self._soon = soon
        self._waiting: list[L7Event] = []

    def add(self, *events: L7Event) -> None:
        if not self._waiting:
            self._soon(self._tell)
        self._waiting += events

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._send(*waiting)


class Teller:
    """For one connection."""

    def __init__(self, telling: Telling, direction: str, client: End, server: End) -> None:
        self._telling = telling
        self._direction = direction
        self._client = client
        self._server = server

    def request(self, exchange: Exchange, verdict: Verdict, reason: str) -> None:
        for topic in exchange.topics[:_MOST_TOPICS] or ("",):
            kafka = _event(exchange.header, topic, 0)
            self._telling.add(self._make("REQUEST", verdict.value, reason, 0, kafka))

    def answer(self, exchange: Exchange, error: int) -> None:
        latency = int((time.monotonic() - exchange.begun) * 1e9)
        for topic in exchange.topics[:_MOST_TOPICS] or ("",):
            kafka = _event(exchange.header, topic, error)
            self._telling.add(self._make("RESPONSE", Verdict.FORWARDED.value, "", latency, kafka))

    def malformed(self, reason: str) -> None:
        """The connection ends."""
        self._telling.add(self._make("REQUEST", Verdict.DROPPED.value, reason, 0, None))

    def failed(self, reason: str) -> None:
        """The server was not reached, or has gone."""
        self._telling.add(self._make("REQUEST", "ERROR", reason, 0, None))

    def _make(self, kind: str, verdict: str, reason: str, latency: int, kafka: KafkaEvent | None) -> L7Event:
        return L7Event(
            time=time.time_ns(),
            direction=self._direction,
            protocol="TCP",
            source=self._client.address,
            source_port=self._client.port,
            destination=self._server.address,
            destination_port=self._server.port,
            type=kind,
            verdict=verdict,
            reason=reason,
            latency_ns=latency,
            kafka=kafka,
        )


def _event(header: Header, topic: str, error: int) -> KafkaEvent:
    return KafkaEvent(header.name, header.version, header.correlation_id, topic, error, header.client_id)
