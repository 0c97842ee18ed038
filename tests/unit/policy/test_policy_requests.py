"""What rules above L4 say of a request."""

from __future__ import annotations

import pytest

from axoneme.edges import edge
from axoneme.edges.requests import passes
from axoneme.model.kafkaapis import API_KEYS, OTHER_NAMES, ROLES
from axoneme.model.l7 import L7, HeaderMatch, HTTPRule, KafkaRule, L7Kind, Mismatch, NameMatch, SecretRef
from axoneme.policy.requests import Request, judge, server_name_matches, texts
from axoneme.proxy.kafka.requests import Header
from axoneme.proxy.kafka.rules import Scope, permission

PUBLIC = HTTPRule("GET", "/public/.*", headers=(HeaderMatch("x-token", pattern="[0-9]+"),))
HTTP = L7(L7Kind.HTTP, http=(PUBLIC, HTTPRule("POST", "/v1", "a[.]b")))


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (
            Request("GET", "/public/x", headers={"X-Token": "42"}),
            "lets it pass by GET /public/.* with x-token like [0-9]+",
        ),
        (Request("POST", "/v1", "a.b"), "lets it pass by POST /v1 at a[.]b"),
        (
            Request("GET", "/public/x", headers={"X-Token": "x"}),
            "refuses it; nearest is GET /public/.* with x-token like [0-9]+, but for the header "
            "(it wants x-token like [0-9]+, this has x)",
        ),
        (
            Request("POST", "/v1?a", "a.b"),
            "refuses it; nearest is POST /v1 at a[.]b, but for the path (it wants /v1, this has /v1?a)",
        ),
        (
            Request(),
            "refuses it; nearest is GET /public/.* with x-token like [0-9]+, but for the method (it wants "
            "GET, this has none) and the path (it wants /public/.*, this has none) and the header (it wants "
            "x-token like [0-9]+, this has none)",
        ),
    ],
)
def test_an_http_request_passes_by_a_rule_or_the_nearest_is_named(request_: Request, said: str) -> None:
    assert str(judge(HTTP, request_)) == said


def test_headers_that_do_not_decide_are_not_asked_for() -> None:
    logged = L7(L7Kind.HTTP, http=(HTTPRule(headers=(HeaderMatch("a", "1", mismatch=Mismatch.LOG),)),))
    assert judge(logged, Request("GET")).allowed
    secret = L7(L7Kind.HTTP, http=(HTTPRule(headers=(HeaderMatch("a", secret=SecretRef("n", "s")),)),))
    assert judge(secret, Request(headers={"A": "?"})).allowed and not judge(secret, Request()).allowed
    assert texts(secret) == ["with a as in Secret n/s"]


def test_kafka_requests() -> None:
    rules = L7(L7Kind.KAFKA, kafka=(KafkaRule((0, 3), topic="plans"), KafkaRule((12,), client_id="me")))
    assert judge(rules, Request(api_key="Produce", topic="plans")).allowed
    assert judge(rules, Request(api_key="0", topic="plans")).allowed
    assert str(judge(rules, Request(api_key="fetch", topic="plans"))) == (
        "refuses it; nearest is produce, metadata for topic plans, but for the API key (it wants produce, "
        "metadata, this has fetch)"
    )
    assert judge(rules, Request(api_key="heartbeat", client_id="you", topic="x")).unmet == (
        "the client's name (it wants me, this has you)",
    )


def test_kafka_requests_that_no_rule_is_about_pass_as_the_proxy_lets_them() -> None:
    rules = L7(L7Kind.KAFKA, kafka=(KafkaRule(ROLES["consume"], topic="plans"),))
    assert judge(rules, Request(api_key="heartbeat")).allowed, "it has no topics"
    assert not judge(rules, Request(api_key="produce")).allowed
    for name, number in {**API_KEYS, **OTHER_NAMES}.items():
        header = Header(number, 0, 1, "", 0)
        said = permission(rules.kafka, header).scope is not Scope.NOTHING
        assert (
            judge(rules, Request(api_key=name)).allowed
            == said
            == passes(rules, edge.Request(L7Kind.KAFKA, api_key=name))
        ), name


def test_names() -> None:
    rules = L7(L7Kind.DNS, dns=(NameMatch("a.io"), NameMatch("*.b.io", True)))
    assert judge(rules, Request(name="A.io.")).rule == "the name a.io"
    assert judge(rules, Request(name="x.b.io")).rule == "names like *.b.io"
    assert not judge(rules, Request(name="b.io")).allowed


def test_tls() -> None:
    rules = L7(L7Kind.TLS, server_names=("*.a.io", "b.io"))
    assert judge(rules, Request(server_name="x.a.io")).allowed
    assert judge(rules, Request(server_name="a.io")).unmet == (
        "the server name (it wants *.a.io or b.io, this has a.io)",
    )


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("a.io", "A.io.", True),
        ("*.a.io", "x.a.io", True),
        ("*.a.io", "y.x.a.io", False),
        ("*.a.io", ".a.io", False),
        ("**.a.io", "y.x.a.io", True),
        ("**.a.io", "a.io", False),
        ("**.a.io", "xa.io", False),
    ],
)
def test_patterns_of_server_names(pattern: str, name: str, matches: bool) -> None:
    assert server_name_matches(pattern, name) is matches


def test_a_kind_without_rules_lets_nothing_pass() -> None:
    assert str(judge(L7(L7Kind.HTTP), Request("GET"))) == "lets nothing pass"
    assert texts(L7(L7Kind.HTTP, http=(HTTPRule(),))) == ["every request"]
