"""The order of writing is safe for any two tables, and differences say no more than they must."""

from __future__ import annotations

import random

import pytest

from axoneme.model.policy import PolicyRef, PortRange, Protocol
from axoneme.policy.flatten import Contribution, flatten
from axoneme.policy.lookup import evaluate
from axoneme.policy.ports import Prefix, prefixes
from axoneme.policy.table import EVERY_PEER, Key, Value, Verdict, cell_change, difference

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


def some_table(rng: random.Random) -> dict[Key, Value]:
    """Two cells that concern the same packets: under the peer and under every peer."""
    table = {}
    for peer in (PEER, EVERY_PEER):
        contributions = [
            Contribution(prefixes([rng.choice(RANGES)]), rng.random() < 0.4, PolicyRef("P", "", str(i)))
            for i in range(rng.randint(0, 3))
        ]
        for prefix, ruling in flatten(contributions).items():
            verdict = Verdict.DENY if ruling.deny else Verdict.ALLOW
            table[Key(SUBJECT, peer, 0, *prefix)] = Value(verdict, hash(ruling.refs) & 0xFFFF)
    return table


def verdicts(table: dict[Key, Value]) -> list[bool]:
    return [evaluate(table, SUBJECT, 0, PEER, *packet).allowed for packet in PACKETS]


@pytest.mark.parametrize("seed", range(8))
def test_between_any_two_tables_each_packet_has_the_verdict_of_one_of_them(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(1000):
        old, new = some_table(rng), some_table(rng)
        diff = difference(old, new.items())
        for phase in (diff.put_denies, diff.put_allows, diff.delete_allows, diff.delete_denies):
            rng.shuffle(phase)
        table, before, after = dict(old), verdicts(old), verdicts(new)
        for key, value in diff.writes():
            if value is None:
                del table[key]
            else:
                table[key] = value
            for packet, now, *possible in zip(PACKETS, verdicts(table), before, after, strict=True):
                assert now in possible, (packet, old, new)
        assert table == new


def test_a_narrow_allow_under_a_new_wide_deny_turns_into_it_before_anything_is_allowed() -> None:
    change = cell_change({TCP_80: ALLOW}, {TCP: DENY})
    assert dict(change.put_denies) == {TCP: DENY, TCP_80: DENY}
    assert change.delete_denies == (TCP_80,)
    assert not change.put_allows and not change.delete_allows


def test_equal_cells_make_no_writes() -> None:
    assert not cell_change({TCP: ALLOW, TCP_80: DENY}, {TCP_80: DENY, TCP: ALLOW})
    assert not difference({}, ()) and len(difference({}, ())) == 0


def test_a_difference_of_tables_names_the_subjects_that_differ() -> None:
    same = Key(5, 0, 0, *ANYTHING)
    old = {same: ALLOW, Key(6, 0, 0, *ANYTHING): ALLOW, Key(7, 9, 1, *TCP): DENY}
    diff = difference(old, {same: ALLOW, Key(6, 0, 0, *ANYTHING): DENY}.items())
    assert diff.changed == {6, 7}
    assert diff.put_denies == [(Key(6, 0, 0, *ANYTHING), DENY)]
    assert diff.delete_denies == [Key(7, 9, 1, *TCP)]
    assert len(diff) == 2
