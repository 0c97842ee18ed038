"""Identity numbers through a store: agreement, holds, collection."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest

from axoneme.identity.numbers import cluster_of, is_cluster
from axoneme.model.labels import Labels
from axoneme.model.state import (
    IDENTITIES,
    NODES,
    IdentityState,
    NodeState,
    decode,
    encode,
    identity_key,
    node_key,
)
from axoneme.sources import identities as module
from axoneme.sources.identities import (
    BY_LABELS,
    HOLDS,
    Collected,
    Collector,
    Identities,
    IdentitiesExhausted,
    hold_key,
    labels_key,
)
from axoneme.sources.store import Store

from .backends import Opener, Sqlite

GRACE = 60.0
WEB, DB = Labels.parse(["k8s:app=web"]), Labels.parse(["k8s:app=db"])


@pytest.fixture
def sqlite(tmp_path: Path) -> Sqlite:
    return Sqlite(tmp_path / "store.db")


async def keys(store: Store, prefix: str) -> list[str]:
    return [entry.key.removeprefix(prefix) for entry in (await store.list(prefix)).entries]


async def join(store: Store, *nodes: str) -> None:
    for node in nodes:
        await store.put(node_key(node), encode(NodeState(node)))


# ---- agreement ---------------------------------------------------------------------------------


async def test_labels_have_one_number_everywhere_and_numbers_one_set_of_labels(opener: Opener) -> None:
    store = opener()
    one, two = Identities(opener(), "one"), Identities(opener(), "two")
    web, db = await one.acquire(WEB, "a"), await one.acquire(DB, "b")
    assert web != db
    assert is_cluster(web)
    assert await two.acquire(WEB, "c") == web
    entry = await store.get(identity_key(web))
    assert entry is not None
    assert decode(entry.value, IdentityState, entry.key) == IdentityState(["k8s:app=web"])
    assert sorted(await keys(store, HOLDS)) == sorted([f"one/{web}", f"one/{db}", f"two/{web}"])


async def test_nodes_that_ask_at_once_agree(opener: Opener) -> None:
    nodes = [Identities(opener(), f"node{n}") for n in range(8)]
    sets = [Labels.parse([f"k8s:app=a{n}"]) for n in range(10)]
    answers = await asyncio.gather(*(node.acquire(labels, "x") for labels in sets for node in nodes))
    by_labels = [set(answers[start : start + len(nodes)]) for start in range(0, len(answers), len(nodes))]
    assert [len(numbers) for numbers in by_labels] == [1] * len(sets)
    assert len(set(answers)) == len(sets)
    assert len(await keys(nodes[0]._store, HOLDS)) == len(nodes) * len(sets)


async def test_labels_in_another_order_are_the_same_labels(store: Store) -> None:
    one = Identities(store, "one")
    number = await one.acquire(Labels.parse(["k8s:a=1", "k8s:b=2"]), "x")
    assert await one.acquire(Labels.parse(["k8s:b=2", "k8s:a=1"]), "y") == number


async def test_a_new_cluster_gets_the_old_numbers(tmp_path: Path) -> None:
    numbers = []
    for name in ("first", "second"):
        store = Sqlite(tmp_path / name).open()
        numbers.append([await Identities(store, "one").acquire(labels, "x") for labels in (WEB, DB)])
        await store.close()
    assert numbers[0] == numbers[1]


async def test_a_number_in_a_mesh_carries_the_cluster(store: Store) -> None:
    number = await Identities(store, "one", cluster=7).acquire(WEB, "x")
    assert cluster_of(number) == 7
    assert is_cluster(number)


async def test_numbers_run_out_with_a_clear_error_and_not_before(
    sqlite: Sqlite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SIZE", 20)
    store = sqlite.open()
    one = Identities(store, "one")
    numbers = [await one.acquire(Labels.parse([f"k8s:app=a{n}"]), "x") for n in range(20)]
    assert sorted(numbers) == list(range(256, 276))
    with pytest.raises(IdentitiesExhausted, match="all 20 identity numbers of cluster 0 are in use"):
        await one.acquire(WEB, "x")
    assert await one.acquire(Labels.parse(["k8s:app=a7"]), "y") == numbers[7]
    await store.close()


# ---- holds -------------------------------------------------------------------------------------


async def test_a_hold_lasts_until_its_last_user_has_released(store: Store) -> None:
    one = Identities(store, "one")
    number = await one.acquire(WEB, "a")
    assert await one.acquire(WEB, "b") == number
    assert await one.acquire(WEB, "b") == number
    await one.release(WEB, "a")
    assert await keys(store, HOLDS) == [f"one/{number}"]
    await one.release(WEB, "b")
    await one.release(WEB, "b")
    assert await keys(store, HOLDS) == []
    assert await one.acquire(WEB, "c") == number


async def test_releasing_while_another_acquires_leaves_the_hold(store: Store) -> None:
    one = Identities(store, "one")
    for _ in range(50):
        number = await one.acquire(WEB, "a")
        await asyncio.gather(one.release(WEB, "a"), one.acquire(WEB, "b"))
        assert await keys(store, HOLDS) == [f"one/{number}"]
        await asyncio.gather(one.acquire(WEB, "a"), one.release(WEB, "b"))
        assert await keys(store, HOLDS) == [f"one/{number}"]


async def test_a_restarted_agent_keeps_what_it_needs_and_gives_up_the_rest(store: Store) -> None:
    before = Identities(store, "one")
    web, db = await before.acquire(WEB, "a"), await before.acquire(DB, "b")
    await Identities(store, "two").acquire(DB, "c")
    after = Identities(store, "one")  # the one before was killed
    assert await after.acquire(WEB, "a") == web
    assert await after.prune() == 1
    assert sorted(await keys(store, HOLDS)) == sorted([f"one/{web}", f"two/{db}"])


# ---- collection --------------------------------------------------------------------------------


@dataclass
class Cluster:
    """A store with nodes, and a collector."""

    store: Store
    one: Identities
    two: Identities
    collector: Collector


@pytest.fixture
async def cluster(store: Store) -> Cluster:
    await join(store, "one", "two")
    return Cluster(store, Identities(store, "one"), Identities(store, "two"), Collector(store, GRACE))


async def test_a_number_without_holds_goes_after_the_grace_period_and_not_before(cluster: Cluster) -> None:
    number = await cluster.one.acquire(WEB, "a")
    assert await cluster.collector.collect(1000) == Collected()
    await cluster.one.release(WEB, "a")
    assert await cluster.collector.collect(2000) == Collected(marked=(number,))
    assert await cluster.collector.collect(2000 + GRACE - 1) == Collected()
    assert await keys(cluster.store, IDENTITIES) == [str(number)]
    assert await cluster.collector.collect(2000 + GRACE) == Collected(deleted=(number,))
    assert await keys(cluster.store, "state/identities/") == []


async def test_a_number_that_one_node_still_holds_stays(cluster: Cluster) -> None:
    await cluster.one.acquire(WEB, "a")
    await cluster.two.acquire(WEB, "b")
    await cluster.one.release(WEB, "a")
    for now in (1000, 2000, 3000):
        assert await cluster.collector.collect(now) == Collected()


async def test_a_marked_number_that_is_wanted_again_stays(cluster: Cluster) -> None:
    number = await cluster.one.acquire(WEB, "a")
    await cluster.one.release(WEB, "a")
    await cluster.collector.collect(1000)
    assert await cluster.two.acquire(WEB, "b") == number
    assert await cluster.collector.collect(1000 + 2 * GRACE) == Collected()
    await cluster.two.release(WEB, "b")
    # The grace period begins anew.
    assert await cluster.collector.collect(2000) == Collected(marked=(number,))
    assert await cluster.collector.collect(2000 + GRACE - 1) == Collected()


async def test_the_mark_outlives_the_collector(cluster: Cluster) -> None:
    number = await cluster.one.acquire(WEB, "a")
    await cluster.one.release(WEB, "a")
    await cluster.collector.collect(1000)
    assert await Collector(cluster.store, GRACE).collect(1000 + GRACE) == Collected(deleted=(number,))


async def test_a_number_is_not_given_to_others_within_the_grace_period(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SIZE", 1)
    number = await cluster.one.acquire(WEB, "a")
    await cluster.one.release(WEB, "a")
    await cluster.collector.collect(1000)
    await cluster.collector.collect(1000 + GRACE - 1)
    with pytest.raises(IdentitiesExhausted):
        await cluster.two.acquire(DB, "b")
    await cluster.collector.collect(1000 + GRACE)
    assert await cluster.two.acquire(DB, "b") == number


async def test_a_hold_that_slipped_in_beside_a_mark_saves_the_number(cluster: Cluster) -> None:
    """A node's hold and a collector's mark may be written at once, neither seeing the other."""
    number = await cluster.one.acquire(WEB, "a")
    await cluster.one.release(WEB, "a")
    await cluster.collector.collect(1000)
    await cluster.store.put(hold_key("two", number), b"{}")
    assert await cluster.collector.collect(1000 + GRACE) == Collected(kept=(number,))
    assert await cluster.collector.collect(1000 + 2 * GRACE) == Collected()


async def test_a_number_acquired_while_it_is_deleted_is_not_lost(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another node acquires between the collector's look and its deletion."""
    number = await cluster.one.acquire(WEB, "a")
    await cluster.one.release(WEB, "a")
    await cluster.collector.collect(1000)
    look = cluster.store.list

    async def look_then_acquire(prefix: str):  # type: ignore[no-untyped-def]
        listing = await look(prefix)
        if prefix == HOLDS:
            assert await cluster.two.acquire(WEB, "b") == number
        return listing

    monkeypatch.setattr(cluster.store, "list", look_then_acquire)
    assert await cluster.collector.collect(1000 + GRACE) == Collected()
    monkeypatch.undo()
    assert await cluster.collector.collect(1000 + 2 * GRACE) == Collected()
    assert await keys(cluster.store, IDENTITIES) == [str(number)]


async def test_a_clock_that_was_ahead_does_not_keep_a_number_for_ever(cluster: Cluster) -> None:
    number = await cluster.one.acquire(WEB, "a")
    await cluster.one.release(WEB, "a")
    await cluster.collector.collect(1e9)
    assert await cluster.collector.collect(1000) == Collected(marked=(number,))
    assert await cluster.collector.collect(1000 + GRACE) == Collected(deleted=(number,))


async def test_a_node_that_is_gone_loses_its_holds_after_the_grace_period(cluster: Cluster) -> None:
    number = await cluster.one.acquire(WEB, "a")
    shared = await cluster.one.acquire(DB, "a")
    await cluster.two.acquire(DB, "b")
    await cluster.store.delete(node_key("one"))
    assert await cluster.collector.collect(1000) == Collected()
    assert await cluster.collector.collect(1000 + GRACE - 1) == Collected()
    collected = await cluster.collector.collect(1000 + GRACE)
    assert collected == Collected(nodes=("one",))
    assert await keys(cluster.store, HOLDS) == [f"two/{shared}"]
    assert await cluster.collector.collect(2000) == Collected(marked=(number,))
    assert await cluster.collector.collect(2000 + GRACE) == Collected(deleted=(number,))


async def test_a_node_that_comes_back_keeps_its_holds(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = await cluster.one.acquire(WEB, "a")
    await cluster.store.delete(node_key("one"))
    await cluster.collector.collect(1000)
    await join(cluster.store, "one")
    await cluster.collector.collect(1010)
    await cluster.store.delete(node_key("one"))
    # Gone again, which counts from now.
    assert await cluster.collector.collect(1000 + GRACE) == Collected()
    look = cluster.store.list

    async def look_then_join(prefix: str):  # type: ignore[no-untyped-def]
        listing = await look(prefix)
        if prefix == NODES:
            await join(cluster.store, "one")
        return listing

    monkeypatch.setattr(cluster.store, "list", look_then_join)
    await cluster.collector.collect(1000 + 3 * GRACE)
    assert await keys(cluster.store, HOLDS) == [f"one/{number}"]


async def test_a_node_with_more_holds_than_a_transaction_takes_is_forgotten_too(cluster: Cluster) -> None:
    for number in range(256, 256 + 250):
        await cluster.store.put(hold_key("old", number), b"{}")
    await cluster.collector.collect(1000)
    assert (await cluster.collector.collect(1000 + GRACE)).nodes == ("old",)
    assert await keys(cluster.store, HOLDS) == []


async def test_collectors_and_nodes_at_work_together_never_part_labels_from_their_number(
    opener: Opener,
) -> None:
    """Everything at once with no grace at all; what a node holds must be there, and mean what it meant."""
    store = opener()
    await join(store, "one", "two")
    sets = [Labels.parse([f"k8s:app=a{n}"]) for n in range(3)]
    ended = False

    async def churn(node: Identities) -> None:
        for round_ in range(60):
            labels = sets[round_ % len(sets)]
            number = await node.acquire(labels, "x")
            await asyncio.sleep(0)
            entry = await store.get(identity_key(number))
            assert entry is not None, f"{number} was collected while it was held"
            assert decode(entry.value, IdentityState, entry.key).labels == labels.texts()
            await node.release(labels, "x")

    async def collect(collector: Collector) -> None:
        now = 0.0
        while not ended:
            now += 1
            await collector.collect(now)

    async with asyncio.TaskGroup() as group:
        collectors = [group.create_task(collect(Collector(opener(), 0))) for _ in range(2)]
        await asyncio.gather(*(churn(Identities(opener(), node)) for node in ("one", "two")))
        ended = True
        await asyncio.gather(*collectors)
    numbers, by_labels = await keys(store, IDENTITIES), await keys(store, BY_LABELS)
    assert len(numbers) == len(by_labels)
    assert set(by_labels) <= {labels_key(labels).removeprefix(BY_LABELS) for labels in sets}
