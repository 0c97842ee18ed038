"""Outstanding questions against a list."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from axoneme.proxy.dns.outstanding import Outstanding

MOST, MOST_EACH = 6, 3
STEP = st.tuples(st.just("add"), st.sampled_from("abcd")) | st.tuples(st.just("drop"), st.integers(0, 9))


@given(st.lists(STEP, max_size=40))
def test_the_oldest_of_who_has_most_make_room_and_nobody_has_more_than_his_share(
    steps: list[tuple[str, object]],
) -> None:
    table: Outstanding[int] = Outstanding(MOST, MOST_EACH)
    listed: list[tuple[int, str]] = []
    for number, (what, which) in enumerate(steps):
        if what == "drop":
            key = listed[int(str(which)) % len(listed)][0] if listed else -1
            assert table.discard(key) == bool(listed)
            listed = [each for each in listed if each[0] != key]
            continue
        client = str(which)
        own = [each for each in listed if each[1] == client]
        said = table.add(number, client, float(number))
        if len(own) == MOST_EACH:
            displaced = own[0]
        elif len(listed) == MOST:
            displaced = next(each for each in listed if each[0] == said)
            counts = Counter(each[1] for each in listed)
            assert counts[displaced[1]] == max(counts.values())
            assert displaced == next(each for each in listed if each[1] == displaced[1])
        else:
            displaced = None
        assert said == (displaced[0] if displaced else None)
        listed = [*(each for each in listed if each != displaced), (number, client)]
        assert len(table) == len(listed)
    middle = len(steps) / 2
    assert list(table.before(middle)) == [key for key, _ in listed if key < middle]
    assert list(table.before(1e9)) == [key for key, _ in listed if key >= middle]
