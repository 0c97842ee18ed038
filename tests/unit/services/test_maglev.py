"""The measures of the paper: even shares, little disruption; and that all machines agree."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from axoneme.services import maglev
from axoneme.services.maglev import PLACES, Shares, fill


def names(count: int) -> list[str]:
    return [f"10.0.{at // 250}.{at % 250 + 1}:8080" for at in range(count)]


def owners(backends: list[str], weights: list[int] | None = None) -> np.ndarray:
    """By place, the name of its owner."""
    return np.array(backends)[fill(backends, weights or [1] * len(backends))]


def as_in_the_paper(backends: list[str], places: int) -> list[int]:
    """The pseudocode of section 3.4, on the preferences of the module under test."""
    order = sorted(range(len(backends)), key=lambda at: maglev.digest(backends[at]))
    permutations = []
    for at in order:
        offset, skip = maglev.preference(maglev.digest(backends[at]), places)
        permutations.append([(offset + step * skip) % places for step in range(places)])
    following = [0] * len(backends)
    entry, filled = [-1] * places, 0
    while True:
        for at in range(len(backends)):
            place = permutations[at][following[at]]
            while entry[place] >= 0:
                following[at] += 1
                place = permutations[at][following[at]]
            entry[place] = order[at]
            following[at] += 1
            filled += 1
            if filled == places:
                return entry


@given(st.integers(1, 30), st.sampled_from([2, 3, 7, 61, 251, 1009]), st.randoms())
def test_the_table_is_that_of_the_papers_pseudocode(count: int, places: int, chance: random.Random) -> None:
    backends = names(count)
    chance.shuffle(backends)
    assert fill(backends, [1] * count, places).tolist() == as_in_the_paper(backends, places)


@pytest.mark.parametrize("count", [1, 2, 3, 10, 100, 1000])
def test_shares_are_even(count: int) -> None:
    shares = np.bincount(fill(names(count), [1] * count), minlength=count)
    assert shares.sum() == PLACES
    assert shares.max() - shares.min() <= 1


def test_one_of_a_hundred_that_leaves_moves_few_of_the_others() -> None:
    before, after = owners(names(100)), owners(names(100)[:41] + names(100)[42:])
    stays = before != names(100)[41]
    moved = (before != after)[stays].mean()
    assert moved < 0.02


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40))
@settings(max_examples=20)
def test_shares_are_in_proportion_to_weights(weights: list[int]) -> None:
    shares = np.bincount(fill(names(len(weights)), weights), minlength=len(weights))
    expected = np.array(weights) * PLACES / sum(weights)
    assert np.abs(shares - expected).max() <= 2 + 0.005 * expected.max()


@given(st.permutations(range(12)))
@settings(max_examples=20)
def test_the_order_in_which_backends_are_given_does_not_matter(order: list[int]) -> None:
    backends, weights = names(12), [1, 2, 3] * 4
    shuffled = owners([backends[at] for at in order], [weights[at] for at in order])
    assert (shuffled == owners(backends, weights)).all()


def test_machines_and_releases_agree() -> None:
    """A change of this number moves connections at every mixed update of balancers: think twice."""
    table = fill(names(7), [1, 1, 2, 3, 5, 8, 13])
    assert int(np.sum(table.astype(np.uint64) * np.arange(1, PLACES + 1, dtype=np.uint64))) == 617_832_952


def test_a_digest_tells_one_table_from_another() -> None:
    made = [("10.1.0.1:80", 1, 7), ("10.1.0.2:80", 1, 8)]
    shares = [
        Shares(tuple(each))
        for each in (made, made[:1], [made[0], ("10.1.0.2:80", 2, 8)], [made[0], ("10.1.0.2:80", 1, 9)])
    ]
    digests = {each.digest(places) for each in shares for places in (PLACES, 251)}
    assert len(digests) == 8
    assert {len(each) for each in digests} == {14}


def test_a_table_without_backends_is_refused() -> None:
    with pytest.raises(ValueError, match="without backends"):
        fill([], [])
