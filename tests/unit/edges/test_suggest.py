"""A suggested policy lets every recorded edge pass, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from axoneme.edges.edge import Edge, Party, Request, Seen, Whereabouts
from axoneme.edges.judge import Judge, Verdict, World
from axoneme.edges.recorded import Recorded
from axoneme.edges.requests import passes
from axoneme.edges.suggest import Document, suggest
from axoneme.model.ciliumpolicy import parse_cilium_policy
from axoneme.model.kafkaapis import API_KEYS, OTHER_NAMES, ROLES
from axoneme.model.l7 import L7, L7Kind
from axoneme.model.labels import Labels
from axoneme.model.networkpolicy import parse_network_policy
from axoneme.model.policy import Direction, Policy
from axoneme.policy.engine import PolicyKey
from axoneme.proxy.kafka.messages import NAMES

from .given import NODES, OUTSIDE, PARTIES, PODS, REQUESTS, SERVICES, pod, recorded


def parsed(document: Document) -> tuple[Policy, ...]:
    read: Any = yaml.safe_load(yaml.safe_dump(document))
    if document["kind"] == "NetworkPolicy":
        return (parse_network_policy(read, cluster_name="default"),)
    return parse_cilium_policy(read, cluster_name="default")


def judge(documents: list[Document], found: Recorded, edges: list[Edge]) -> Judge:
    policies = {
        PolicyKey(str(each["kind"]), "shop", str(each["metadata"]["name"])): parsed(each)  # type: ignore[index]
        for each in documents
    }
    return Judge(World(policies), edges, found.names)


def expected(found: Recorded, edge: Edge, direction: Direction) -> Verdict:
    """What the record says of one half of an edge, request by request."""
    subject, peer = edge.subject(direction), edge.peer(direction)
    if direction is Direction.INGRESS and peer.reserved == ("host",):
        return Verdict.PASSES
    alike = [
        (each, seen)
        for each, seen in found.edges.items()
        if seen.passed
        and each.subject(direction) == subject
        and (each.protocol, each.port) == (edge.protocol, edge.port)
        and same_peer(found, each, edge, direction, peer)
    ]
    if not alike:
        return Verdict.REFUSED
    asked = {each.request for each, seen in alike if each.request and direction in seen.looked_at_by}
    if not asked:
        return Verdict.PASSES
    if edge.request is None:
        return Verdict.DEPENDS
    return Verdict.PASSES if edge.request in asked else Verdict.REFUSED


def same_peer(found: Recorded, recorded: Edge, edge: Edge, direction: Direction, peer: Party) -> bool:
    """An outside end that its caller knows by a name is whoever has that name on this node."""
    was = recorded.peer(direction)
    if direction is Direction.EGRESS and was.address and peer.address:
        names = found.names.get((recorded.source, was.address))
        if names:
            told = [names for (_, address), names in found.names.items() if address == peer.address]
            return any(names & each for each in told)
    return was == peer


@settings(max_examples=20, deadline=None)
@given(recorded(), st.booleans(), st.randoms(use_true_random=False))
def test_a_suggestion_lets_every_recorded_edge_pass_and_nothing_else(
    found: Recorded, cilium: bool, chance: Random
) -> None:
    documents = suggest(found, "shop", map(Labels.parse, (p.labels for p in PODS)), cilium_only=cilium)
    subjects = {
        edge.subject(direction)
        for edge, seen in found.edges.items()
        if seen.passed
        for direction in Direction
        if edge.subject(direction).namespace == "shop"
    }
    # What was recorded, and what differs from it in one thing; and anything.
    edges = [*found.edges]
    for edge in found.edges:
        edges += [
            replace(edge, source=chance.choice(PARTIES)),
            replace(edge, destination=chance.choice(PARTIES)),
            replace(edge, source=edge.destination, destination=edge.source),
            Edge(edge.source, edge.destination, *chance.choice(SERVICES)),
            Edge(edge.source, edge.destination, 6, 80, chance.choice([None, *REQUESTS])),
        ]
    edges += [
        Edge(chance.choice(PARTIES), chance.choice(PARTIES), *chance.choice(SERVICES)) for _ in range(20)
    ]
    court = judge(documents.policies, found, edges)
    for edge in edges:
        for half in court.judge(edge).halves:
            if edge.source != edge.destination and edge.subject(half.direction) in subjects:
                assert half.verdict is expected(found, edge, half.direction), (str(edge), half)
    for edge, seen in found.edges.items():
        if seen.passed and edge.request:
            assert court.judge(edge).verdict is Verdict.PASSES


def one(*edges: Edge, by: Direction = Direction.EGRESS) -> Recorded:
    found = Recorded()
    for edge in edges:
        found.edges[edge] = Seen(1, 0, "", frozenset({by}) if edge.request else frozenset())
    return found


WEB, DB = pod("shop", app="web"), pod("shop", app="db")


def test_plain_traffic_between_pods_becomes_a_network_policy() -> None:
    found = suggest(one(Edge(WEB, DB, 6, 5432), Edge(OUTSIDE[0], WEB, 6, 443)), "shop")
    assert [(each["kind"], each["metadata"]["name"]) for each in found.policies] == [  # type: ignore[index]
        ("NetworkPolicy", "db-observed"),
        ("NetworkPolicy", "web-observed"),
    ]
    assert found.policies[1]["spec"] == {
        "podSelector": {"matchLabels": {"app": "web"}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            {"from": [{"ipBlock": {"cidr": "192.0.2.1/32"}}], "ports": [{"port": 443, "protocol": "TCP"}]}
        ],
        "egress": [
            {
                "to": [
                    {
                        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}},
                        "podSelector": {"matchLabels": {"app": "db"}},
                    }
                ],
                "ports": [{"port": 5432, "protocol": "TCP"}],
            }
        ],
    }


def test_requests_and_names_become_rules_above_l4() -> None:
    dns = Request(L7Kind.DNS, name="api.example")
    found = one(
        Edge(WEB, DB, 6, 80),
        Edge(WEB, DB, 6, 80, Request(L7Kind.HTTP, "GET", "/users/REDACTED", query=True)),
        Edge(WEB, NODES[0], 17, 53),
        Edge(WEB, NODES[0], 17, 53, dns),
        Edge(WEB, OUTSIDE[0], 6, 443),
        Edge(WEB, DB, 6, 9092, Request(L7Kind.KAFKA, api_key="produce", topic="orders")),
    )
    found.names[WEB, OUTSIDE[0].address] = {"api.example"}
    (policy,) = (p for p in suggest(found, "shop").policies if p["metadata"]["name"] == "web-observed")  # type: ignore[index]
    assert policy["spec"]["egress"] == [  # type: ignore[index]
        {
            "toFQDNs": [{"matchName": "api.example"}],
            "toPorts": [{"ports": [{"port": "443", "protocol": "TCP"}]}],
        },
        {
            "toEntities": ["host"],
            "toPorts": [
                {
                    "ports": [{"port": "53", "protocol": "UDP"}],
                    "rules": {"dns": [{"matchName": "api.example"}]},
                }
            ],
        },
        {
            "toEndpoints": [
                {"matchLabels": {"app": "db", "k8s:io.kubernetes.pod.namespace": "shop"}},
            ],
            "toPorts": [
                {
                    "ports": [{"port": "80", "protocol": "TCP"}],
                    "rules": {"http": [{"method": "GET", "path": r"/users/[^/?]+\?.*"}]},
                },
                {
                    "ports": [{"port": "9092", "protocol": "TCP"}],
                    "rules": {"kafka": [{"apiKey": "produce", "topic": "orders"}]},
                },
            ],
        },
    ]
    assert parsed(policy)


def test_what_was_refused_is_not_suggested_and_what_has_no_word_is_said() -> None:
    found = one(Edge(WEB, DB, 47, 0))
    found.edges[Edge(WEB, DB, 6, 22)] = Seen(0, 5, "")
    suggestion = suggest(found, "shop")
    assert suggestion.policies == []
    assert [edge.service for edge in suggestion.unsaid] == ["protocol 47"]


@pytest.mark.parametrize("request_", REQUESTS)
def test_a_path_means_itself_alone(request_: Request) -> None:
    found = one(Edge(WEB, DB, 6, 80, request_))
    documents = suggest(found, "shop").policies
    court = judge(documents, found, [*found.edges])
    for other in REQUESTS:
        wanted = Verdict.PASSES if other == request_ else Verdict.REFUSED
        assert court.judge(Edge(WEB, DB, 6, 80, other)).halves[0].verdict is wanted
    assert Whereabouts.POD is WEB.whereabouts
    assert passes(L7(L7Kind.HTTP), request_) is False


def test_calls_of_kafka_have_names_or_the_roles_that_have_them() -> None:
    calls = [("listoffsets", "a"), ("gettelemetrysubscriptions", ""), ("vote", "a")]
    edges = [Edge(WEB, DB, 6, 9092, Request(L7Kind.KAFKA, api_key=key, topic=topic)) for key, topic in calls]
    suggestion = suggest(one(Edge(WEB, DB, 6, 9092), *edges), "shop")
    (policy,) = (p for p in suggestion.policies if p["metadata"]["name"] == "web-observed")  # type: ignore[index]
    (rule,) = policy["spec"]["egress"]  # type: ignore[index]
    (entry,) = rule["toPorts"]
    assert entry["rules"]["kafka"] == [
        {"apiKey": "offsets", "topic": "a"},
        {"role": "produce", "topic": "a"},
    ]
    assert suggestion.unsaid == [edges[2]]
    # What cannot be said is not allowed instead.
    (alone,) = (
        p
        for p in suggest(one(Edge(WEB, DB, 6, 9092), edges[2]), "shop").policies
        if p["metadata"]["name"] == "web-observed"  # type: ignore[index]
    )
    assert alone["spec"]["egress"] == [{}]  # type: ignore[index]


def test_names_of_calls_are_those_that_the_proxy_tells() -> None:
    numbers = {name: number for number, name in NAMES.items()}
    assert OTHER_NAMES.items() <= numbers.items()
    assert all(numbers.get(name, number) == number for name, number in API_KEYS.items())
    assert set().union(*ROLES.values()) <= {*API_KEYS.values(), *OTHER_NAMES.values()}
