"""What a table should hold, against what it holds."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from axoneme.datapath.image import Image

KEY = np.dtype([("prefix", "<u4"), ("address", "u1", (16,))])
VALUE = np.dtype([("identity", "<u4"), ("flags", "<u4")])


def table(content: dict[int, int]) -> tuple[np.ndarray, np.ndarray]:
    keys, values = np.zeros(len(content), KEY), np.zeros(len(content), VALUE)
    keys["prefix"], values["identity"] = list(content), list(content.values())
    return keys, values


def walk(image: Image, held: dict[int, int], chunk: int = 3) -> dict[int, int]:
    """What the table holds after one audit of it."""
    image.begin()
    mended = dict(held)
    keys, values = table(held)
    for at in range(0, len(keys), chunk):
        wrong, wanted, strange = image.compare(keys[at : at + chunk], values[at : at + chunk])
        mended |= dict(zip(wrong["prefix"].tolist(), wanted["identity"].tolist(), strict=True))
        for key in strange["prefix"].tolist():
            del mended[key]
    missing, wanted = image.unseen()
    return mended | dict(zip(missing["prefix"].tolist(), wanted["identity"].tolist(), strict=True))


CONTENT = st.dictionaries(st.integers(0, 12), st.integers(0, 3))


@given(CONTENT, st.lists(st.tuples(st.booleans(), CONTENT)), CONTENT)
def test_a_walk_finds_every_difference(
    first: dict[int, int], changes: list[tuple[bool, dict[int, int]]], held: dict[int, int]
) -> None:
    image, wanted = Image(KEY, VALUE), dict(first)
    image.reset(*table(first))
    for write, some in changes:
        if write:
            image.put(*table(some))
            wanted |= some
        else:
            image.drop(table(some)[0])
            wanted = {key: value for key, value in wanted.items() if key not in some}
        assert len(image) == len(wanted)
        assert image.absent(table(held)[0]) == len(held.keys() - wanted.keys())
    assert walk(image, held) == wanted
    assert walk(image, wanted) == wanted


def test_many_writes_are_put_in_order_meanwhile() -> None:
    image = Image(KEY, VALUE)
    for start in range(0, 10000, 500):
        image.put(*table(dict.fromkeys(range(start, start + 500), 1)))
    assert len(image) == 10000
    assert walk(image, {}) == dict.fromkeys(range(10000), 1)


def test_what_is_written_during_a_walk_is_not_judged_by_it() -> None:
    image = Image(KEY, VALUE)
    image.reset(*table({1: 1, 2: 2}))
    image.begin()
    image.put(*table({1: 9, 3: 3}))
    image.drop(table({2: 0})[0])
    for held in ({1: 1, 2: 2}, {1: 9}, {3: 7}):
        assert [len(found) for found in image.compare(*table(held))] == [0, 0, 0]
    assert len(image.unseen()[0]) == 0


def test_a_walk_over_rows_that_were_replaced_as_a_whole_ends_without_a_verdict() -> None:
    image = Image(KEY, VALUE)
    image.reset(*table({1: 1}))
    image.begin()
    image.reset(*table({2: 2, 3: 3}))
    image.compare(*table({2: 2}))
    assert len(image.unseen()[0]) == 0
