"""What a change would do is what the naive reading of the policies says of every edge, before and after."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from axoneme.edges.edge import Edge, Party, Request, Seen
from axoneme.edges.judge import Verdict, World
from axoneme.edges.preview import Effect, Preview, preview
from axoneme.edges.recorded import Recorded
from axoneme.model.ciliumpolicy import parse_cilium_policy
from axoneme.model.l7 import L7Kind
from axoneme.model.labels import Labels
from axoneme.model.policy import Direction
from axoneme.policy.engine import PolicyKey
from axoneme.policy.lookup import Outcome
from oracle import policy as oracle
from oracle import scenarios

from .given import OUTSIDE, pod

WEB, DB = pod("shop", app="web"), pod("shop", app="db")


@settings(max_examples=40, deadline=None)
@given(st.randoms(use_true_random=False))
def test_effects_are_those_that_the_naive_reading_has(chance: Random) -> None:
    scenario = scenarios.some_scenario(chance)
    parties: dict[Party, oracle.Party] = {
        Party((), str(address)): oracle.Party(
            Labels.parse(["reserved:world", f"reserved:world-ipv{address.version}"]), address
        )
        for address in scenarios.ADDRESSES
    }
    for labels in scenario.pods.values():
        if labels.get("k8s", scenarios.NAMESPACE):
            parties[Party(tuple(labels.texts()))] = oracle.Party(labels)
    recorded = Recorded()
    for _ in range(25):
        source, destination = chance.choice([*parties]), chance.choice([*parties])
        if source != destination:
            recorded.edges[Edge(source, destination, *scenarios.some_packet(chance))] = Seen(1, 0, "")
    proposed = {
        key: scenarios.some_policies(chance, key) if chance.random() < 0.7 else ()
        for key in [*scenario.policies, scenarios.some_key(chance, 99)]
    }
    world = scenario.world()
    after = oracle.World(
        [p for policies in (scenario.policies | proposed).values() for p in policies],
        world.services,
        world.groups,
        world.enforcement,
        world.cluster,
    )
    before = oracle.World(world.policies, world.services, world.groups, world.enforcement, world.cluster)
    found = preview(
        recorded,
        World(
            dict(scenario.policies),
            world.services,
            {group.name: group for group in world.groups},
            {},
            world.enforcement,
            world.cluster,
        ),
        proposed,
    )
    effects = {each.edge: each.effect for each in found.changed}
    for edge in recorded.edges:
        was, now = passes(before, parties, edge), passes(after, parties, edge)
        expected = None if was == now else Effect.OPENS if now else Effect.BREAKS
        assert effects.get(edge) is expected, str(edge)
    assert found.unchanged == len(recorded.edges) - len(effects)


def passes(world: oracle.World, parties: dict[Party, oracle.Party], edge: Edge) -> bool:
    return all(
        oracle.decide(
            world,
            parties[edge.subject(direction)],
            direction,
            parties[edge.peer(direction)],
            edge.protocol,
            edge.port,
        )[0]
        is Outcome.ALLOWED
        for direction in Direction
        if edge.subject(direction).namespace
    )


# ---- above L4 ------------------------------------------------------------------------------------------


def http(method: str, path: str, **more: Any) -> Edge:
    return Edge(WEB, DB, 6, 80, Request(L7Kind.HTTP, method, path, **more))


def previewed(rules: str, *edges: Edge, names: tuple[str, ...] = (), before: str = "") -> Preview:
    """Of a policy with these rules for the database (or, for names, the web), where there is none."""
    recorded = Recorded()
    for edge in edges:
        recorded.edges[edge] = Seen(3, 0, "2026-01-01T00:00:00Z", frozenset({Direction.INGRESS}))
    if names:
        recorded.names[WEB, OUTSIDE[0].address] = set(names)
    return preview(recorded, World(_policies(before) if before else {}), _policies(rules))


def _policies(rules: str) -> Any:
    spec = yaml.safe_load(rules)
    app = "web" if "egress" in spec else "db"
    document = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "rule", "namespace": "shop"},
        "spec": {"endpointSelector": {"matchLabels": {"app": app}}, **spec},
    }
    found = parse_cilium_policy(json.loads(json.dumps(document)), cluster_name="default")
    return {PolicyKey("CiliumNetworkPolicy", "shop", "rule"): found}


ONLY_GET = """
ingress: [{fromEndpoints: [{matchLabels: {app: web}}], toPorts: [{ports: [{port: "80", protocol: TCP}],
  rules: {http: [{method: GET, path: "/public/.*"}]}}]}]
"""


def test_requests_that_rules_would_refuse_are_named_one_by_one() -> None:
    good, bad = http("GET", "/public/a"), http("POST", "/public/a")
    found = previewed(ONLY_GET, good, bad, Edge(WEB, DB, 6, 80), Edge(WEB, DB, 6, 5432))
    assert [(each.edge, each.effect) for each in found.changed] == [
        (Edge(WEB, DB, 6, 5432), Effect.BREAKS),
        (bad, Effect.BREAKS),
    ]
    assert found.unchanged == 1  # the connection is what its requests are
    assert [half.verdict for half in found.changed[1].after.halves] == [Verdict.PASSES, Verdict.REFUSED]


def test_what_was_asked_and_not_recorded_is_not_guessed() -> None:
    unread = Edge(WEB, DB, 6, 80)
    assert [each.effect for each in previewed(ONLY_GET, unread).changed] == [Effect.DEPENDS]


@pytest.mark.parametrize(
    ("rule", "edge", "effect"),
    [
        ('{path: "/users/[0-9]+"}', http("GET", "/users/REDACTED"), Effect.DEPENDS),
        ('{path: "/users/[^/]*"}', http("GET", "/users/REDACTED"), None),
        ('{path: "/[0-9]+/.*"}', http("GET", "/users/REDACTED"), Effect.BREAKS),
        ('{path: "/a"}', http("GET", "/a", query=True), Effect.BREAKS),
        ('{path: "/a.*"}', http("GET", "/a", query=True), None),
        ('{headers: ["X-Token"]}', http("GET", "/a"), Effect.DEPENDS),
        ('{method: POST, headers: ["X-Token"]}', http("GET", "/a"), Effect.BREAKS),
        ('{host: "db"}', http("GET", "/a", host="db"), None),
        ('{host: "db"}', http("GET", "/a", host="other"), Effect.BREAKS),
        ("{}", http("GET", "/a"), None),
    ],
)
def test_redaction_makes_doubt_only_where_it_matters(rule: str, edge: Edge, effect: Effect | None) -> None:
    rules = f'ingress: [{{toPorts: [{{ports: [{{port: "80", protocol: TCP}}], rules: {{http: [{rule}]}}}}]}}]'
    assert [each.effect for each in previewed(rules, edge).changed] == ([effect] if effect else [])


def test_an_allow_without_rules_above_l4_beats_those_with_them() -> None:
    both = """
    ingress:
    - toPorts: [{ports: [{port: "80", protocol: TCP}], rules: {http: [{method: GET}]}}]
    - fromEndpoints: [{}]
    """
    assert previewed(both, http("POST", "/")).changed == []


def test_names_are_those_that_the_recorded_answers_had() -> None:
    edge = Edge(WEB, OUTSIDE[0], 6, 443)
    other = Edge(WEB, OUTSIDE[1], 6, 443)
    rules = 'egress: [{toFQDNs: [{matchPattern: "*.example"}], toPorts: [{ports: [{port: "443"}]}]}]'
    found = previewed(rules, edge, other, names=("api.example",))
    assert [(each.edge, each.effect) for each in found.changed] == [(other, Effect.BREAKS)]


def test_records_of_other_policies_are_told() -> None:
    found = previewed("ingress: [{fromEndpoints: [{}]}]", Edge(WEB, DB, 6, 80), before="ingress: [{}]")
    assert [each.effect for each in found.changed] == [Effect.OPENS]
    assert found.stale == [Edge(WEB, DB, 6, 80)]  # today's policy would have refused what passed
