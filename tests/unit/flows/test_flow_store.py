from __future__ import annotations

from collections.abc import Generator

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from axoneme.flows.events import Mask, Records
from axoneme.flows.store import Cursor, FlowStore

from .records import DROP, DTYPE, NEW, event, records


def finished(looking: Generator[None, None, Cursor]) -> Cursor:
    """What it returns."""
    while True:
        try:
            next(looking)
        except StopIteration as found:
            return found.value  # type: ignore[no-any-return]


def flows(*times: int, kind: int = NEW) -> Records:
    return records(*(event(time=t, kind=kind, source_port=t % 65536) for t in times))


def store(capacity: int = 8, drops: int = 4) -> FlowStore:
    return FlowStore(DTYPE, capacity, drops)


def times(found: Records) -> list[int]:
    return [int(time) for time in found["time"]]


def everything(_: Records) -> Mask:
    return np.ones(len(_), np.bool_)


def test_the_two_rings_are_read_as_one_in_order_of_time() -> None:
    kept = store()
    kept.flows.append(flows(1, 3, 5, 7))
    kept.drops.append(flows(2, 6, kind=DROP))
    cursor = kept.beginning()
    assert times(kept.read(cursor, 100).records) == [1, 2, 3, 5, 6, 7]
    assert not len(kept.read(cursor, 100).records)


@given(
    st.lists(st.integers(1, 50), max_size=20).map(sorted),
    st.lists(st.integers(1, 50), max_size=20).map(sorted),
    st.integers(1, 9),
)
def test_pages_of_any_size_give_each_record_once(some: list[int], others: list[int], page: int) -> None:
    kept = store(32, 32)
    if some:
        kept.flows.append(flows(*some))
    if others:
        kept.drops.append(flows(*others, kind=DROP))
    cursor, found = kept.beginning(), []
    while len(batch := kept.read(cursor, page).records):
        assert len(batch) <= page
        found += times(batch)
    assert found == sorted(some + others)


def test_a_slow_reader_is_told_how_much_it_lost_and_from_which_ring() -> None:
    kept = store(capacity=8, drops=4)
    cursor = kept.end()
    kept.flows.append(flows(*range(1, 21)))
    kept.drops.append(flows(*range(1, 8), kind=DROP))
    batch = kept.read(cursor, 100)
    assert (batch.lost_flows, batch.lost_drops) == (12, 3)
    assert times(batch.records) == [4, 5, 6, 7, *range(13, 21)]
    assert (batch := kept.read(cursor, 100)).lost_flows == 0
    assert not len(batch.records)


def test_no_load_of_forwarded_traffic_displaces_a_drop() -> None:
    kept = store(capacity=8, drops=4)
    kept.drops.append(flows(1, kind=DROP))
    for start in range(2, 1000, 10):
        kept.flows.append(flows(*range(start, start + 10)))
    batch = kept.read(kept.beginning(), 100)
    assert times(batch.records)[0] == 1
    assert batch.records["kind"][0] == DROP


def test_a_reader_at_the_end_sees_only_what_comes() -> None:
    kept = store()
    kept.flows.append(flows(1, 2))
    cursor = kept.end()
    kept.flows.append(flows(3))
    assert times(kept.read(cursor, 10).records) == [3]


def test_reading_up_to_a_stop() -> None:
    kept = store()
    kept.flows.append(flows(1, 2, 3))
    stop = kept.end()
    kept.flows.append(flows(4))
    cursor = kept.beginning()
    assert times(kept.read(cursor, 10, stop).records) == [1, 2, 3]
    assert not len(kept.read(cursor, 10, stop).records)


def test_what_is_overwritten_beyond_the_stop_is_not_lost() -> None:
    kept = store(capacity=4)
    kept.flows.append(flows(1, 2, 3))
    cursor, stop = kept.beginning(), kept.end()
    kept.flows.append(flows(*range(4, 24)))
    assert kept.read(cursor, 10, stop).lost_flows == 3


def test_since_a_time() -> None:
    kept = store()
    kept.flows.append(flows(10, 20, 30))
    kept.drops.append(flows(15, 25, kind=DROP))
    assert times(kept.read(kept.since(20), 10).records) == [20, 25, 30]
    assert times(kept.read(kept.since(-5), 10).records) == [10, 15, 20, 25, 30]
    assert kept.since(31) == kept.end()


@given(
    st.lists(st.integers(1, 60), max_size=40).map(sorted),
    st.lists(st.integers(1, 60), max_size=40).map(sorted),
    st.integers(0, 50),
    st.integers(1, 5),
)
def test_the_last_that_are_accepted(some: list[int], others: list[int], count: int, divisor: int) -> None:
    kept = store(32, 32)
    if some:
        kept.flows.append(flows(*some))
    if others:
        kept.drops.append(flows(*others, kind=DROP))

    def accepts(found: Records) -> Mask:
        return np.asarray(found["time"] % divisor == 0)

    cursor = finished(kept.last(count, accepts, kept.beginning(), kept.end()))
    found = kept.read(cursor, 1000).records
    wanted = sorted(t for t in some[-32:] + others[-32:] if t % divisor == 0)
    assert times(found[accepts(found)]) == wanted[max(0, len(wanted) - count) :]


def test_the_last_but_not_before_a_beginning() -> None:
    kept = store()
    kept.flows.append(flows(1, 2, 3, 4))
    cursor = finished(kept.last(10, everything, Cursor(flows=2, drops=0), kept.end()))
    assert times(kept.read(cursor, 10).records) == [3, 4]
