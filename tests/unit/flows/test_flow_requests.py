"""Requests that proxies tell of: joined with their connections, kept, filtered, shown."""

from __future__ import annotations

from datetime import UTC
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from axoneme.datapath.schema import Schema
from axoneme.flows import render
from axoneme.flows.encode import Encoder
from axoneme.flows.events import Mask, Records, Verdict, Vocabulary, record_dtype
from axoneme.flows.expiry import FlowTable
from axoneme.flows.filters import Matcher
from axoneme.flows.flow import Flow, Layer7
from axoneme.flows.flowfilter import FilterError, FlowFilter
from axoneme.flows.ingest import Ingest
from axoneme.flows.joining import join
from axoneme.flows.names import End, Names
from axoneme.flows.requests import Requests
from axoneme.flows.rules import RuleJournal
from axoneme.flows.servicenames import ServiceNames
from axoneme.flows.store import FlowStore
from axoneme.identity.prefixes import address_bytes
from axoneme.model.l7event import DNSEvent, HTTPEvent, KafkaEvent, L7Event
from axoneme.model.policy import PolicyRef

SCHEMA = Schema.load()
VOCABULARY = Vocabulary.read(SCHEMA.struct("event"), SCHEMA.enums)
MEANING = FlowTable.read(SCHEMA.enums, [10] * 8)
NOW, OFFSET = 10_000_000_000, 1_700_000_000_000_000_000
CLIENT, SERVER, WORLD = "10.0.0.1", "10.0.0.2", "192.0.2.7"
RULES = {7: (PolicyRef("CiliumNetworkPolicy", "shop", "l7"),), 8: (PolicyRef("NetworkPolicy", "shop", "in"),)}


class Table:
    """A flow table with the entries that a test has put there."""

    def __init__(self) -> None:
        self.flow_key = SCHEMA.struct("flow_key")
        self.entries: dict[bytes, npt.NDArray[np.void]] = {}
        self.known = {address_bytes(CLIENT): 300, address_bytes(SERVER): 301, address_bytes(WORLD): 2}

    def put(self, low: str, high: str, ports: tuple[int, int], from_low: bool, protocol: int = 6) -> Any:
        """The entry, to fill in; the ends as the datapath has ordered them."""
        key, flow = np.zeros(1, self.flow_key), np.zeros(1, SCHEMA.struct("flow"))
        key["low"], key["high"] = (np.frombuffer(address_bytes(each), np.uint8) for each in (low, high))
        key["low_port"], key["high_port"], key["protocol"] = *ports, protocol
        flow["flags"] = MEANING.from_low if from_low else 0
        flow["source_identity"], flow["destination_identity"] = 300, 301
        flow["egress_rule"], flow["ingress_rule"], flow["proxy_port"] = 7, 8, 10001
        self.entries[key.tobytes()] = flow
        return flow

    def connections(self, keys: npt.NDArray[np.void]) -> tuple[Mask, npt.NDArray[np.void]]:
        found = np.array([key.tobytes() in self.entries for key in keys])
        empty = np.zeros(1, SCHEMA.struct("flow"))
        return found, np.concatenate([self.entries.get(key.tobytes(), empty) for key in keys])

    def identities(self, addresses: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
        return np.array([self.known.get(each.tobytes(), 0) for each in addresses], np.uint32)


def told(**fields: Any) -> L7Event:
    values: dict[str, Any] = {
        "time": OFFSET + NOW - 5,
        "direction": "egress",
        "protocol": "TCP",
        "source": CLIENT,
        "source_port": 40000,
        "destination": SERVER,
        "destination_port": 80,
        "type": "REQUEST",
        "verdict": "FORWARDED",
    }
    return L7Event(**(values | fields))


def http(url: str = "http://web/a?b=c", code: int = 0, **fields: Any) -> HTTPEvent:
    return HTTPEvent(**({"method": "GET", "url": url, "protocol": "HTTP/1.1", "code": code} | fields))


class Kept:
    """A flow server's memory of some events."""

    def __init__(self, *events: L7Event, table: Table | None = None) -> None:
        self.names = Names(VOCABULARY.reserved, VOCABULARY.first_local)
        for address, pod in ((CLIENT, "client"), (SERVER, "web-1")):
            self.names.put(pod, [address_bytes(address)], End((), "shop", pod))
        self.requests = Requests()
        self.store = FlowStore(record_dtype(VOCABULARY.event), 64, 64)
        journal = RuleJournal(Path("/nonexistent"))
        joined = join(events, table or Table(), MEANING, VOCABULARY, NOW, OFFSET)
        Ingest(self.store, self.names, journal, self.requests, VOCABULARY).requests(joined, OFFSET)
        self.malformed = joined.malformed

    @property
    def records(self) -> Records:
        return self.store.read(self.store.beginning(), 1000).records

    def flows(self, *wanted: FlowFilter) -> list[Flow]:
        encoder = Encoder(self.names, RULES.get, ServiceNames(), self.requests, "n1", VOCABULARY)
        matcher = Matcher(
            wanted,
            [],
            names=self.names,
            services=ServiceNames(),
            requests=self.requests,
            node="n1",
            vocabulary=VOCABULARY,
        )
        return encoder.flows(self.records[matcher.mask(self.records)])


def shown(*wanted: FlowFilter) -> list[str]:
    """Summaries of those that a filter lets through."""
    kept = Kept(
        told(http=http("http://web/a?b=c")),
        told(type="RESPONSE", latency_ns=3_400_000, http=http("http://web/v1/x", 503, method="PUT")),
        told(protocol="UDP", destination_port=53, dns=DNSEvent("web.shop.svc.", ("A",))),
        told(verdict="DROPPED", kafka=KafkaEvent("produce", 9, 4, "secrets")),
    )
    return [flow.Summary for flow in kept.flows(*wanted)]


def test_a_request_says_all_that_is_known_of_its_connection() -> None:
    table = Table()
    table.put(CLIENT, SERVER, (40000, 80), True)
    (flow,) = Kept(told(http=http(code=200, headers=(("Host", "web"),))), table=table).flows()
    assert (flow.Type, flow.verdict, flow.event) == ("L7", "FORWARDED", "request")
    assert flow.event_type is not None and flow.event_type.type == 129
    assert flow.l7 is not None and flow.l7.http is not None
    assert (flow.l7.http.headers[0].key, flow.l7.http.headers[0].value) == ("Host", "web")
    assert (flow.source.pod_name, flow.source.identity) == ("client", 300)
    assert (flow.destination.pod_name, flow.destination.identity) == ("web-1", 301)
    assert (flow.egress_allowed_by[0].name, flow.ingress_allowed_by[0].name) == ("l7", "in")
    assert (flow.proxy_port, flow.traffic_direction, flow.is_reply) == (10001, "EGRESS", False)
    assert flow.time.endswith("9.999999995Z")


def test_an_answer_comes_from_who_answers_and_is_shown_with_the_client_in_front() -> None:
    table = Table()
    table.put(CLIENT, SERVER, (40000, 80), True)
    answer = told(type="RESPONSE", latency_ns=3_400_000, direction="ingress", http=http(code=200))
    (flow,) = Kept(answer, table=table).flows()
    assert (flow.source.pod_name, flow.destination.pod_name) == ("web-1", "client")
    assert flow.is_reply
    assert flow.l4.TCP is not None
    assert (flow.l4.TCP.source_port, flow.l4.TCP.destination_port) == (80, 40000)
    assert (flow.egress_allowed_by[0].name, flow.ingress_allowed_by[0].name) == ("l7", "in")
    assert render.compact(flow, UTC) == (
        "Nov 14 22:13:29.999 n1: shop/client:40000 (ID:300) <- shop/web-1:80 (ID:301) http-response"
        " HTTP/1.1 200 3ms (GET http://web/a?b=c) FORWARDED"
        " (egress allowed by CiliumNetworkPolicy shop/l7; ingress allowed by NetworkPolicy shop/in)"
    )


def test_what_clients_say_does_nothing_to_a_terminal() -> None:
    (flow,) = Kept(told(kafka=KafkaEvent("produce", 9, 4, "a\x1b[2J\n\u202eb"))).flows()
    table = render.Table(UTC)
    for shown in (render.compact(flow, UTC), *render.block(flow).split("\n"), table.line(flow)):
        assert shown.isprintable()
    assert r"topic 'a\x1b[2J\n\u202eb'" in render.compact(flow, UTC)


@pytest.mark.parametrize(
    ("direction", "denied", "allowed"), [("egress", "l7", "in"), ("ingress", "in", "l7")]
)
@pytest.mark.parametrize("verdict", ["DROPPED", "AUDIT"])
def test_a_refusal_names_the_policies_that_sent_it_to_the_proxy(
    direction: str, denied: str, allowed: str, verdict: str
) -> None:
    table = Table()
    table.put(CLIENT, SERVER, (40000, 80), True)
    refused = told(verdict=verdict, direction=direction, reason="no rule", http=http(code=403))
    kept = Kept(refused, table=table)
    (flow,) = kept.flows(FlowFilter(verdict=(verdict,)))
    by = {
        "egress": (flow.egress_denied_by, flow.egress_allowed_by),
        "ingress": (flow.ingress_denied_by, flow.ingress_allowed_by),
    }
    assert [policy.name for policy in by[direction][0]] == [denied]
    assert not by[direction][1]
    other = "ingress" if direction == "egress" else "egress"
    assert [policy.name for policy in by[other][1]] == [allowed]
    assert len(kept.store.drops) == (verdict == "DROPPED")  # where nothing that passed can displace it
    assert f"[no rule] {verdict}" in render.compact(flow, UTC)


def test_what_came_over_a_connection_that_is_only_tried_is_tried_too() -> None:
    table = Table()
    table.put(CLIENT, SERVER, (40000, 80), True)["shadow"] = MEANING.shadow_ingress
    (flow,) = Kept(told(direction="egress", http=http()), table=table).flows()
    assert flow.verdict == "AUDIT"
    assert ([p.name for p in flow.ingress_denied_by], [p.name for p in flow.egress_allowed_by]) == (
        ["in"],
        ["l7"],
    )


def test_without_an_entry_the_addresses_say_who_it_was() -> None:
    (flow,) = Kept(told(destination=WORLD, http=http())).flows()
    assert (flow.source.identity, flow.destination.identity) == (300, 2)
    assert flow.destination.labels == ("reserved:world",)
    assert flow.proxy_port == 0
    assert not flow.egress_allowed_by


@given(st.booleans(), st.booleans(), st.integers(1, 65535), st.integers(1, 65535))
def test_the_entry_is_found_whichever_end_is_the_lower(v6: bool, turned: bool, one: int, other: int) -> None:
    ends = ("fd00::1", "fd00::2") if v6 else (CLIENT, SERVER)
    source, destination = reversed(ends) if turned else ends
    calls = np.zeros(1, VOCABULARY.event)
    calls["source"], calls["destination"] = (
        np.frombuffer(address_bytes(each), np.uint8) for each in (source, destination)
    )
    calls["source_port"], calls["destination_port"], calls["protocol"] = one, other, 6
    (key,) = MEANING.tuples(calls, SCHEMA.struct("flow_key"))
    assert (key["low"].tobytes(), key["high"].tobytes()) == tuple(map(address_bytes, ends))
    assert (key["low_port"], key["high_port"]) == ((other, one) if turned else (one, other))
    back = calls.copy()
    for name in ("", "_port"):
        back[f"source{name}"], back[f"destination{name}"] = (
            calls[f"destination{name}"],
            calls[f"source{name}"],
        )
    assert MEANING.tuples(back, SCHEMA.struct("flow_key"))[0] == key


def test_nonsense_from_a_proxy_is_counted_and_cannot_move_time() -> None:
    kept = Kept(told(source="nobody"), told(time=1 << 62, http=http()), told(time=0, verdict="?"))
    assert kept.malformed == 1
    assert kept.records["time"].tolist() == [max(0, NOW - 60_000_000_000), NOW]
    assert [flow.verdict for flow in kept.flows()] == ["VERDICT_UNKNOWN", "FORWARDED"]


def test_texts_are_as_hubble_writes_them() -> None:
    answers = (
        DNSEvent("a.b.", ("A",), ips=("192.0.2.1", "192.0.2.2"), ttl=30, cnames=("c.",)),
        DNSEvent("a.b.", ("AAAA",), rcode=3),
    )
    assert [
        flow.Summary for flow in Kept(*(told(type="RESPONSE", dns=answer) for answer in answers)).flows()
    ] == [
        'DNS Answer "192.0.2.1,192.0.2.2" CNAMEs: "c." TTL: 30 (Proxy a.b. A)',
        "DNS Answer RCode: Non-Existent Domain TTL: 0 (Proxy a.b. AAAA)",
    ]
    (flow,) = Kept(told(server_name="db.example")).flows()
    assert flow.Summary == "TLS db.example"


HTTP, PUT = "HTTP/1.1 GET http://web/a?b=c", "HTTP/1.1 503 3ms (PUT http://web/v1/x)"
DNS, KAFKA = "DNS Query web.shop.svc. A", "Kafka produce correlation id 4 topic 'secrets'"


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (FlowFilter(type=("l7",)), [HTTP, PUT, DNS, KAFKA]),
        (FlowFilter(type=("drop", "trace")), []),
        (FlowFilter(protocol=("http",)), [HTTP, PUT]),
        (FlowFilter(protocol=("dns", "kafka")), [DNS, KAFKA]),
        (FlowFilter(protocol=("udp", "kafka")), [DNS, KAFKA]),
        (FlowFilter(http_status=("5+",)), [PUT]),
        (FlowFilter(http_status=("404", "50+")), [PUT]),
        (FlowFilter(http_status=("404",)), []),
        (FlowFilter(http_method=("get",)), [HTTP]),
        (FlowFilter(http_path=("^/a$", "nothing")), [HTTP]),
        (FlowFilter(http_url=("b=c",)), [HTTP]),
        (FlowFilter(http_path=("b=c",)), []),
        (FlowFilter(dns_query=(r"\.shop\.",)), [DNS]),
        (FlowFilter(kafka_topic=("^sec",)), [KAFKA]),
        (FlowFilter(event=("response",)), [PUT]),
        (FlowFilter(event=("request",), verdict=("DROPPED",)), [KAFKA]),
        (FlowFilter(to_pod=("shop/web",), protocol=("http",)), [HTTP]),
        (FlowFilter(reason=(1,)), []),
    ],
)
def test_filters(wanted: FlowFilter, found: list[str]) -> None:
    # Of one time, what passed comes first.
    assert shown(wanted) == found


def test_headers_are_asked_for_by_name_and_value() -> None:
    kept = Kept(told(http=http(headers=(("X-Request-Id", "1"),))), told(http=http()))
    assert len(kept.flows(FlowFilter(http_header=("x-request-id: 1",)))) == 1
    assert not kept.flows(FlowFilter(http_header=("x-request-id:2",)))


@pytest.mark.parametrize(
    "wanted",
    [
        FlowFilter(http_status=("x",)),
        FlowFilter(http_status=("5*",)),
        FlowFilter(http_path=("(",)),
        FlowFilter(http_header=("x",)),
        FlowFilter(type=("sock",)),
    ],
)
def test_what_means_nothing_is_refused(wanted: FlowFilter) -> None:
    with pytest.raises(FilterError):
        Kept().flows(wanted)


def test_texts_are_bounded_and_what_passed_displaces_no_refusal() -> None:
    kept = Requests(most=8, size=2000)
    refused = kept.put(Layer7("REQUEST", reason="first"), refused=True)
    numbers = [kept.put(Layer7("REQUEST", server_name="x" * 500), refused=False) for _ in range(100)]
    assert sum(kept.get(number) is not None for number in numbers) == 3
    assert kept.get(numbers[-1]) == Layer7("REQUEST", server_name="x" * 500)
    assert kept.get(refused) == Layer7("REQUEST", reason="first")
    small = [kept.put(Layer7("REQUEST"), refused=False) for _ in range(100)]
    assert sum(kept.get(number) is not None for number in small) == 8
    assert len(set(numbers + small + [refused])) == 201


def test_a_request_whose_text_had_to_go_is_still_a_flow() -> None:
    kept = Kept(told(type="RESPONSE", http=http()))
    kept.requests = Requests()
    (flow,) = kept.flows()
    assert flow.l7 == Layer7("RESPONSE")
    assert flow.verdict == Verdict.FORWARDED.name
