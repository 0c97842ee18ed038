"""Whose turn it is to be measured."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from axoneme.health.agenda import NODES_PER_SECOND, Agenda, interval


def run(agenda: Agenda, seconds: float, dice: float = 0.5) -> dict[str, list[float]]:
    """When everybody's turn is, by a clock that only waiting moves."""
    now, turns = 0.0, dict[str, list[float]]()
    while now < seconds:
        name = agenda.take(now, dice)
        if name is not None:
            turns.setdefault(name, []).append(now)
            continue
        wait = agenda.wait(now)
        assert wait is not None
        now += wait
    return turns


@given(st.integers(1, 5000), st.floats(0.1, 1000))
def test_a_larger_cluster_is_measured_less_often_and_never_too_fast(nodes: int, base: float) -> None:
    assert interval(nodes, base) <= interval(nodes + 1, base)
    assert nodes / interval(nodes, base) <= NODES_PER_SECOND * 1.0001


@given(st.integers(1, 60), st.floats(0, 1))
def test_everybody_gets_a_turn_within_an_interval_and_no_second_has_too_many(nodes: int, dice: float) -> None:
    agenda = Agenda(10)
    for number in range(nodes):
        agenda.add(f"node{number}", 0.0)
    turns = run(agenda, 4 * agenda.interval, dice)
    assert len(turns) == nodes
    times = sorted(time for each in turns.values() for time in each)
    assert all(later - earlier > 0.99 / NODES_PER_SECOND for earlier, later in itertools.pairwise(times))
    for each in turns.values():
        gaps = [later - earlier for earlier, later in itertools.pairwise(each)]
        assert all(gap <= 1.1 * agenda.interval + nodes / NODES_PER_SECOND for gap in gaps)
        assert gaps


def test_one_that_is_new_comes_next_and_one_that_is_gone_does_not_come() -> None:
    agenda = Agenda(10)
    assert agenda.wait(0) is None
    agenda.add("a", 0)
    assert agenda.take(0, 0.5) == "a"
    agenda.add("b", 1)
    assert agenda.take(1, 0.5) == "b"
    agenda.remove("a")
    agenda.add("b", 2)
    assert set(run(agenda, 100)) == {"b"}
    agenda.remove("b")
    assert agenda.wait(100) is None


def test_one_that_does_not_answer_is_asked_again_soon_and_then_less_often() -> None:
    agenda = Agenda(100)
    agenda.add("a", 0)
    now, waits = 0.0, []
    for failures in range(1, 7):
        assert agenda.take(now, 0.5) == "a"
        agenda.hurry("a", now, failures)
        wait = agenda.wait(now)
        assert wait is not None
        waits.append(wait)
        now += wait
    assert waits == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    agenda.hurry("gone", now, 1)
    assert len(agenda) == 1
