"""The compiled table gives every packet the verdict, and names the rules, that the policies mean."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from axoneme.model.policy import Direction
from axoneme.policy.explain import why
from axoneme.policy.lookup import evaluate
from oracle.policy import decide
from oracle.scenarios import Scenario, some_packet, some_scenario

SCENARIOS, PACKETS = 250, 500


def judge(rng: random.Random, scenario: Scenario, packets: int) -> int:
    """Compares ``packets`` verdicts; how many of them were not "no policy selects it"."""
    engine, world = scenario.engine(rng), scenario.world()
    engine.changes()
    table = dict(engine.table)
    parties = {number: scenario.party(number) for number in scenario.subjects}
    subjects, peers = sorted(parties), list(scenario.peers(engine))
    decided = 0
    for _ in range(packets):
        subject, direction = rng.choice(subjects), rng.choice(list(Direction))
        number, peer = rng.choice(peers)
        protocol, port = some_packet(rng)
        wanted = decide(world, parties[subject], direction, peer, protocol, port)
        found = evaluate(table, subject, direction, number, protocol, port)
        refs = frozenset(ref for rule in found.rules for ref in engine.rules(rule))
        assert (found.outcome, refs) == wanted, (subject, direction, number, peer, protocol, port)
        decided += bool(refs) or not found.allowed
    return decided


def test_many_packets_get_the_verdict_that_the_policies_mean() -> None:
    rng = random.Random(20240229)
    decided = sum(judge(rng, some_scenario(rng), PACKETS) for _ in range(SCENARIOS))
    # The cases must be about something: most packets meet a rule or a default deny.
    assert decided > SCENARIOS * PACKETS / 2


@given(st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_packets_get_the_verdict_that_the_policies_mean(rng: random.Random) -> None:
    judge(rng, some_scenario(rng, most_policies=3), packets=30)


@pytest.mark.parametrize("seed", range(40))
def test_an_explanation_blames_the_rules_that_the_table_names(seed: int) -> None:
    rng = random.Random(seed)
    scenario = some_scenario(rng)
    engine = scenario.engine(rng)
    engine.changes()
    peers = list(scenario.peers(engine))
    for _ in range(60):
        subject, direction = rng.choice(sorted(scenario.subjects)), rng.choice(list(Direction))
        told = why(engine, subject, direction, rng.choice(peers)[0], *some_packet(rng))
        if told.enforced or told.policies:
            assert tuple(sorted({rule.ref for rule in told.deciding})) == told.refs
