"""What every store promises, whoever keeps it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress

import pytest

from axoneme.sources.follow import Sync, follow
from axoneme.sources.store import (
    Change,
    Compacted,
    Conflict,
    Delete,
    Entry,
    Lease,
    LeaseExpired,
    Put,
    Store,
)

from .backends import Backend, Opener, process

PATIENCE = 20.0


async def take(batches: AsyncGenerator[list[Change], None], count: int) -> list[Change]:
    """The next ``count`` changes of a watch."""
    changes: list[Change] = []
    async with asyncio.timeout(PATIENCE):
        while len(changes) < count:
            changes += await anext(batches)
    assert len(changes) == count
    return changes


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.002)


# ---- keys --------------------------------------------------------------------------------------


async def test_a_key_holds_what_was_put_last(store: Store) -> None:
    assert await store.get("a") is None
    first = await store.put("a", b"1")
    second = await store.put("a", b"\x00\xff2")
    assert second > first
    assert await store.get("a") == Entry("a", b"\x00\xff2", second)


async def test_an_empty_value_is_a_value(store: Store) -> None:
    revision = await store.put("a", b"")
    assert await store.get("a") == Entry("a", b"", revision)
    async with aclosing(store.watch("a", revision - 1)) as batches:
        assert await take(batches, 1) == [Change("a", b"", revision)]


async def test_delete_tells_whether_there_was_something(store: Store) -> None:
    await store.put("a", b"1")
    assert await store.delete("a") is True
    assert await store.delete("a") is False
    assert await store.get("a") is None


async def test_a_listing_is_in_order_and_by_prefix(store: Store) -> None:
    for key in ("n/b", "n/a", "n", "n/a/1", "o", "nn", "n/ä"):
        await store.put(key, key.encode())
    listing = await store.list("n/")
    assert [entry.key for entry in listing.entries] == ["n/a", "n/a/1", "n/b", "n/ä"]
    assert [entry.value.decode() for entry in listing.entries] == ["n/a", "n/a/1", "n/b", "n/ä"]
    assert [entry.key for entry in (await store.list("")).entries] == sorted(
        ["n/b", "n/a", "n", "n/a/1", "o", "nn", "n/ä"]
    )


async def test_a_listing_longer_than_any_page_is_one_snapshot(store: Store, opener: Opener) -> None:
    for start in range(0, 2600, 100):
        await store.transact({}, [Put(f"n/{number:05}", b"0") for number in range(start, start + 100)])
    stop = asyncio.Event()

    async def disturb() -> None:
        other, number = opener(), 0
        while not stop.is_set():
            number += 1
            # The first and the last key always change together.
            value = str(number).encode()
            await other.transact({}, [Put("n/00000", value), Put("n/02599", value)])

    async with asyncio.TaskGroup() as group:
        group.create_task(disturb())
        for _ in range(10):
            listing = await store.list("n/")
            assert len(listing.entries) == 2600
            assert listing.entries[0].value == listing.entries[-1].value
            assert max(entry.revision for entry in listing.entries) <= listing.revision
        stop.set()


async def test_revisions_rise_with_every_write_seen_by_everyone(store: Store, opener: Opener) -> None:
    other = opener()
    first = await store.put("a", b"")
    second = await other.put("b", b"")
    third = await store.put("a", b"")
    assert first < second < third
    assert (await other.list("")).revision == third


# ---- transactions ------------------------------------------------------------------------------


async def test_a_transaction_changes_all_its_keys_at_one_revision(store: Store) -> None:
    old = await store.put("old", b"")
    revision = await store.transact({"old": old, "new": 0}, [Put("new", b"1"), Delete("old"), Put("x", b"2")])
    assert await store.get("new") == Entry("new", b"1", revision)
    assert await store.get("x") == Entry("x", b"2", revision)
    assert await store.get("old") is None
    async with aclosing(store.watch("", old)) as batches:
        assert sorted(await take(batches, 3), key=lambda change: change.key) == [
            Change("new", b"1", revision),
            Change("old", None, revision),
            Change("x", b"2", revision),
        ]


@pytest.mark.parametrize("expected", ["absent", "older", "newer", "there"])
async def test_a_transaction_that_finds_another_revision_changes_nothing(store: Store, expected: str) -> None:
    await store.put("a", b"1")
    now = await store.put("a", b"2")
    key, revision, found = {
        "absent": ("a", 0, now),
        "older": ("a", now - 1, now),
        "newer": ("a", now + 1, now),
        "there": ("nothing", now, 0),
    }[expected]
    with pytest.raises(Conflict) as caught:
        await store.transact({key: revision}, [Put("b", b""), Put("a", b"3")])
    assert (caught.value.key, caught.value.expected, caught.value.found) == (key, revision, found)
    assert (await store.list("")).revision == now
    assert await store.get("a") == Entry("a", b"2", now)
    assert await store.get("b") is None


async def test_a_transaction_with_nothing_to_do_makes_no_revision(store: Store) -> None:
    now = await store.put("a", b"")
    assert await store.transact({"a": now}, [Delete("b")]) == now
    assert await store.transact({"a": now}, []) == now
    assert (await store.list("")).revision == now


async def test_a_transaction_that_names_a_key_twice_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="twice: a"):
        await store.transact({}, [Put("a", b"1"), Put("b", b""), Delete("a")])


async def test_no_increment_of_racing_processes_is_lost(store: Store, backend: Backend) -> None:
    async with process(backend, "increment", "n", 100) as one, process(backend, "increment", "n", 100) as two:
        assert [await asyncio.to_thread(each.wait, PATIENCE) for each in (one, two)] == [0, 0]
    entry = await store.get("n")
    assert entry is not None
    assert entry.value == b"200"


# ---- watches -----------------------------------------------------------------------------------


async def test_a_watch_tells_the_past_after_its_revision_and_then_the_future(
    store: Store, opener: Opener
) -> None:
    other = opener()
    one = await store.put("n/a", b"1")
    two = await store.put("n/a", b"2")
    await store.put("m", b"")
    async with aclosing(store.watch("n/", one)) as batches:
        assert await take(batches, 1) == [Change("n/a", b"2", two)]
        await other.put("m", b"")
        await other.delete("n/a")
        three = (await other.list("")).revision
        assert await take(batches, 1) == [Change("n/a", None, three)]
        four = await store.put("n/b", b"4")
        assert await take(batches, 1) == [Change("n/b", b"4", four)]


async def test_watchers_of_different_prefixes_each_get_theirs(store: Store) -> None:
    start = await store.put("start", b"")
    async with aclosing(store.watch("a/", start)) as a, aclosing(store.watch("", start)) as everything:
        first, second = asyncio.create_task(take(a, 2)), asyncio.create_task(take(everything, 4))
        for key in ("a/1", "b/1", "b/2", "a/2"):
            await store.put(key, b"")
            await asyncio.sleep(0.001)
        assert [change.key for change in await first] == ["a/1", "a/2"]
        assert [change.key for change in await second] == ["a/1", "b/1", "b/2", "a/2"]


async def test_a_watch_misses_nothing_while_processes_write(store: Store, backend: Backend) -> None:
    """Every write of three processes, in order, whole transactions in one batch, from two watchers."""
    times = 300
    start = await store.put("start", b"")

    async def watch(prefix: str, pairs: int) -> list[Change]:
        changes: list[Change] = []
        async with asyncio.timeout(PATIENCE), aclosing(store.watch(prefix, start)) as batches:
            async for batch in batches:
                assert len({(change.revision, change.key) for change in batch}) == len(batch)
                revisions = [change.revision for change in batch]
                assert all(revisions.count(revision) == 2 for revision in set(revisions)), (
                    "half a transaction"
                )
                changes += batch
                if len(changes) >= 2 * pairs:
                    break
        return changes

    watching = [asyncio.create_task(watch("w/", 3 * times)), asyncio.create_task(watch("w/b/", times))]
    async with (
        process(backend, "write", "w/a/", times),
        process(backend, "write", "w/b/", times),
        process(backend, "write", "w/c/", times),
    ):
        everything, of_b = [await each for each in watching]
    for changes, prefixes in ((everything, "abc"), (of_b, "b")):
        revisions = [change.revision for change in changes]
        assert revisions == sorted(revisions)
        for prefix in prefixes:
            for side in ("left", "right"):
                values = [change.value for change in changes if change.key == f"w/{prefix}/{side}"]
                assert values == [str(number).encode() for number in range(times)]


async def test_a_backlog_longer_than_any_batch_arrives_whole(store: Store) -> None:
    start = await store.put("start", b"")
    value = b"x" * 10_000
    for number in range(1500):
        await store.put(f"n/{number}", value)
    async with aclosing(store.watch("n/", start)) as batches:
        changes = await take(batches, 1500)
    assert [change.key for change in changes] == [f"n/{number}" for number in range(1500)]
    assert all(change.value == value for change in changes)


async def test_a_watch_of_what_is_forgotten_is_told_so(store: Store, backend: Backend) -> None:
    start = await store.put("n/a", b"1")
    await store.put("n/a", b"2")
    await backend.forget(store)
    with pytest.raises(Compacted) as caught:
        async with asyncio.timeout(PATIENCE), aclosing(store.watch("n/", start)) as batches:
            await anext(batches)
    assert caught.value.after == start
    assert caught.value.oldest > start


async def test_a_watch_from_a_future_that_never_was_is_told_so(store: Store) -> None:
    now = await store.put("n/a", b"1")
    with pytest.raises(Compacted):
        async with asyncio.timeout(PATIENCE), aclosing(store.watch("n/", now + 10)) as batches:
            await anext(batches)


async def test_a_quiet_watch_survives_what_others_make_the_store_forget(
    store: Store, backend: Backend
) -> None:
    start = await store.put("n/a", b"1")
    async with aclosing(store.watch("n/", start)) as batches:
        waiting = asyncio.create_task(take(batches, 1))
        await asyncio.sleep(0)
        await backend.forget(store)
        revision = await store.put("n/a", b"2")
        assert await waiting == [Change("n/a", b"2", revision)]


async def test_a_cancelled_watch_leaves_the_store_usable(store: Store) -> None:
    start = await store.put("n/a", b"1")

    async def watch() -> None:
        async with aclosing(store.watch("n/", start)) as batches:
            async for _ in batches:
                pass

    task = asyncio.create_task(watch())
    await store.put("n/a", b"2")
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    await store.put("n/a", b"3")
    async with aclosing(store.watch("n/", start)) as batches:
        assert [change.value for change in await take(batches, 2)] == [b"2", b"3"]


# ---- leases ------------------------------------------------------------------------------------


async def test_keys_of_an_expired_lease_are_deleted_and_watchers_see_it(store: Store, opener: Opener) -> None:
    watcher = opener()
    lease = await store.grant(1)
    await store.put("n/leased", b"", lease)
    start = await store.put("n/own", b"")
    async with aclosing(watcher.watch("n/", start)) as batches:
        (change,) = await take(batches, 1)
    assert (change.key, change.value) == ("n/leased", None)
    assert await store.get("n/leased") is None
    assert await store.get("n/own") is not None
    with pytest.raises(LeaseExpired):
        await store.keep_alive(lease)
    with pytest.raises(LeaseExpired):
        await store.put("n/leased", b"", lease)
    with pytest.raises(LeaseExpired):
        await store.transact({}, [Put("n/other", b""), Put("n/leased", b"", lease)])
    assert await store.get("n/other") is None


async def test_a_lease_kept_alive_lives_longer_than_its_time(store: Store) -> None:
    loop = asyncio.get_running_loop()
    lease = await store.grant(1)
    start = loop.time()
    await store.put("leased", b"", lease)
    while loop.time() < start + 2.5 * lease.ttl:
        await store.keep_alive(lease)
        assert await store.get("leased") is not None
        await asyncio.sleep(lease.ttl / 10)


async def test_a_revoked_lease_takes_its_keys_along(store: Store) -> None:
    lease, other = await store.grant(60), await store.grant(60)
    start = await store.put("a", b"", lease)
    await store.put("b", b"", other)
    await store.put("c", b"", lease)
    await store.revoke(lease)
    await store.revoke(lease)
    assert [entry.key for entry in (await store.list("")).entries] == ["b"]
    async with aclosing(store.watch("", start + 2)) as batches:
        assert {change.key for change in await take(batches, 2)} == {"a", "c"}


async def test_a_key_put_anew_hangs_on_the_lease_of_that_put_alone(store: Store) -> None:
    one, two = await store.grant(60), await store.grant(60)
    for key in ("freed", "moved", "kept"):
        await store.put(key, b"", one)
    await store.put("freed", b"")
    await store.put("moved", b"", two)
    await store.revoke(one)
    assert [entry.key for entry in (await store.list("")).entries] == ["freed", "moved"]
    await store.revoke(two)
    assert [entry.key for entry in (await store.list("")).entries] == ["freed"]


async def test_a_lease_that_never_was_has_expired(store: Store) -> None:
    with pytest.raises(LeaseExpired):
        await store.keep_alive(Lease(123456789, 1))


# ---- following ---------------------------------------------------------------------------------


class Follower:
    """Takes what `follow` yields into a copy of the prefix."""

    def __init__(self, store: Store, prefix: str) -> None:
        self.copy: dict[str, bytes] = {}
        self.syncs: list[int] = []
        self._task = asyncio.create_task(self._run(store, prefix))

    async def _run(self, store: Store, prefix: str) -> None:
        async for news in follow(store, prefix, first_pause=0.001):
            if isinstance(news, Sync):
                self.syncs.append(news.revision)
                continue
            for change in news:
                if change.value is None:
                    del self.copy[change.key]
                else:
                    self.copy[change.key] = change.value

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})


async def test_following_gives_what_is_there_then_what_comes(store: Store) -> None:
    await store.put("n/a", b"1")
    follower = Follower(store, "n/")
    await eventually(lambda: follower.syncs != [])
    assert follower.copy == {"n/a": b"1"}
    await store.put("n/b", b"2")
    await store.delete("n/a")
    await eventually(lambda: follower.copy == {"n/b": b"2"})
    assert len(follower.syncs) == 1
    await follower.stop()


async def test_closed_stores_raise_and_end_their_watches(store: Store) -> None:
    from axoneme.sources.store import Unavailable

    start = await store.put("n/a", b"1")

    async def watch() -> None:
        async with aclosing(store.watch("n/", start)) as batches:
            await anext(batches)

    task = asyncio.create_task(watch())
    await asyncio.sleep(0.05)  # whether it waits already or has not begun, it must end
    await store.close()
    with pytest.raises(Unavailable):
        await asyncio.wait_for(task, PATIENCE)
    with pytest.raises(Unavailable):
        await store.get("n/a")
