"""Rule numbers: the same everywhere, and told apart when two sets hash alike."""

from __future__ import annotations

import random

import pytest

from axoneme.model.policy import PolicyRef
from axoneme.policy.rulenumbers import Refs, RuleNumbers


def refs(*names: str) -> Refs:
    return tuple(PolicyRef("NetworkPolicy", "shop", name, "spec.ingress[0]") for name in sorted(names))


def test_a_number_stays_what_it_is_on_every_node_and_in_every_release() -> None:
    assert RuleNumbers().acquire(refs("a")) == 3824919223
    assert RuleNumbers().acquire(refs("a", "b")) == 3436005934
    assert RuleNumbers().acquire(()) == 0


def test_a_number_is_announced_once_and_taken_back_after_the_last_use() -> None:
    numbers = RuleNumbers()
    number = numbers.acquire(refs("a"))
    assert numbers.acquire(refs("a")) == number
    assert numbers.publish() == ({number: refs("a")}, frozenset())
    numbers.release(refs("a"))
    assert numbers.publish() == ({}, frozenset())
    assert numbers.refs(number) == refs("a")
    numbers.release(refs("a"))
    assert numbers.publish() == ({}, frozenset({number}))
    assert numbers.refs(number) == ()


@pytest.mark.parametrize("seed", range(30))
def test_numbers_depend_on_the_sets_in_use_and_not_on_their_history(seed: int) -> None:
    rng = random.Random(seed)
    numbers = RuleNumbers(bits=5)
    known: dict[Refs, int] = {}
    used: set[Refs] = set()
    pool = [refs(str(i)) for i in range(24)]
    for _ in range(200):
        item = rng.choice(pool)
        if item in used:
            used.discard(item)
            numbers.release(item)
        else:
            used.add(item)
            known[item] = numbers.acquire(item)
        for moved in numbers.moved():
            assert moved in used
            known[moved] = numbers.number(moved)
        scratch = RuleNumbers(bits=5)
        for other in rng.sample(sorted(used), len(used)):
            scratch.acquire(other)
        now = {other: numbers.number(other) for other in used}
        assert now == {other: scratch.number(other) for other in used}
        assert now == {other: known[other] for other in used}
        assert len(set(now.values())) == len(used) and 0 not in now.values()


def test_what_is_published_adds_up_to_what_is_in_use() -> None:
    rng = random.Random(1)
    numbers = RuleNumbers(bits=5)
    meanings: dict[int, Refs] = {}
    used: list[Refs] = []
    for step in range(300):
        if used and (len(used) > 20 or rng.random() < 0.5):
            numbers.release(used.pop(rng.randrange(len(used))))
        else:
            used.append(refs(f"{step % 40}"))
            numbers.acquire(used[-1])
        if rng.random() < 0.3:
            added, dropped = numbers.publish()
            meanings.update(added)
            for number in dropped:
                del meanings[number]
            assert meanings == {numbers.number(item): item for item in used}
