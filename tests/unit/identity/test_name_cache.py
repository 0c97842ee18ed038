"""What is known of names, held against a model that keeps every answer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from axoneme.identity.names import NameCache, NameLimits
from axoneme.identity.prefixes import address_bytes

ADDRESSES = [address_bytes(f"203.0.113.{n}") for n in range(4)]
NAMES = ["a.io", "b.io"]
#: An answer (to whom, of which name, with what), or a sweep (which addresses are used).
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["default/x", "default/y"]),
        st.sampled_from(NAMES),
        st.dictionaries(st.sampled_from(ADDRESSES), st.integers(0, 40), max_size=4),
    )
    | st.sets(st.sampled_from(ADDRESSES))
)


def names_of(cache: NameCache) -> dict[bytes, set[str]]:
    return {address: set(names) for address in cache.addresses if (names := cache.names(address))}


@given(STEPS)
def test_it_knows_what_answers_hold_and_what_is_used(steps: list[object]) -> None:
    cache, model = NameCache(NameLimits(floor=10)), dict[tuple[str, str, bytes], float]()
    now = 0.0
    for step in steps:
        now += 7
        before = names_of(cache)
        if isinstance(step, tuple):
            endpoint, name, addresses = step
            changed = cache.learn(endpoint, name, addresses, now)
            for address, ttl in addresses.items():
                key = endpoint, name, address
                model[key] = max(model.get(key, 0), now + max(ttl, 10))
        else:
            assert isinstance(step, set)
            changed = cache.sweep(now, step, now + 20)
            for key, until in list(model.items()):
                if until <= now and key[2] in step:
                    model[key] = now + 20
                elif until <= now:
                    del model[key]
        after = names_of(cache)
        assert {(known.endpoint, known.name, known.address): known.expires for known in cache} == model
        assert after == {
            address: {name for _, name, each in model if each == address} for _, _, address in model
        }
        assert changed == {a for a in before.keys() | after.keys() if before.get(a) != after.get(a)}
        assert cache.due(now) == {address for (_, _, address), until in model.items() if until <= now}


def many(first: int, count: int) -> dict[bytes, float]:
    return {address_bytes(f"198.18.{n // 256}.{n % 256}"): 300.0 for n in range(first, first + count)}


def test_beyond_the_limit_those_told_longest_ago_go_but_for_what_is_used() -> None:
    cache = NameCache(NameLimits(of_a_name=100))
    cache.learn("x", "a.io", many(0, 60), 1)
    cache.learn("x", "a.io", many(60, 60), 2)
    cache.learn("x", "a.io", many(0, 10), 3)  # told again: these are not the oldest any more
    used = set(many(10, 5))
    assert cache.sweep(3, used, 63) == set(many(15, 15))
    assert cache.addresses == {*many(0, 10), *used, *many(30, 90)}


def test_a_name_with_ever_other_addresses_takes_no_more_room_than_twice_its_limit() -> None:
    cache = NameCache(NameLimits(of_a_name=100))
    for time in range(0, 2000, 50):
        cache.learn("x", "a.io", many(time, 50), time)
        assert len(cache) <= 200
    assert set(many(1900, 100)) <= cache.addresses


def test_an_endpoint_that_asks_for_ever_other_names_takes_no_more_room_than_its_limit() -> None:
    cache = NameCache(NameLimits(in_all=100))
    cache.learn("other", "a.io", many(0, 1), 0)
    for n in range(200):
        cache.learn("x", f"{n}.io", many(n * 3, 3), n)
    assert len(list(cache)) <= 101
    assert list(cache.names(next(iter(many(0, 1))))) == ["a.io"]
    assert list(cache.names(next(iter(many(597, 1))))) == ["199.io"]


def test_what_an_earlier_agent_left_counts_while_it_is_used() -> None:
    cache = NameCache()
    for address in ADDRESSES[:2]:
        cache.inherit(address, frozenset({"*.io"}), 10)
    assert cache.due(9) == set()
    assert cache.sweep(10, {ADDRESSES[0]}, 70) == {ADDRESSES[1]}
    assert (cache.selectors(ADDRESSES[0]), cache.selectors(ADDRESSES[1])) == ({"*.io"}, frozenset())
