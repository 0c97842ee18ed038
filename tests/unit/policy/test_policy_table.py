"""The order of writing is safe for any two tables, and differences say no more than they must."""

from __future__ import annotations

import random

import pytest

from axoneme.model.policy import PolicyRef, PortRange, Protocol, Tier
from axoneme.policy.flatten import Contribution, flatten
from axoneme.policy.grants import Grant
from axoneme.policy.lookup import evaluate
from axoneme.policy.ports import Prefix, prefixes
from axoneme.policy.table import (
    EVERY_PEER,
    Key,
    PolicyFlag,
    TableDiff,
    Value,
    Verdict,
    cell_change,
    difference,
)

SUBJECT, PEER = 300, 301
RANGES = [
    PortRange(Protocol.ANY),
    PortRange(Protocol.TCP),
    PortRange(Protocol.TCP, 80, 83),
    PortRange(Protocol.TCP, 80, 81),
    PortRange(Protocol.TCP, 80, 80),
    PortRange(Protocol.TCP, 83, 84),
    PortRange(Protocol.UDP),
]
PACKETS = [(6, 80), (6, 81), (6, 82), (6, 83), (6, 84), (6, 1), (17, 80), (1, 8)]

ALLOW, DENY = Value(Verdict.ALLOW, 1), Value(Verdict.DENY, 2)
ANYTHING, TCP, TCP_80 = Prefix(0, 0, 72), Prefix(6, 0, 80), Prefix(6, 80, 96)


def some_table(rng: random.Random, layered: bool = False) -> dict[Key, Value]:
    """Two cells that concern the same packets: under the peer and under every peer."""
    table = {}
    grants: dict[int, list[Contribution]] = {
        peer: [some_grant(rng, i, layered) for i in range(rng.randint(0, 3))] for peer in (PEER, EVERY_PEER)
    }
    if layered and grants[PEER]:
        grants[PEER] += grants[EVERY_PEER]
    flags = PolicyFlag.COMPLETE if layered else 0
    for peer, contributions in grants.items():
        for prefix, ruling in flatten(contributions).items():
            table[Key(SUBJECT, peer, 0, *prefix)] = Value(ruling.verdict, hash(ruling.refs) & 0xFFFF, flags)
    return table


def some_grant(rng: random.Random, number: int, layered: bool) -> Contribution:
    covered, action = prefixes([rng.choice(RANGES)]), rng.random()
    tier = rng.choice((Tier.ADMIN, Tier.ADMIN, Tier.NORMAL, Tier.BASELINE)) if layered else Tier.NORMAL
    passes = tier is Tier.ADMIN and action > 0.8
    ref = PolicyRef("P", "", str(number))
    return covered, Grant(covered, frozenset(), action < 0.4, ref, tier, (0, "", rng.randrange(9)), passes)


def verdicts(table: dict[Key, Value]) -> list[bool]:
    return [evaluate(table, SUBJECT, 0, PEER, *packet).allowed for packet in PACKETS]


def assert_safe(diff: TableDiff, old: dict[Key, Value], new: dict[Key, Value]) -> None:
    table, before, after = dict(old), verdicts(old), verdicts(new)
    for key, value in diff.writes():
        if value is None:
            del table[key]
        else:
            table[key] = value
        for packet, now, *possible in zip(PACKETS, verdicts(table), before, after, strict=True):
            assert now in possible, (packet, old, new)
    assert table == new


@pytest.mark.parametrize("seed", range(8))
def test_between_any_two_tables_each_packet_has_the_verdict_of_one_of_them(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(1000):
        old, new = some_table(rng), some_table(rng)
        diff = difference(old, new.items())
        for step in (diff.put_first, diff.put, diff.delete, diff.put_last, diff.delete_last):
            rng.shuffle(step)
        assert_safe(diff, old, new)


@pytest.mark.parametrize("seed", range(8))
def test_so_it_has_where_an_allow_can_beat_a_deny(seed: int) -> None:
    """Also where a side begins to be complete, or ceases."""
    rng = random.Random(seed)
    for _ in range(1000):
        layered = rng.choice(((True, True), (True, True), (True, False), (False, True)))
        old, new = (some_table(rng, each) for each in layered)
        assert_safe(difference(old, new.items()), old, new)


@pytest.mark.parametrize("seed", range(4))
def test_and_where_the_writing_was_broken_off_it_can_be_ended(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(500):
        old, new = (some_table(rng, rng.random() < 0.6) for _ in range(2))
        table = dict(old)
        writes = list(difference(old, new.items()).writes())
        for key, value in writes[: rng.randint(0, len(writes))]:
            if value is None:
                del table[key]
            else:
                table[key] = value
        assert_safe(difference(table, new.items()), table, new)


def test_a_narrow_allow_under_a_new_wide_deny_turns_into_it_before_anything_is_allowed() -> None:
    change = cell_change({TCP_80: ALLOW}, {TCP: DENY})
    assert dict(change.put_first) == {TCP: DENY, TCP_80: DENY}
    assert change.delete_last == (TCP_80,)
    assert not change.put and not change.delete


def test_equal_cells_make_no_writes() -> None:
    assert not cell_change({TCP: ALLOW, TCP_80: DENY}, {TCP_80: DENY, TCP: ALLOW})
    assert not difference({}, ()) and len(difference({}, ())) == 0


def test_a_difference_of_tables_names_the_subjects_that_differ() -> None:
    same = Key(5, 0, 0, *ANYTHING)
    old = {same: ALLOW, Key(6, 0, 0, *ANYTHING): ALLOW, Key(7, 9, 1, *TCP): DENY}
    diff = difference(old, {same: ALLOW, Key(6, 0, 0, *ANYTHING): DENY}.items())
    assert diff.changed == {6, 7}
    assert diff.put_first == [(Key(6, 0, 0, *ANYTHING), DENY)]
    assert diff.delete_last == [Key(7, 9, 1, *TCP)]
    assert len(diff) == 2
