"""What lint takes to follow does follow: held against the policy engine on random policies."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from axoneme.lint import matching
from axoneme.lint.implication import contradiction, peer_implies, ports_imply, selector_implies
from axoneme.lint.relations import shadows
from axoneme.lint.statements import Statement
from axoneme.lint.surroundings import KnownPod, Surroundings
from axoneme.model.labels import Labels, Selector
from axoneme.model.manifests import Manifest
from axoneme.model.policy import ALL_PORTS, AnyPeer, CIDRPeer, Enforcement, EntityPeer, LabelPeer
from axoneme.policy.explain import why
from oracle.policy import Party, covers, names, selects
from oracle.scenarios import (
    CLUSTER,
    PORTS,
    PROTOCOLS,
    some_labels,
    some_named_ports,
    some_peer,
    some_port,
    some_requirement,
    some_rule,
    some_scenario,
    some_selector,
)


def some_related(rng: random.Random) -> tuple[Selector, Selector]:
    """Two selectors of which one often has requirements of the other."""
    wide = some_selector(rng)
    more = [some_requirement(rng) for _ in range(rng.randint(0, 2))]
    return wide.and_(*more) if rng.random() < 0.7 else some_selector(rng), wide


def test_a_contradiction_is_fulfilled_by_nobody() -> None:
    rng = random.Random(1)
    seen = 0
    for _ in range(4000):
        selector = Selector().and_(*(some_requirement(rng) for _ in range(rng.randint(1, 4))))
        if contradiction(selector):
            seen += 1
            assert not any(selector.matches(some_labels(rng)) for _ in range(12))
    assert seen > 100


def test_a_selector_that_follows_selects_no_more() -> None:
    rng = random.Random(2)
    yes = proper = 0
    world = Party(Labels.parse(["reserved:world", "reserved:world-ipv4"]))
    for _ in range(4000):
        narrow, wide = some_related(rng)
        if not selector_implies(narrow, wide):
            continue
        yes += 1
        for party in (world, *(Party(some_labels(rng)) for _ in range(8))):
            proper += names(wide, party) and not names(narrow, party)
            assert names(wide, party) or not names(narrow, party), (str(narrow), str(wide))
    assert yes > 1000 and proper > 1000


def test_a_peer_that_follows_means_no_more() -> None:
    rng = random.Random(3)
    yes = 0
    for _ in range(60):
        scenario = some_scenario(rng)
        scenario.options = replace(scenario.options, cidr_matches_nodes=False)
        engine, world = scenario.engine(rng), scenario.world()
        parties = [party for _, party in scenario.peers(engine)]
        for _ in range(60):
            narrow, wide = some_peer(rng), some_peer(rng)
            if isinstance(narrow, LabelPeer) and isinstance(wide, LabelPeer):
                narrow, wide = (LabelPeer(each) for each in some_related(rng))
            if peer_implies(narrow, wide):
                yes += not isinstance(wide, AnyPeer)
                for party in parties:
                    assert selects(world, wide, party) or not selects(world, narrow, party), (narrow, wide)
    assert yes > 100


def test_ports_that_follow_cover_no_more() -> None:
    rng = random.Random(4)
    yes = 0
    for _ in range(2500):
        narrow = tuple(some_port(rng) for _ in range(rng.randint(1, 2)))
        wide = ALL_PORTS if rng.random() < 0.1 else tuple(some_port(rng) for _ in range(rng.randint(1, 4)))
        if not ports_imply(narrow, wide):
            continue
        yes += 1
        owner = Party(Labels(), None, some_named_ports(rng))
        for protocol in PROTOCOLS:
            for port in PORTS:
                if any(covers(item, owner, protocol, port) for item in narrow):
                    assert any(covers(item, owner, protocol, port) for item in wide), (narrow, wide)
    assert yes > 100


def test_a_shadowed_allow_allows_nothing_in_the_engine() -> None:
    rng = random.Random(5)
    found = looked = 0
    manifest = Manifest("CiliumNetworkPolicy", "cilium.io/v2", "", "", {})
    for _ in range(120):
        scenario = some_scenario(rng)
        scenario.options = replace(scenario.options, cidr_matches_nodes=False)
        key, policies = rng.choice(list(scenario.policies.items()))
        # A deny that has a chance to cover what is beside it.
        deny = replace(some_rule(rng, "deny"), deny=True, peers=(some_wide_peer(rng),), ports=ALL_PORTS)
        first = policies[0]
        scenario.policies[key] = (replace(first, rules=(*first.rules, deny)), *policies[1:])
        every = [
            (policy.ref, Statement(manifest, policy.subject, rule, tier=policy.tier))
            for each in scenario.policies.values()
            for policy in each
            for rule in policy.rules
        ]
        dead = {
            replace(ref, rule=allow.path)
            for ref, allow in every
            if not allow.rule.deny and any(shadows(other, allow) for _, other in every)
        }
        # Two specs of an object may have rules at one path: only a path whose rules are all dead is.
        dead -= {
            replace(ref, rule=allow.path)
            for ref, allow in every
            if not allow.rule.deny and not any(shadows(other, allow) for _, other in every)
        }
        found += len(dead)
        if not dead:
            continue
        engine = scenario.engine(rng)
        engine.changes()
        for subject in scenario.subjects:
            for number, _ in scenario.peers(engine):
                for protocol, port in ((6, 80), (17, 53), (6, 443), (1, 8)):
                    for direction in (0, 1):
                        explained = why(
                            engine, subject, type(deny.direction)(direction), number, protocol, port
                        )
                        looked += 1
                        assert not (explained.decision.allowed and dead & set(explained.refs))
    assert found > 30 and looked > 1000


def test_no_pod_is_said_exactly_where_the_engine_selects_none() -> None:
    rng = random.Random(6)
    said_so = found_some = 0
    for _ in range(150):
        scenario = some_scenario(rng)
        scenario.subjects, scenario.enforcement = set(scenario.pods), Enforcement.DEFAULT
        engine = scenario.engine(rng)
        engine.changes()
        acting = {policy for number in scenario.pods for policy in engine.policies_selecting(number)}
        pods = tuple(KnownPod("red", str(number), labels) for number, labels in scenario.pods.items())
        known = Surroundings(pods, whole=True)
        for policy in (each for policies in scenario.policies.values() for each in policies):
            if any(r.source == "reserved" or r.key == CLUSTER for r in policy.subject.requirements):
                continue  # not about pods; or about those of another cluster, of whom nothing is known
            codes = {trap.code for trap, *_ in matching.subject(policy.subject, "", known)}
            assert bool(codes) == (policy not in acting), (str(policy.subject), codes)
            said_so += bool(codes)
            found_some += not codes
    assert said_so > 30 and found_some > 30


def some_wide_peer(rng: random.Random) -> AnyPeer | EntityPeer | LabelPeer | CIDRPeer:
    return rng.choice((AnyPeer(), EntityPeer("all"), EntityPeer("world"), LabelPeer(Selector())))


@pytest.mark.parametrize(
    ("narrow", "wide", "follows"),
    [
        (EntityPeer("world-ipv4"), EntityPeer("world"), True),
        (EntityPeer("world"), EntityPeer("world-ipv4"), False),
        (LabelPeer(Selector()), EntityPeer("world"), False),
        (EntityPeer("host"), EntityPeer("host"), True),
    ],
)
def test_entities(narrow: EntityPeer, wide: EntityPeer, follows: bool) -> None:
    assert peer_implies(narrow, wide) is follows
