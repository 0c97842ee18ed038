"""Metrics from flow records: which series, with which labels, how many, and for how long."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from axoneme.flows.events import L7, Verdict
from axoneme.flows.names import End, Names
from axoneme.identity.prefixes import address_bytes
from axoneme.metrics.families import Family
from axoneme.metrics.flowmetrics import GRACE, FlowMetrics
from axoneme.metrics.flowoptions import DEFAULT, Setting, settings
from axoneme.metrics.requestkinds import trace_id
from axoneme.metrics.series import IDLE
from axoneme.model.l7event import DNSEvent, HTTPEvent, KafkaEvent, L7Event
from unit.flows.records import (
    DEFAULT_DENY,
    DENY,
    DROP,
    END,
    INGRESS,
    INVALID_SOURCE,
    REPLY,
    VOCABULARY,
    event,
    events,
    records,
    some_names,
)

SYN, FIN, RST = 2, 1, 4
WEB, DB = End(("k8s:app=web", "k8s:x=y"), "shop", "web-1", "Deployment", "web", "n1"), End((), "shop", "db-0")
SERVER, CLIENT = "10.0.0.2", "10.0.0.1"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class World:
    def __init__(self, *texts: str, most: int = 1000) -> None:
        self.names = some_names()
        self.names.put("endpoints/n1/1", [address_bytes(CLIENT)], WEB)
        self.names.put("endpoints/n1/2", [address_bytes(SERVER)], DB)
        self.clock = Clock()
        self.metrics = FlowMetrics(
            settings(texts), self.names, VOCABULARY, self.names.has_pod, most=most, clock=self.clock
        )

    def tell(self, *made: Any, told: Sequence[L7Event] = ()) -> None:
        self.metrics.add(records(*made, names=self.names), told)

    def series(self, name: str) -> dict[frozenset[tuple[str, str]], float]:
        """By labels."""
        return {frozenset(labels): value for labels, value in values(self.metrics.families(), name)}

    def one(self, name: str) -> tuple[dict[str, str], float]:
        ((labels, value),) = self.series(name).items()
        return dict(labels), value


def values(families: Any, name: str) -> list[tuple[list[tuple[str, str]], float]]:
    found = []
    for family in families:
        assert isinstance(family, Family)
        for line in family.lines(exemplars=False):
            head, _, value = line.rpartition(" ")
            called, _, labels = head.partition("{")
            if called == name:
                pairs = [part.partition("=") for part in labels.rstrip("}").split('",') if part]
                found.append(([(key, text.strip('"')) for key, _, text in pairs], float(value)))
    return found


def request(
    kind: str = "RESPONSE", verdict: str = "FORWARDED", latency: int = 30_000_000, **what: Any
) -> L7Event:
    return L7Event(5 * 10**9, "ingress", "TCP", CLIENT, 40000, SERVER, 80, kind, verdict, "", latency, **what)


def of_request(told: L7Event) -> Any:
    """Its event, as `axoneme.flows.joining` makes it."""
    answer = told.type == "RESPONSE"
    ends = {"source": SERVER, "destination": CLIENT} if answer else {}
    flags = (REPLY if answer else 0) | (INGRESS if told.direction == "ingress" else 0)
    return event(kind=L7, reason=int(Verdict[told.verdict]), flags=flags, **ends)


# ---- what is counted -----------------------------------------------------------------------------


def test_drops_by_reason_and_protocol() -> None:
    world = World("drop:sourceContext=pod;destinationContext=workload|pod-name")
    world.tell(*(event(kind=DROP, reason=DEFAULT_DENY) for _ in range(3)), event())
    world.tell(event(kind=DROP, reason=INVALID_SOURCE, protocol=17, source="192.0.2.1", source_identity=2))
    told = request(kind="REQUEST", verdict="DROPPED", http=HTTPEvent("GET", "/", "HTTP/1.1"))
    world.tell(of_request(told), told=[told])
    ends = {("source", "shop/web-1"), ("destination", "db-0")}
    outside = {("source", ""), ("destination", "db-0")}
    assert world.series("hubble_drop_total") == {
        frozenset(ends | {("reason", "POLICY_DENIED"), ("protocol", "TCP")}): 3,
        frozenset(outside | {("reason", "INVALID_SOURCE_IP"), ("protocol", "UDP")}): 1,
        frozenset(ends | {("reason", "DROP_REASON_UNKNOWN"), ("protocol", "HTTP")}): 1,
    }


def test_flows_by_type_and_verdict() -> None:
    world = World("flow")
    world.tell(
        event(egress_rule=7),
        event(kind=END, destination_endpoint=4),
        event(kind=END),
        event(kind=DROP, reason=DENY, protocol=58),
    )
    told = [request(dns=DNSEvent("a.")), request(kafka=KafkaEvent("fetch", 1, 2))]
    world.tell(*map(of_request, told), told=told)
    found = {
        tuple(dict(labels)[key] for key in ("protocol", "type", "subtype", "verdict")): value
        for labels, value in world.series("hubble_flows_processed_total").items()
    }
    assert found == {
        ("TCP", "PolicyVerdict", "", "FORWARDED"): 1,
        ("TCP", "Trace", "to-endpoint", "FORWARDED"): 1,
        ("TCP", "Trace", "to-network", "FORWARDED"): 1,
        ("ICMPv6", "Drop", "", "DROPPED"): 1,
        ("DNS", "L7", "DNS", "FORWARDED"): 1,
        ("Kafka", "L7", "Kafka", "FORWARDED"): 1,
    }


def test_flags_of_an_answer_have_who_answers_as_their_source() -> None:
    world = World("tcp:sourceContext=pod-name;destinationContext=pod-name")
    world.tell(event(tcp_flags=SYN))  # has only begun
    world.tell(event(kind=END, tcp_flags=SYN | FIN, packets=(3, 2)))
    world.tell(event(kind=END, tcp_flags=SYN, packets=(3, 0)))  # nobody answered
    world.tell(event(kind=END, tcp_flags=SYN | RST, packets=(1, 1), source="fd00::1", source_identity=2))
    there, back = (
        {("source", "web-1"), ("destination", "db-0")},
        {("source", "db-0"), ("destination", "web-1")},
    )
    six = {("source", ""), ("destination", "db-0"), ("family", "IPv6")}
    four = ("family", "IPv4")
    assert world.series("hubble_tcp_flags_total") == {
        frozenset(there | {("flag", "SYN"), four}): 2,
        frozenset(back | {("flag", "SYN-ACK"), four}): 1,
        frozenset(there | {("flag", "FIN"), four}): 1,
        frozenset(six | {("flag", "SYN")}): 1,
        frozenset({("source", "db-0"), ("destination", ""), ("family", "IPv6"), ("flag", "SYN-ACK")}): 1,
        frozenset(six | {("flag", "RST")}): 1,
    }


def test_how_connections_fared() -> None:
    world = World("tcp-health:sourceContext=pod-name")
    world.tell(
        event(kind=END, handshake=300, rtt=1500, retransmissions=(2, 1)),
        event(kind=END, rtt=200_000),
        event(kind=END),  # nothing was measured
        event(),
    )
    assert world.one("axoneme_tcp_handshake_seconds_count") == ({"source": "web-1"}, 1)
    assert world.one("axoneme_tcp_rtt_seconds_sum")[1] == pytest.approx(0.2015)
    assert world.one("axoneme_tcp_retransmissions_total") == ({"source": "web-1"}, 3)


def test_echoes_and_their_replies() -> None:
    world = World("icmp")
    world.tell(
        event(kind=END, protocol=1, icmp_type=8, packets=(1, 1)),
        event(kind=END, protocol=58, icmp_type=128, packets=(1, 0)),
        event(kind=DROP, reason=DENY, protocol=1, icmp_type=8),
    )
    found = {(dict(k)["family"], dict(k)["type"]): v for k, v in world.series("hubble_icmp_total").items()}
    assert found == {("IPv4", "EchoRequest"): 2, ("IPv4", "EchoReply"): 1, ("IPv6", "EchoRequest"): 1}


def test_ports_count_connections_that_begin() -> None:
    world = World("port-distribution")
    world.tell(
        event(), event(destination_port=53, protocol=17), event(kind=END), event(kind=DROP, reason=DENY)
    )
    found = {
        (dict(k)["protocol"], dict(k)["port"]): v
        for k, v in world.series("hubble_port_distribution_total").items()
    }
    assert found == {("TCP", "80"): 1, ("UDP", "53"): 1}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", {("FORWARDED", ""): 2, ("DROPPED", ""): 1}),
        ("any-drop", {("FORWARDED", ""): 2, ("DROPPED", ""): 2}),
        ("port;syn-only", {("FORWARDED", "443"): 1}),
    ],
)
def test_ways_to_the_world(options: str, expected: dict[tuple[str, str], int]) -> None:
    world = World(f"flows-to-world:{options}")
    outside = {"destination": "192.0.2.1", "destination_identity": 2}
    world.tell(
        event(tcp_flags=SYN, destination_port=443, **outside),
        event(
            **{**outside, "destination_identity": 1 << 24}
        ),  # a prefix outside that has a number of its own
        event(),  # within the cluster
        event(kind=END, **outside),
        event(kind=DROP, reason=DEFAULT_DENY, **outside),
        event(kind=DROP, reason=INVALID_SOURCE, **outside),
    )
    found = {
        (dict(k)["verdict"], dict(k).get("port", "")): v
        for k, v in world.series("hubble_flows_to_world_total").items()
    }
    assert found == expected


def test_policy_verdicts_in_both_directions() -> None:
    world = World("policy")
    world.tell(
        event(egress_rule=1, ingress_rule=2),
        event(),  # nobody's policy
        event(kind=DROP, reason=DENY, flags=INGRESS),
        event(kind=DROP, reason=INVALID_SOURCE),
        event(source_identity=1, ingress_rule=2),  # the host
    )
    told = request(http=HTTPEvent("GET", "/", "HTTP/1.1", 200))
    world.tell(of_request(told), told=[told])
    found = {
        tuple(dict(labels)[key] for key in ("direction", "match", "action")): value
        for labels, value in world.series("hubble_policy_verdicts_total").items()
    }
    assert found == {
        ("egress", "unknown", "forwarded"): 1,
        ("ingress", "unknown", "forwarded"): 1,
        ("ingress", "none", "dropped"): 1,
        ("ingress", "l7/http", "forwarded"): 1,
    }


# ---- requests ------------------------------------------------------------------------------------

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def test_requests_with_durations_and_exemplars() -> None:
    world = World(
        "httpV2:exemplars=true;sourceContext=pod-name;labelsContext=destination_pod,traffic_direction"
    )
    headers = (("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01"),)
    told = [
        request(http=HTTPEvent("GET", "/a", "HTTP/1.1", 200, headers)),
        request(http=HTTPEvent("GET", "/b", "HTTP/1.1", 200), latency=700_000_000),
        request(kind="REQUEST", verdict="DROPPED", http=HTTPEvent("PUT", "/c", "HTTP/1.1", 403)),
    ]
    world.tell(*map(of_request, told), told=told)
    labels, value = world.one("hubble_http_requests_total")
    assert value == 2
    assert labels == {
        "method": "GET",
        "protocol": "HTTP/1.1",
        "status": "200",
        "reporter": "server",
        "source": "web-1",  # who asked
        "destination_pod": "db-0",
        "traffic_direction": "ingress",
    }
    assert world.one("hubble_http_request_duration_seconds_sum")[1] == pytest.approx(0.73)
    buckets = {
        dict(k)["le"]: v for k, v in world.series("hubble_http_request_duration_seconds_bucket").items()
    }
    assert (buckets["0.025"], buckets["0.05"], buckets["0.5"], buckets["1.0"], buckets["+Inf"]) == (
        0,
        1,
        1,
        2,
        2,
    )
    lines = [line for family in world.metrics.families() for line in family.lines(exemplars=True)]
    marked = [line for line in lines if f'traceID="{TRACE}"' in line]
    assert [line.partition("{")[0] for line in marked] == [
        "hubble_http_requests_total",
        "hubble_http_request_duration_seconds_bucket",
    ]
    assert 'le="0.05"' in marked[1] and marked[1].endswith(" 0.03 5.000")


def test_the_first_form_has_responses_of_their_own() -> None:
    world = World("http")
    told = [
        request(http=HTTPEvent("GET", "/a", "HTTP/1.1", 200)),
        request(kind="REQUEST", verdict="DROPPED", http=HTTPEvent("GET", "/c", "HTTP/1.1", 403)),
    ]
    world.tell(*map(of_request, told), told=told)
    assert world.one("hubble_http_requests_total")[1] == 2
    assert world.one("hubble_http_responses_total")[0]["status"] == "200"


def test_names_that_were_asked_for() -> None:
    world = World("dns:query;ignoreAAAA;sourceContext=pod-name", "drop:destinationContext=dns|ip")
    told = [
        request(kind="REQUEST", dns=DNSEvent("www.example.com.", ("A",))),
        request(
            dns=DNSEvent(
                "www.example.com.", ("A",), 0, ("192.0.2.9",), 60, ("cdn.example.com.",), ("CNAME", "A")
            )
        ),
        request(dns=DNSEvent("no.example.com.", ("A",), 3)),
        request(dns=DNSEvent("www.example.com.", ("AAAA",))),
        request(kind="REQUEST", verdict="DROPPED", dns=DNSEvent("evil.example.", ("A",))),
    ]
    world.tell(*map(of_request, told), told=told)
    asked = {
        (dict(k)["query"], dict(k)["rcode"]): v for k, v in world.series("hubble_dns_queries_total").items()
    }
    assert asked == {("www.example.com.", ""): 1, ("evil.example.", "Policy denied"): 1}
    answers = {
        (dict(k)["rcode"], dict(k)["ips_returned"], dict(k)["source"]): v
        for k, v in world.series("hubble_dns_responses_total").items()
    }
    assert answers == {("No Error", "1", "db-0"): 1, ("Non-Existent Domain", "0", "db-0"): 1}
    types = {dict(k)["type"]: v for k, v in world.series("hubble_dns_response_types_total").items()}
    assert types == {"CNAME": 1, "A": 1}
    world.tell(
        event(kind=DROP, reason=DENY, destination="192.0.2.9", destination_identity=2),
        event(kind=DROP, reason=DENY, destination="192.0.2.10", destination_identity=2),
    )
    dropped = {dict(k)["destination"] for k in world.series("hubble_drop_total")}
    assert dropped == {SERVER, "www.example.com", "192.0.2.10"}  # the first: of the query that was denied


def test_kafka() -> None:
    world = World("kafka:sourceContext=pod-name")
    told = [
        request(kafka=KafkaEvent("produce", 9, 1, "orders")),
        request(kind="REQUEST", verdict="DROPPED", kafka=KafkaEvent("fetch", 9, 1, "secret", 29)),
    ]
    world.tell(*map(of_request, told), told=told)
    found = {
        (dict(k)["topic"], dict(k)["error_code"], dict(k)["source"]): v
        for k, v in world.series("hubble_kafka_requests_total").items()
    }
    assert found == {("orders", "0", "web-1"): 1, ("secret", "29", "web-1"): 1}
    assert world.one("hubble_kafka_request_duration_seconds_count")[1] == 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (f"00-{TRACE}-00f067aa0ba902b7-01", TRACE),
        (f"00-{'0' * 32}-00f067aa0ba902b7-01", ""),
        (f'00-{TRACE[:-1]}"-x', ""),
        ("", ""),
    ],
)
def test_ids_of_traces(value: str, expected: str) -> None:
    assert trace_id([("x", "y"), ("Traceparent", value)]) == expected


# ---- who it is -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("contexts", "expected"),
    [
        ("sourceContext=identity", {"source": "k8s:app=web,k8s:x=y"}),
        ("sourceContext=namespace", {"source": "shop"}),
        ("sourceContext=pod", {"source": "shop/web-1"}),
        ("sourceContext=ip", {"source": CLIENT}),
        ("sourceContext=dns|workload", {"source": "shop/web"}),
        ("sourceContext=app", {"source": "web"}),
        ("sourceContext=reserved-identity|workload-name", {"source": "web"}),
        ("sourceContext=pod;sourceEgressContext=namespace", {"source": "shop"}),
        ("sourceContext=pod;sourceIngressContext=namespace", {"source": "shop/web-1"}),
        ("destinationEgressContext=pod-name", {"destination": "db-0"}),
        ("destinationIngressContext=pod-name", {"destination": ""}),
        (
            "labelsContext=source_ip,source_workload_kind\\,source_namespace,traffic_direction",
            {
                "source_ip": CLIENT,
                "source_workload_kind": "Deployment",
                "source_namespace": "shop",
                "traffic_direction": "egress",
            },
        ),
    ],
)
def test_contexts(contexts: str, expected: dict[str, str]) -> None:
    world = World(f"drop:{contexts}")
    world.tell(event(kind=DROP, reason=DENY))
    labels, _ = world.one("hubble_drop_total")
    assert labels == {**expected, "reason": "POLICY_DENY", "protocol": "TCP"}


def test_fallbacks_take_the_address_only_of_those_without_a_name() -> None:
    world = World("drop:sourceContext=pod|ip")
    world.tell(
        event(kind=DROP, reason=DENY),
        *(event(kind=DROP, reason=DENY, source=f"192.0.2.{n}", source_identity=2) for n in (1, 2, 2)),
    )
    found = {dict(k)["source"]: v for k, v in world.series("hubble_drop_total").items()}
    assert found == {"shop/web-1": 1, "192.0.2.1": 1, "192.0.2.2": 2}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nonsense", "'nonsense' is none of the metrics dns, drop"),
        ("drop:query", "drop: there is no option 'query'"),
        ("drop:sourceContext=pods", "drop: sourceContext: 'pods' is none of identity, namespace"),
        ("drop:labelsContext=source_ips", "drop: labelsContext: 'source_ips' is none of source_ip"),
    ],
)
def test_settings_that_mean_nothing_are_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("(", r"\(")):
        Setting.parse(text)
    with pytest.raises(ValueError, match="asked for twice"):
        settings(("http", "httpV2"))


# ---- how many, and for how long ------------------------------------------------------------------


def test_the_series_of_a_pod_go_with_it() -> None:
    world = World("drop:sourceContext=pod;destinationContext=pod", "flow:labelsContext=source_pod", "policy")
    world.tell(event(kind=DROP, reason=DENY))
    world.tell(event(kind=DROP, reason=DENY, source=SERVER, destination=CLIENT))
    world.metrics.tidy()
    assert len(world.series("hubble_drop_total")) == len(world.series("hubble_flows_processed_total")) == 2
    world.names.forget("endpoints/n1/1")
    for seconds in (11, GRACE - 5):
        world.clock.now += seconds
        world.metrics.tidy()
        assert len(world.series("hubble_drop_total")) == 2  # a late scraper still sees what it did last
    world.clock.now += 11
    world.metrics.tidy()
    assert not world.series("hubble_drop_total")
    assert [dict(k)["source_pod"] for k in world.series("hubble_flows_processed_total")] == ["db-0"]
    assert world.one("hubble_policy_verdicts_total")[1] == 2  # it names no pod
    world.names.put("endpoints/n1/1", [address_bytes(CLIENT)], WEB)  # as a StatefulSet's comes back
    world.tell(event(kind=DROP, reason=DENY))
    assert world.one("hubble_drop_total")[1] == 1


def test_what_there_is_no_room_for_is_counted_together() -> None:
    world = World("port-distribution:sourceContext=ip", most=100)
    for port in range(1000):
        world.tell(event(destination_port=port + 1, source=f"10.1.0.{port % 250}"))
    found = world.series("hubble_port_distribution_total")
    assert len(found) == 101 and sum(found.values()) == 1000
    overflow = frozenset({("protocol", "TCP"), ("port", "overflow"), ("source", "overflow")})
    assert found[overflow] == 900
    assert world.one("axoneme_flow_metrics_overflow_total")[1] > 0
    world.clock.now += IDLE + 1
    world.tell(event(destination_port=5000, source="10.1.1.1"))
    fresh = frozenset({("protocol", "TCP"), ("port", "5000"), ("source", "10.1.1.1")})
    assert world.series("hubble_port_distribution_total")[fresh] == 1
    assert len(world.series("hubble_port_distribution_total")) < 100


def test_pods_of_one_name_have_one_series_which_goes_with_the_last() -> None:
    world = World("drop:sourceContext=pod-name")
    world.names.put("endpoints/n1/3", [address_bytes("10.0.0.3")], End((), "other", "web-1"))
    for source in (CLIENT, "10.0.0.3"):
        world.tell(event(kind=DROP, reason=DENY, source=source))
    samples = values(world.metrics.families(), "hubble_drop_total")
    assert len(samples) == 1 and samples[0][1] == 2, "Prometheus takes no two samples with the same labels"
    for key, left in (("endpoints/n1/1", 1), ("endpoints/n1/3", 0)):
        world.names.forget(key)
        for _ in range(2):
            world.clock.now += GRACE + 1
            world.metrics.tidy()
        assert len(world.series("hubble_drop_total")) == left


def test_addresses_that_anybody_can_make_up_have_a_bound() -> None:
    world = World("drop:sourceContext=ip", most=100)
    (parties,) = (each for each in world.metrics._parties.values() if each.side.names)

    def scan(network: int) -> None:
        made = [
            event(kind=DROP, reason=DENY, source=f"192.{network}.{each >> 8}.{each & 255}")
            for each in range(1000)
        ]
        world.tell(*made)
        world.metrics.count()

    scan(0)
    assert len(parties._known) <= 400
    world.tell(event(kind=DROP, reason=DENY))
    world.clock.now += IDLE + 1
    world.metrics.tidy()
    assert len(parties._known) <= 102, "those without a series are given up"
    world.tell(event(kind=DROP, reason=DENY))
    assert {"source": CLIENT} in [
        {key: text for key, text in labels if key == "source"} for labels in world.series("hubble_drop_total")
    ]
    scan(1)
    samples = values(world.metrics.families(), "hubble_drop_total")
    assert sum(value for _, value in samples) >= 1000
    assert len(samples) == len(world.series("hubble_drop_total")), "each has labels of its own"
    assert len(parties._known) <= 400


def test_texts_that_clients_choose_have_a_bound() -> None:
    world = World("dns:query", most=100)
    for round_ in range(20):
        told = [
            request(kind="REQUEST", dns=DNSEvent(f"{round_}-{n}.{'x' * 300}.", ("A",))) for n in range(100)
        ]
        world.tell(*map(of_request, told), told=told)
    found = world.series("hubble_dns_queries_total")
    assert len(found) == 101 and sum(found.values()) == 2000
    assert max(len(dict(k)["query"]) for k in found) <= 128
    world.metrics.tidy()


def test_thousands_of_pods_that_come_and_go_leave_nothing_behind() -> None:
    texts = [text for text in DEFAULT if not text.startswith("drop")]
    world = World("drop:sourceContext=pod;destinationContext=pod", *texts, most=5000)
    dice, alive = random.Random(7), []
    for n in range(5000):
        address, key = f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", f"endpoints/n1/{n + 10}"
        world.names.put(
            key, [address_bytes(address)], End((), "churn", f"pod-{n}", "Job", f"job-{n % 7}", "n1")
        )
        alive.append((key, address))
        world.tell(event(kind=DROP, reason=DENY, source=address), event(source=dice.choice(alive)[1]))
        if len(alive) > 50:
            world.names.forget(alive.pop(0)[0])
        if n % 20 == 19:
            world.clock.now += 20.0
            world.metrics.tidy()
        if n % 500 == 499:
            left = len(world.series("hubble_drop_total"))
            assert left <= 51 + GRACE + 40, n
    parties = world.metrics._parties.values()
    assert max(len(each._known) for each in parties) < 250
    assert len(world.series("hubble_flows_processed_total")) < 50  # by workload
    world.names.collect([])


def test_batches_of_any_size_count_the_same() -> None:
    dice = random.Random(3)
    made = [
        event(
            kind=dice.choice((1, END, DROP)),
            reason=dice.choice((DEFAULT_DENY, DENY, INVALID_SOURCE)),
            protocol=dice.choice((1, 6, 17)),
            source=dice.choice((CLIENT, SERVER, "192.0.2.1")),
            destination=dice.choice((CLIENT, SERVER)),
            flags=dice.choice((0, INGRESS)),
        )
        for _ in range(400)
    ]
    naive: Counter[tuple[str, str, int, int]] = Counter()
    pods = {CLIENT: "web-1", SERVER: "db-0", "192.0.2.1": ""}
    shown = {address_bytes(address): pod for address, pod in pods.items()}
    for each in made:
        if each["kind"][0] == DROP:
            ends = (shown[each[side][0].tobytes()] for side in ("source", "destination"))
            naive[(*ends, int(each["reason"][0]), int(each["protocol"][0]))] += 1  # type: ignore[index]
    for size in (1, 7, 400):
        world = World("drop:sourceContext=pod-name;destinationContext=pod-name")
        for at in range(0, len(made), size):
            world.tell(events(*made[at : at + size]))
        found: Counter[tuple[str, str, int, int]] = Counter()
        reasons = {"POLICY_DENIED": DEFAULT_DENY, "POLICY_DENY": DENY, "INVALID_SOURCE_IP": INVALID_SOURCE}
        protocols = {"ICMPv4": 1, "TCP": 6, "UDP": 17}
        for labels, value in world.series("hubble_drop_total").items():
            by = dict(labels)
            key = (by["source"], by["destination"], reasons[by["reason"]], protocols[by["protocol"]])
            found[key] += int(value)
        assert found == naive


def test_names_know_which_pods_there_are() -> None:
    names: Names = some_names()
    names.put("endpoints/a/1", [address_bytes(CLIENT)], WEB)
    names.put("endpoints/b/1", [address_bytes(SERVER)], WEB)  # moves: for a moment it is on two nodes
    names.forget("endpoints/a/1")
    assert names.has_pod(("shop", "web-1"))
    names.put("endpoints/b/1", [address_bytes(SERVER)], DB)
    assert not names.has_pod(("shop", "web-1")) and names.has_pod(("shop", "db-0"))


def test_texts_that_begin_alike_are_one_series() -> None:
    world = World("dns:query")
    told = [request(kind="REQUEST", dns=DNSEvent(f"{'x' * 150}{n}.", ("A",))) for n in range(3)]
    world.tell(*map(of_request, told), told=told)
    samples = values(world.metrics.families(), "hubble_dns_queries_total")
    assert [value for _, value in samples] == [3]
