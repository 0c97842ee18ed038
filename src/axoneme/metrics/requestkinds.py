"""Metrics of requests, of which proxies have told: HTTP, DNS, Kafka.

What a series says beside its ends are texts that clients choose, so they have numbers as they come, up to a
bound; beyond that they say ``overflow``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, Final

import numpy as np

from axoneme.flows.events import Verdict
from axoneme.flows.requests import RCODES
from axoneme.metrics.families import Exemplar, labelled
from axoneme.metrics.flowbatch import FlowBatch
from axoneme.metrics.flowkinds import (
    Drop,
    Flow,
    FlowMetric,
    FlowsToWorld,
    Icmp,
    Kit,
    Places,
    Policy,
    PortDistribution,
    Tcp,
    TcpHealth,
)
from axoneme.metrics.flowoptions import Setting
from axoneme.metrics.parties import Ids
from axoneme.metrics.series import Series, SeriesCounter, SeriesHistogram
from axoneme.model.l7event import L7Event

#: Bounds of texts, and of how many there are of each metric.
_LONGEST: Final = 128
_MOST: Final = 1 << 20
_REPORTERS: Final = {"egress": "client", "ingress": "server"}
_OTHERS: Final = 0

Texts = tuple[str, ...]
#: The family of a part.
Make = Callable[["_Part", "Kit"], Series]


class _Part(FlowMetric):
    """A family whose own labels are texts; several of them make a metric (`RequestMetric`)."""

    def __init__(self, own: Sequence[str], setting: Setting, kit: Kit, make: Make) -> None:
        self.own_labels = tuple(own)
        self._make = make
        self._texts: dict[int, Texts] = {_OTHERS: ("overflow",) * len(own)}
        self._numbers: dict[Texts, int] = {}
        self._next = 1
        super().__init__(setting, kit)

    def make(self, kit: Kit) -> tuple[Series, ...]:
        return (self._make(self, kit),)

    def values(self, own: int) -> Texts:
        return self._texts[own]

    def collapse(self, own: int) -> int:
        return _OTHERS

    def numbered(self, texts: Iterable[Texts]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.array([self._numbers.get(each) or self._number(each) for each in texts], np.int64)

    def _number(self, texts: Texts) -> int:
        short = tuple(text[:_LONGEST] for text in texts)
        if short != texts:  # those that begin alike are one
            return self._numbers.get(short) or self._number(short)
        if len(self._numbers) >= _MOST or self._next >= 1 << 22:
            return _OTHERS
        number, self._next = self._next, self._next + 1
        self._numbers[texts] = number
        self._texts[number] = texts
        return number

    def tidy(self) -> None:
        """Gives up texts that no series has, once they are many."""
        (family,) = self.families
        if len(self._numbers) <= 2 * len(family) + 1024:
            return
        used = {own & 0x3FFFFF for own in family.parts()[2].tolist()}
        self._numbers = {texts: number for texts, number in self._numbers.items() if number in used}
        self._texts = {number: texts for number, texts in self._texts.items() if number in used or not number}
        if self._next > 1 << 21:  # numbers have gaps now; those of series stay
            self._next = max(used, default=0) + 1


class RequestMetric(FlowMetric):
    """Made of parts, each with a family."""

    def __init__(self, setting: Setting, kit: Kit) -> None:
        self.setting = setting
        self.parts = tuple(_Part(own, setting, kit, make) for own, make in self.made())
        self.source, self.destination = self.parts[0].source, self.parts[0].destination
        self.families = tuple(family for each in self.parts for family in each.families)

    def made(self) -> Iterable[tuple[Sequence[str], Make]]:
        """Own labels of each part, and its family."""
        raise NotImplementedError

    def count(self, batch: FlowBatch) -> None:
        if batch.told:
            self.requests(batch)

    def requests(self, batch: FlowBatch) -> None:
        raise NotImplementedError

    def tidy(self) -> None:
        for each in self.parts:
            each.tidy()


def _counter(name: str, help: str) -> Make:
    return lambda part, kit: SeriesCounter(f"{kit.prefix}_{name}", help, part, kit.most)


def _histogram(name: str, help: str) -> Make:
    return lambda part, kit: SeriesHistogram(f"{kit.prefix}_{name}", help, part, kit.most)


def _put(part: _Part, batch: FlowBatch, places: Sequence[int], texts: Sequence[Texts]) -> Ids:
    """Counts; the ends as they are in the records."""
    where: Places = np.array(places, np.intp)
    keys = part.keys(batch, where, part.numbered(texts))
    (family,) = part.families
    assert isinstance(family, SeriesCounter)
    family.count(keys, batch.now)
    return keys


def _keys_by_client(part: _Part, batch: FlowBatch, places: Sequence[int], texts: Sequence[Texts]) -> Ids:
    """With who asks as the source, also where the record is of an answer."""
    where: Places = np.array(places, np.intp)
    own = part.numbered(texts)
    keys = part.keys(batch, where, own)
    replies = batch.reply[where]
    if replies.any():
        keys[replies] = part.keys(batch, where[replies], own[replies], turned=True)
    return keys


class Dns(RequestMetric):
    def made(self) -> Iterable[tuple[Sequence[str], Make]]:
        query = ("query",) if self.setting.is_set("query") else ()
        own = ("rcode", "qtypes", "ips_returned", *query)
        yield (own, _counter("dns_queries_total", "Number of DNS queries observed"))
        yield (own, _counter("dns_responses_total", "Number of DNS responses observed"))
        types = _counter("dns_response_types_total", "Number of DNS responses by type of their records")
        yield (("type", "qtypes", *query), types)

    def requests(self, batch: FlowBatch) -> None:
        asked: list[tuple[int, Texts]] = []
        answered: list[tuple[int, Texts]] = []
        kinds: list[tuple[int, Texts]] = []
        for place, event in enumerate(batch.told):
            dns = event.dns
            if dns is None or (self.setting.is_set("ignoreaaaa") and dns.qtypes == ("AAAA",)):
                continue
            qtypes, query = ",".join(dns.qtypes), ((dns.query,) if self.setting.is_set("query") else ())
            if event.verdict == Verdict.DROPPED.name:
                asked.append((place, ("Policy denied", qtypes, str(len(dns.ips)), *query)))
            elif event.type != "RESPONSE":
                asked.append((place, ("", qtypes, str(len(dns.ips)), *query)))
            else:
                rcode = RCODES.get(dns.rcode, str(dns.rcode)) if dns.rcode else "No Error"
                answered.append((place, (rcode, qtypes, str(len(dns.ips)), *query)))
                kinds.extend((place, (kind, qtypes, *query)) for kind in dns.rrtypes)
        for part, found in zip(self.parts, (asked, answered, kinds), strict=True):
            if found:
                _put(part, batch, *zip(*found, strict=True))


class Http(RequestMetric):
    """``http``: requests and responses apart; ``httpV2``: requests with the status of their response."""

    second: ClassVar[bool] = False

    def made(self) -> Iterable[tuple[Sequence[str], Make]]:
        status = ("status",) if self.second else ()
        requests = _counter("http_requests_total", "Count of HTTP requests")
        yield (("method", "protocol", *status, "reporter"), requests)
        took = _histogram("http_request_duration_seconds", "HTTP request duration in seconds")
        yield (("method", "reporter"), took)
        if not self.second:
            responses = _counter("http_responses_total", "Count of HTTP responses")
            yield (("method", "protocol", "status", "reporter"), responses)

    def requests(self, batch: FlowBatch) -> None:
        requests, durations, *responses = self.parts
        answers: list[int] = []
        all_: list[int] = []
        for place, event in enumerate(batch.told):
            if event.http is None:
                continue
            all_.append(place)
            if event.type == "RESPONSE":
                answers.append(place)
        told = batch.told
        counted = answers if self.second else all_
        if counted:
            texts = [_http(told[place], self.second) for place in counted]
            keys = _keys_by_client(requests, batch, counted, texts)
            (counter,) = requests.families
            assert isinstance(counter, SeriesCounter)
            counter.count(keys, batch.now)
            for key, place in zip(keys.tolist(), counted, strict=True):
                if (example := self._exemplar(told[place], 1)) is not None:
                    counter.mark(key, example)
        if answers:
            for each in responses:
                _put(each, batch, answers, [_http(told[place], True) for place in answers])
            texts = [(_http(told[place], False)[0], _reporter(told[place])) for place in answers]
            seconds = np.array([told[place].latency_ns for place in answers]) / 1e9
            (took,) = durations.families
            assert isinstance(took, SeriesHistogram)
            examples = [self._exemplar(told[p], float(s)) for p, s in zip(answers, seconds, strict=True)]
            took.observe(_keys_by_client(durations, batch, answers, texts), seconds, batch.now, examples)

    def _exemplar(self, event: L7Event, value: float) -> Exemplar | None:
        if not self.setting.is_set("exemplars") or event.http is None:
            return None
        trace = trace_id(event.http.headers)
        return Exemplar(labelled(("traceID",), (trace,)), value, event.time / 1e9) if trace else None


class HttpV2(Http):
    second = True


def _http(event: L7Event, status: bool) -> Texts:
    http = event.http
    assert http is not None
    code = (str(http.code),) if status else ()
    return (http.method, http.protocol, *code, _reporter(event))


def _reporter(event: L7Event) -> str:
    return _REPORTERS.get(event.direction, "unknown")


def trace_id(headers: Iterable[tuple[str, str]]) -> str:
    """Of the header ``traceparent`` (W3C Trace Context); empty where there is none that is one."""
    for name, value in headers:
        if name.lower() == "traceparent":
            version, _, rest = value.partition("-")
            trace = rest.partition("-")[0]
            valid = len(version) == 2 and len(trace) == 32 and set(trace) <= set("0123456789abcdef")
            return trace if valid and set(trace) != {"0"} else ""
    return ""


class Kafka(RequestMetric):
    def made(self) -> Iterable[tuple[Sequence[str], Make]]:
        requests = _counter("kafka_requests_total", "Count of Kafka requests")
        yield (("topic", "api_key", "error_code", "reporter"), requests)
        took = _histogram("kafka_request_duration_seconds", "Kafka request duration in seconds")
        yield (("topic", "api_key", "reporter"), took)

    def requests(self, batch: FlowBatch) -> None:
        told = batch.told
        found = [(place, event, event.kafka) for place, event in enumerate(told) if event.kafka]
        if not found:
            return
        requests, durations = self.parts
        places = [place for place, _, _ in found]
        texts = [(k.topic, k.api_key, str(k.error_code), _reporter(event)) for _, event, k in found]
        (counter,), (took,) = requests.families, durations.families
        assert isinstance(counter, SeriesCounter)
        assert isinstance(took, SeriesHistogram)
        counter.count(_keys_by_client(requests, batch, places, texts), batch.now)
        answers = [each for each in found if each[1].type == "RESPONSE"]
        if answers:
            texts_ = [(k.topic, k.api_key, _reporter(event)) for _, event, k in answers]
            seconds = np.array([event.latency_ns for _, event, _ in answers]) / 1e9
            keys = _keys_by_client(durations, batch, [place for place, _, _ in answers], texts_)
            took.observe(keys, seconds, batch.now)


#: By name of the setting.
KINDS: Final[dict[str, type[FlowMetric]]] = {
    "dns": Dns,
    "drop": Drop,
    "flow": Flow,
    "flows-to-world": FlowsToWorld,
    "http": Http,
    "httpV2": HttpV2,
    "icmp": Icmp,
    "kafka": Kafka,
    "policy": Policy,
    "port-distribution": PortDistribution,
    "tcp": Tcp,
    "tcp-health": TcpHealth,
}
