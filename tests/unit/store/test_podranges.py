from __future__ import annotations

import asyncio
from ipaddress import ip_network

import pytest

from axoneme.sources.podranges import Network, PodRangesExhausted, claim, claims, release
from axoneme.sources.store import Store

from .backends import Opener

FOUR: tuple[Network, int] = (ip_network("10.244.0.0/16"), 24)
SIX: tuple[Network, int] = (ip_network("fd00:10:244::/56"), 64)


def texts(prefixes: list[Network]) -> list[str]:
    return list(map(str, prefixes))


async def test_a_node_gets_a_range_of_each_pool_and_the_same_again(store: Store) -> None:
    pools = [FOUR, SIX]
    assert texts(await claim(store, "one", pools)) == ["10.244.0.0/24", "fd00:10:244::/64"]
    assert texts(await claim(store, "two", pools)) == ["10.244.1.0/24", "fd00:10:244:1::/64"]
    assert texts(await claim(store, "one", pools)) == ["10.244.0.0/24", "fd00:10:244::/64"]
    entry = await store.get("state/podranges/10.244.1.0_24")
    assert entry is not None
    assert entry.value == b'"two"'


async def test_nodes_that_ask_at_once_get_different_ranges(opener: Opener) -> None:
    stores = [opener() for _ in range(8)]
    ranges = await asyncio.gather(*(claim(store, f"n{at}", [FOUR]) for at, store in enumerate(stores)))
    assert sorted(str(one) for (one,) in ranges) == [f"10.244.{n}.0/24" for n in range(8)]


async def test_a_range_given_up_is_given_out_again(store: Store) -> None:
    for node in ("one", "two", "three"):
        await claim(store, node, [FOUR, SIX])
    assert len(await release(store, "two")) == 2
    assert await release(store, "two") == []
    assert set((await claims(store)).values()) == {"one", "three"}
    assert texts(await claim(store, "four", [FOUR])) == ["10.244.1.0/24"]


async def test_exhaustion_tells_the_numbers(store: Store) -> None:
    pool = (ip_network("10.0.0.0/30"), 30)
    await claim(store, "one", [pool])
    with pytest.raises(
        PodRangesExhausted, match=r"10\.0\.0\.0/30: no range of length /30 .* of 1 ranges 1 are"
    ):
        await claim(store, "two", [pool])


async def test_ranges_of_another_length_are_not_overlapped(store: Store) -> None:
    await claim(store, "wide", [(ip_network("10.244.0.0/16"), 20)])
    await claim(store, "narrow", [FOUR])
    assert texts(await claim(store, "wide2", [(ip_network("10.244.0.0/16"), 20)])) == ["10.244.32.0/20"]
    claimed = list(await claims(store))
    assert texts(claimed) == ["10.244.0.0/20", "10.244.16.0/24", "10.244.32.0/20"]


async def test_a_range_outside_the_pools_of_now_is_not_used_again(store: Store) -> None:
    await claim(store, "one", [(ip_network("10.9.0.0/16"), 24)])
    assert texts(await claim(store, "one", [FOUR])) == ["10.244.0.0/24"]


async def test_a_node_whose_ranges_shall_have_another_length_gets_a_new_one(store: Store) -> None:
    await claim(store, "one", [FOUR])
    assert texts(await claim(store, "one", [(FOUR[0], 20)])) == ["10.244.16.0/20"]


async def test_a_pool_that_a_larger_range_covers_is_exhausted(store: Store) -> None:
    await claim(store, "one", [(ip_network("10.0.0.0/8"), 8)])
    with pytest.raises(PodRangesExhausted):
        await claim(store, "two", [FOUR])


@pytest.mark.parametrize("length", [15, 31, 33])
async def test_an_impossible_length_is_refused(store: Store, length: int) -> None:
    with pytest.raises(ValueError, match=rf"prefix length {length}: expected 16 to 30"):
        await claim(store, "one", [(ip_network("10.244.0.0/16"), length)])
