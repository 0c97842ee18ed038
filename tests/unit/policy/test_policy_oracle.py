"""The compiled table gives every packet the verdict, and names the rules, that the policies mean."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from axoneme.model.policy import Direction
from axoneme.policy.explain import why
from axoneme.policy.lookup import evaluate
from oracle.policy import Judgement, judge, together
from oracle.scenarios import Scenario, some_packet, some_scenario

SCENARIOS, PACKETS = 250, 500


def compare(rng: random.Random, scenario: Scenario, packets: int) -> Counter[str]:
    """Compares ``packets`` verdicts; how many of them were about something, and about what."""
    engine, world = scenario.engine(rng), scenario.world()
    engine.changes()
    table = dict(engine.table)
    parties = {number: scenario.party(number) for number in scenario.subjects}
    subjects, peers = sorted(parties), list(scenario.peers(engine))
    seen: Counter[str] = Counter()
    for _ in range(packets):
        subject, direction = rng.choice(subjects), rng.choice(list(Direction))
        number, peer = rng.choice(peers)
        protocol, port = some_packet(rng)
        wanted = judge(world, parties[subject], direction, peer, protocol, port)
        found = evaluate(table, subject, direction, number, protocol, port)
        refs = frozenset(ref for rule in found.rules for ref in engine.rules(rule))
        case = (subject, direction, number, peer, protocol, port)
        above = engine.rule_sets[found.listener] if found.listener else None
        told = Judgement(
            found.outcome,
            refs,
            together([above.rules]) if above else frozenset(),
            above is not None and above.audit,
            found.audited,
        )
        assert told == wanted, case
        assert above is None or above.direction is direction
        seen["decided"] += bool(refs) or not found.allowed
        seen["above"] += bool(told.above)
        seen["watched"] += told.watched
        seen["audit"] += told.audit
    return seen


def test_many_packets_get_the_verdict_that_the_policies_mean() -> None:
    rng = random.Random(20240229)
    seen: Counter[str] = Counter()
    for index in range(SCENARIOS):
        seen += compare(rng, some_scenario(rng, above=index % 2 > 0), PACKETS)
    # The cases must be about something: most packets meet a rule or a default deny.
    assert seen["decided"] > SCENARIOS * PACKETS / 2
    assert min(seen[each] for each in ("above", "watched", "audit")) > 100


@given(st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_packets_get_the_verdict_that_the_policies_mean(rng: random.Random) -> None:
    compare(rng, some_scenario(rng, most_policies=3, above=rng.random() < 0.7), packets=30)


@pytest.mark.parametrize("seed", range(40))
def test_an_explanation_blames_the_rules_that_the_table_names(seed: int) -> None:
    rng = random.Random(seed)
    scenario = some_scenario(rng, above=seed % 2 > 0)
    engine = scenario.engine(rng)
    engine.changes()
    peers = list(scenario.peers(engine))
    for _ in range(60):
        subject, direction = rng.choice(sorted(scenario.subjects)), rng.choice(list(Direction))
        told = why(engine, subject, direction, rng.choice(peers)[0], *some_packet(rng))
        if told.decision.audited and not told.deciding:
            # By those that are only tried it would be denied by default.
            closing = {part.ref for part in told.policies if part.default_deny}
            assert closing.issuperset(told.refs)
        elif told.enforced or told.policies:
            assert tuple(sorted({rule.ref for rule in told.deciding})) == told.refs
