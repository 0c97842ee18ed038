from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from axoneme.relay.sorting import Sorter


def item(time: int) -> tuple[int, bytes]:
    return time, b"%d" % time


def numbers(found: list[bytes]) -> list[int]:
    return [int(each) for each in found]


Streams = st.dictionaries(st.sampled_from("abcd"), st.lists(st.integers(1, 99)).map(sorted), min_size=1)


@given(Streams, st.data())
def test_whatever_comes_when_it_leaves_in_order_and_complete(
    streams: dict[str, list[int]], data: st.DataObject
) -> None:
    sorter, left, found = Sorter(), dict(streams), list[int]()
    for node in streams:
        sorter.open(node)
    while left:
        node = data.draw(st.sampled_from(sorted(left)))
        count = data.draw(st.integers(1, 5))
        sorter.add(node, [item(time) for time in left[node][:count]], 0)
        left[node] = left[node][count:]
        if not left[node]:
            del left[node]
            sorter.close(node)
        found += numbers(sorter.ripe(0))
    assert found == sorted(time for stream in streams.values() for time in stream)
    assert not sorter
    assert sorter.size == 0


def test_nothing_leaves_before_every_node_has_said_something() -> None:
    sorter = Sorter()
    sorter.open("a")
    sorter.open("b")
    sorter.add("a", [item(1), item(5)], 0)
    assert sorter.ripe(0) == []
    sorter.add("b", [item(3)], 0)
    assert numbers(sorter.ripe(0)) == [1, 3]
    sorter.close("b")
    assert numbers(sorter.ripe(0)) == [5]


def test_with_a_window_nobody_waits_longer_for_a_quiet_node() -> None:
    sorter = Sorter(window=1.0)
    for node in ("a", "b", "quiet"):
        sorter.open(node)
    sorter.add("a", [item(20)], now=10.0)
    sorter.add("b", [item(10)], now=10.5)
    assert sorter.ripe(10.9) == []
    # What is earlier leaves with it, however short it has waited.
    assert numbers(sorter.ripe(11.0)) == [10, 20]
    sorter.add("b", [item(15)], now=12.0)
    assert numbers(sorter.ripe(13.0)) == [15], "late, but not lost"


def test_news_without_time_stay_where_their_node_has_put_them() -> None:
    sorter = Sorter()
    sorter.open("a")
    sorter.open("b")
    sorter.add("a", [(1, b"1"), (0, b"lost"), (7, b"7")], 0)
    sorter.add("b", [(3, b"3"), (9, b"9")], 0)
    sorter.close("a")
    sorter.close("b")
    assert sorter.ripe(0) == [b"1", b"lost", b"3", b"7", b"9"]
