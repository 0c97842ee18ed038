"""From flows to edges: each connection counts once, whoever tells of it."""

from __future__ import annotations

from typing import Any

from axoneme.edges.edge import Edge, Party, Request
from axoneme.edges.recorded import record
from axoneme.flows.flow import (
    DNS,
    HTTP,
    ICMP,
    IP,
    TCP,
    Endpoint,
    Flow,
    HTTPHeader,
    Layer4,
    Layer7,
    Ports,
    Workload,
)
from axoneme.model.l7 import L7Kind
from axoneme.model.policy import Direction

from .given import OUTSIDE, pod

WEB, DB = pod("shop", app="web"), pod("shop", app="db")
ENDS = {
    "web": Endpoint(1, 300, "shop", WEB.labels, "web-1", (Workload("web", "Deployment"),)),
    "db": Endpoint(2, 301, "shop", DB.labels, "db-1", (Workload("db", "Deployment"),)),
    "world": Endpoint(identity=2, labels=("reserved:world",)),
    "unknown": Endpoint(identity=300),
}


def flow(source: str = "web", destination: str = "db", **fields: Any) -> Flow:
    values: dict[str, Any] = {
        "time": "2026-01-01T00:00:00.000000000Z",
        "verdict": "FORWARDED",
        "IP": IP("10.0.0.1", "192.0.2.1"),
        "l4": Layer4(TCP=TCP(40000, 80)),
        "source": ENDS[source],
        "destination": ENDS[destination],
        "node_name": "n1",
        "event": "new",
        "traffic_direction": "EGRESS",
        "is_reply": False,
    }
    return Flow(**(values | fields))


def test_what_both_nodes_and_the_proxy_tell_of_is_one_connection() -> None:
    found = record(
        [
            flow(verdict="REDIRECTED"),
            flow(),  # the proxy's own
            flow(node_name="n2", traffic_direction="INGRESS"),
            flow(event="end", time="2026-01-01T00:00:09.000000000Z"),
            flow(is_reply=True),
        ]
    )
    ((edge, seen),) = found.edges.items()
    assert edge == Edge(WEB, DB, 6, 80)
    assert str(edge) == "shop/deployment/web -> shop/deployment/db 80/TCP"
    assert (seen.passed, seen.refused, seen.last) == (1, 0, "2026-01-01T00:00:09.000000000Z")


def test_a_connection_that_began_before_is_known_by_its_end() -> None:
    (seen,) = record([flow(event="end"), flow(event="end", node_name="n2")]).edges.values()
    assert seen.passed == 1


def test_drops_count_where_policy_decided() -> None:
    refused = {"verdict": "DROPPED", "event": "drop"}
    found = record(
        [
            flow(**refused, drop_reason_desc="POLICY_DENIED"),
            flow(**refused, drop_reason_desc="POLICY_DENY"),
            flow(**refused, drop_reason_desc="TTL_EXCEEDED"),
        ]
    )
    assert [(seen.passed, seen.refused) for seen in found.edges.values()] == [(0, 2)]


def test_who_is_outside_is_its_address_and_who_is_nobody_is_counted() -> None:
    found = record([flow(destination="world"), flow(source="unknown")])
    assert list(found.edges) == [Edge(WEB, Party((), "192.0.2.1"), 6, 80)]
    assert found.nameless == 1


def test_questions_by_icmp_are_edges_and_answers_and_errors_are_not() -> None:
    found = record(flow(l4=Layer4(ICMPv4=ICMP(type_, 0))) for type_ in (8, 0, 3))
    assert [edge.service for edge in found.edges] == ["8/ICMP"]


def test_requests_are_edges_of_their_own() -> None:
    http = HTTP(200, "GET", "http://db/a/b?token=REDACTED", "HTTP/1.1", (HTTPHeader("Host", "db"),))
    asked = flow(l7=Layer7("REQUEST", http=http), event="request")
    answered = flow(
        "db", "web", l7=Layer7("RESPONSE", http=http), event="response", is_reply=True,
        l4=Layer4(TCP=TCP(80, 40000)), IP=IP("192.0.2.1", "10.0.0.1"),
    )  # fmt: skip
    ((edge, seen),) = record([asked, answered, asked, answered]).edges.items()
    assert edge == Edge(WEB, DB, 6, 80, Request(L7Kind.HTTP, "GET", "/a/b", query=True))
    assert edge.request is not None
    assert (edge.request.host, edge.request.headers) == ("db", (("host", "db"),))
    assert (seen.passed, seen.looked_at_by) == (2, {Direction.EGRESS})
    assert str(edge).endswith("80/TCP  GET /a/b?…")


def test_of_requests_that_differ_in_what_makes_no_edge_only_the_common_is_known() -> None:
    def asked(host: str, *headers: tuple[str, str]) -> Flow:
        http = HTTP(200, "GET", f"http://{host}/a", "HTTP/1.1", tuple(HTTPHeader(*each) for each in headers))
        return flow(l7=Layer7("REQUEST", http=http), event="request")

    found = record([asked("db", ("a", "1"), ("b", "1")), asked("other", ("a", "1"), ("b", "2")), asked("db")])
    ((edge, seen),) = found.edges.items()
    assert edge.request and (edge.request.host, edge.request.headers, seen.passed) == ("", (), 3)
    ((edge, _),) = record([asked("db", ("a", "1"), ("b", "1")), asked("db", ("a", "1"))]).edges.items()
    assert edge.request and (edge.request.host, edge.request.headers) == ("db", (("a", "1"),))


def test_names_are_those_that_the_client_was_told() -> None:
    answer = DNS("API.Example.", ("192.0.2.1",), 30, (), "proxy")
    found = record(
        [
            flow(
                "db", "web", l7=Layer7("RESPONSE", dns=answer), event="response", is_reply=True,
                l4=Layer4(UDP=Ports(53, 40000)),
            )
        ]
    )  # fmt: skip
    assert found.names == {(WEB, OUTSIDE[0].address): {"api.example"}}
    assert list(found.edges) == [Edge(WEB, DB, 17, 53, Request(L7Kind.DNS, name="api.example"))]
