"""`follow` against a store that does as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from axoneme.sources.follow import Sync, follow
from axoneme.sources.store import Change, Changes, Compacted, Entry, Listing, Unavailable

Step = Listing | Changes | Exception


class Scripted:
    """Answers each `list` and each batch of a `watch` with the next step of a script."""

    def __init__(self, *script: Step) -> None:
        self.script = list(script)
        self.asked: list[str] = []

    async def list(self, prefix: str) -> Listing:
        self.asked.append(f"list {prefix}")
        step = self.script.pop(0)
        if isinstance(step, Exception):
            raise step
        assert isinstance(step, Listing)
        return step

    async def watch(self, prefix: str, after: int) -> AsyncGenerator[Changes, None]:
        self.asked.append(f"watch {prefix} {after}")
        while self.script:
            step = self.script.pop(0)
            if isinstance(step, Exception):
                raise step
            assert isinstance(step, list)
            yield step
        raise EOFError


async def run(store: Scripted, pauses: list[float] | None = None) -> list[Sync | Changes]:
    async def sleep(seconds: float) -> None:
        if pauses is not None:
            pauses.append(seconds)

    news = []
    with pytest.raises(EOFError):
        async for each in follow(store, "n/", sleep=sleep):  # type: ignore[arg-type]
            news.append(each)
    return news


def entry(key: str, revision: int) -> Entry:
    return Entry(key, b"%d" % revision, revision)


def put(key: str, revision: int) -> Change:
    return Change(key, b"%d" % revision, revision)


async def test_an_empty_prefix_syncs_at_once() -> None:
    assert await run(Scripted(Listing([], 7))) == [Sync(7)]


async def test_missed_changes_come_as_differences() -> None:
    store = Scripted(
        Listing([entry("n/a", 1), entry("n/b", 2), entry("n/c", 3)], 5),
        [put("n/d", 6), Change("n/a", None, 7)],
        Compacted(7, 90),
        Listing([entry("n/b", 2), entry("n/c", 50), entry("n/e", 60)], 100),
        [put("n/f", 101)],
    )
    assert await run(store) == [
        [put("n/a", 1), put("n/b", 2), put("n/c", 3)],
        Sync(5),
        [put("n/d", 6), Change("n/a", None, 7)],
        [Change("n/d", None, 100), put("n/c", 50), put("n/e", 60)],
        Sync(100),
        [put("n/f", 101)],
    ]
    assert store.asked == ["list n/", "watch n/ 5", "list n/", "watch n/ 100"]


async def test_a_lost_connection_goes_on_where_it_was() -> None:
    store = Scripted(Listing([], 5), [put("n/a", 6)], Unavailable("gone"), [put("n/b", 9)])
    assert await run(store) == [Sync(5), [put("n/a", 6)], [put("n/b", 9)]]
    assert store.asked == ["list n/", "watch n/ 5", "watch n/ 6"]


async def test_pauses_double_and_begin_anew_after_a_success() -> None:
    pauses: list[float] = []
    gone = [Unavailable("gone")] * 9
    again: list[Step] = [Unavailable("gone"), Unavailable("gone"), [put("n/a", 6)], Unavailable("gone")]
    await run(Scripted(*gone, Listing([], 5), *again), pauses)
    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 0.05, 0.1, 0.05]


async def test_a_store_that_lost_its_newest_revisions_is_taken_as_it_is() -> None:
    store = Scripted(
        Listing([entry("n/a", 1), entry("n/b", 8)], 8),
        Compacted(8, 0),
        Listing([entry("n/a", 1), entry("n/c", 5)], 5),
    )
    # n/a may be another value under the same revision, so it is told again.
    assert (await run(store))[2:] == [[Change("n/b", None, 5), put("n/a", 1), put("n/c", 5)], Sync(5)]


async def test_cancelling_ends_it() -> None:
    class Silent(Scripted):
        async def watch(self, prefix: str, after: int) -> AsyncGenerator[Changes, None]:
            await asyncio.Event().wait()
            yield []

    async def consume() -> None:
        async for _ in follow(Silent(Listing([], 5)), "n/"):  # type: ignore[arg-type]
            started.set()

    started = asyncio.Event()
    task = asyncio.create_task(consume())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
