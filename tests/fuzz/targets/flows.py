"""Events as they come out of the rings, and what readers of flows ask."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from axoneme.datapath.schema import Schema
from axoneme.edges.recorded import record
from axoneme.flows import render
from axoneme.flows.encode import Encoder
from axoneme.flows.events import L7, Vocabulary, record_dtype
from axoneme.flows.expiry import FlowTable
from axoneme.flows.filters import Matcher
from axoneme.flows.flow import ObserveRequest
from axoneme.flows.flowfilter import FilterError
from axoneme.flows.ingest import Ingest
from axoneme.flows.joining import Joined, join
from axoneme.flows.names import End, Names
from axoneme.flows.requests import Requests
from axoneme.flows.rules import RuleJournal
from axoneme.flows.servicenames import ServiceNames
from axoneme.flows.store import FlowStore
from axoneme.identity.prefixes import address_bytes
from axoneme.model.l7event import DNSEvent, HTTPEvent, KafkaEvent, L7Event, L7Report
from fuzz.target import Target, says_why

_SCHEMA = Schema.load()
_EVENT = _SCHEMA.struct("event")
_VOCABULARY = Vocabulary.read(_EVENT, _SCHEMA.enums)
_MEANING = FlowTable.read(_SCHEMA.enums, [10] * 8)
_ABSENT = Path(tempfile.gettempdir()) / "fuzz-no-such-journal"


def _names() -> Names:
    names = Names(_VOCABULARY.reserved, _VOCABULARY.first_local)
    pod = End(("k8s:app=web",), "shop", "web-0", "Deployment", "web", "n")
    names.put("state/endpoints/n/1", [address_bytes("10.0.0.1")], pod)
    return names


def _events() -> Iterable[bytes]:
    one = np.zeros(3, _EVENT)
    one["time"], one["kind"], one["protocol"] = [5, 4, 6], [1, 2, 3], 6
    one["source"] = np.frombuffer(address_bytes("10.0.0.1"), np.uint8)
    one["destination"] = np.frombuffer(address_bytes("fd00::1"), np.uint8)
    one["source_identity"], one["reason"] = 300, [0, 0, 133]
    yield one.tobytes()
    yield b"\xff" * (2 * _EVENT.itemsize)


def check_events(data: bytes) -> None:
    """Whatever bits an event has, it becomes a flow that can be sent and filtered."""
    events: Any = np.frombuffer(data[: len(data) // _EVENT.itemsize * _EVENT.itemsize], _EVENT)
    names, journal, requests = _names(), RuleJournal(_ABSENT), Requests()
    store = FlowStore(record_dtype(_EVENT), 64, 64)
    ingest = Ingest(store, names, journal, requests, _VOCABULARY)
    ingest.flows(events, 1_700_000_000_000_000_000)
    ingest.drops(events, 1_700_000_000_000_000_000)
    encoder = Encoder(names, journal.refs, journal.services, requests, "n", _VOCABULARY)
    batch = store.read(store.beginning(), 1024, None)
    flows = list(encoder.flows(batch.records))
    assert len(flows) == len(batch.records) == 2 * min(64, len(events))
    for flow in flows:
        msgspec.json.decode(msgspec.json.encode(flow))


def _filters() -> Iterable[bytes]:
    values = {
        "verdict": ["DROPPED"], "pod": ["shop/web"], "namespace": ["shop"], "workload": ["deployment/web"],
        "label": ["app=web,!build"], "identity": ["world", 300], "ip": ["10.0.0.0/8", "::1"], "port": [80],
        "service": ["shop/web"], "protocol": ["tcp", 17], "node": ["n"], "reason": ["policy_denied", 133], "direction": ["ingress"],
        "event": ["drop", "request"], "type": ["l7"], "http_status": ["5+"], "http_method": ["get"], "http_path": ["^/b$"],
        "http_url": ["a.b"], "http_header": ["a: b"], "dns_query": ["a"], "kafka_topic": ["t"], "since": 1, "until": 1 << 62,
    }  # fmt: skip
    yield msgspec.json.encode({"filters": [values], "last": 5})
    for name, value in values.items():
        yield msgspec.json.encode(
            {"filters": [{name: value}], "not_filters": [{name: value}], "follow": True}
        )
    for name in ("label", "from_label"):
        for text in ("a in (b,c)", "a notin (b)", "!a", "a", "a!=b,c==d", "k8s:a=b"):
            yield msgspec.json.encode({"filters": [{name: [text]}]})


def check_filters(data: bytes) -> None:
    """A request is refused in words, or its filters work on every record."""
    try:
        request = msgspec.json.decode(data, type=ObserveRequest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    try:
        matcher = Matcher(
            request.filters,
            request.not_filters,
            names=_NAMES,
            services=ServiceNames(),
            requests=_REQUESTS,
            node="n",
            vocabulary=_VOCABULARY,
        )
    except FilterError as error:
        says_why(error)
        return
    assert matcher.mask(_RECORDS).shape == _RECORDS.shape


class _Nothing:
    """A flow table without entries."""

    flow_key = _SCHEMA.struct("flow_key")

    def connections(self, keys: Any) -> Any:
        return np.zeros(len(keys), np.bool_), np.zeros(len(keys), _SCHEMA.struct("flow"))

    def identities(self, addresses: Any) -> Any:
        return np.zeros(len(addresses), np.uint32)


def _reports() -> Iterable[bytes]:
    yield msgspec.json.encode(L7Report(tuple(_REPORT), 3))
    yield b'{"events":[]}'


def check_reports(data: bytes) -> None:
    """Whatever a proxy says is refused, or becomes flows that can be sent and shown."""
    try:
        report = msgspec.json.decode(data, type=L7Report)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    names, journal, requests = _names(), RuleJournal(_ABSENT), Requests()
    store = FlowStore(record_dtype(_EVENT), 64, 64)
    joined = join(report.events, _Nothing(), _MEANING, _VOCABULARY, 5_000_000_000, 1_700_000_000_000_000_000)
    Ingest(store, names, journal, requests, _VOCABULARY).requests(joined, 1_700_000_000_000_000_000)
    records = store.read(store.beginning(), 1024, None).records
    assert len(records) == min(len(report.events), 128) - joined.malformed or len(report.events) > 64
    encoder = Encoder(names, journal.refs, journal.services, requests, "n", _VOCABULARY)
    for flow in encoder.flows(records):
        msgspec.json.decode(msgspec.json.encode(flow))
        render.compact(flow)
        record([flow])


def _records() -> Any:
    store = FlowStore(record_dtype(_EVENT), 64, 64)
    ingest = Ingest(store, _NAMES, RuleJournal(_ABSENT), _REQUESTS, _VOCABULARY)
    for raw in _events():
        ingest.flows(np.frombuffer(raw, _EVENT), 0)
    ingest.requests(Joined(_REPORT, _l7_events(len(_REPORT)), 0), 0)
    return store.read(store.beginning(), 1024, None).records


def _l7_events(count: int) -> Any:
    events = np.zeros(count, _EVENT)
    events["kind"], events["time"], events["reason"] = L7, 10, 1
    return events


_ENDS = ("10.0.0.1", 1, "10.0.0.2", 2, "REQUEST", "FORWARDED")
_REPORT = [
    L7Event(
        1, "egress", "TCP", *_ENDS, http=HTTPEvent("GET", "http://a/b?c#d", "HTTP/1.1", 200, (("A", "b"),))
    ),
    L7Event(1, "egress", "UDP", *_ENDS, dns=DNSEvent("a.b.", ("A",))),
    L7Event(1, "ingress", "TCP", *_ENDS, kafka=KafkaEvent("fetch", 3, 4, "t")),
]
_REQUESTS = Requests()
_NAMES = _names()
_RECORDS = _records()

TARGETS = [
    Target("flow-events", check_events, _events),
    Target("flow-filters", check_filters, _filters, json=True),
    Target("l7-reports", check_reports, _reports, json=True),
]
