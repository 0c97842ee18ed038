from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from axoneme.flows.columns import Ring
from axoneme.flows.events import Records
from axoneme.flows.packing import Packing

DTYPE = np.dtype([("time", "<u8"), ("number", "<u4")])


def batch(first: int, count: int, step: int = 2) -> Records:
    made = np.zeros(count, DTYPE)
    made["number"] = np.arange(first, first + count)
    made["time"] = 100 + (np.arange(first, first + count) // step) * 10
    return made


@given(st.integers(1, 12), st.lists(st.integers(0, 30), max_size=12), st.data())
def test_holds_the_newest_whatever_the_batches(capacity: int, sizes: list[int], data: st.DataObject) -> None:
    ring, total = Ring(Packing(DTYPE), capacity), 0
    for size in sizes:
        ring.append(batch(total, size))
        total += size
    kept = list(range(max(0, total - capacity), total))
    assert (ring.first, ring.next, len(ring)) == (total - len(kept), total, len(kept))
    assert ring.read(0, total)["number"].tolist() == kept
    assert sorted(ring.packed["number"].tolist()) == kept
    start, stop = data.draw(st.integers(0, total + 5)), data.draw(st.integers(0, total + 5))
    assert ring.read(start, stop)["number"].tolist() == [n for n in kept if start <= n < stop]
    time = data.draw(st.integers(0, 100 + total * 10))
    later = [n for n in kept if 100 + n // 2 * 10 >= time]
    assert ring.at(time) == (later[0] if later else total)
    assert ring.newest == (100 + (total - 1) // 2 * 10 if total else 0)


def test_what_was_read_does_not_change_under_the_reader() -> None:
    ring = Ring(Packing(DTYPE), 4)
    ring.append(batch(0, 4))
    whole, part = ring.read(0, 4), ring.read(1, 3)
    ring.append(batch(4, 4))
    assert whole["number"].tolist() == [0, 1, 2, 3]
    assert part["number"].tolist() == [1, 2]


def test_a_ring_needs_room() -> None:
    with pytest.raises(ValueError, match="0 records"):
        Ring(Packing(DTYPE), 0)
