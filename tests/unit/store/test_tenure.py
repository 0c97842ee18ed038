"""Keys that one of many holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from axoneme.sources.store import Store, Unavailable
from axoneme.sources.tenure import Tenure, Timing, boot_time

from .backends import Opener

QUICK = Timing(lease_duration=1.0, renew=0.2, retry=0.1)


@asynccontextmanager
async def running(work: Awaitable[None]) -> AsyncIterator[asyncio.Future[None]]:
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await true():
            await asyncio.sleep(0.02)


async def test_one_holds_a_key_and_gives_it_back(opener: Opener) -> None:
    store = opener()
    one, other = Tenure(store, QUICK), Tenure(store, QUICK)
    assert await one.take("office", b"one")
    assert not await other.take("office", b"other")
    assert one.until <= boot_time() + (await store.grant(1.0)).ttl
    await one.release("office")
    assert await other.take("office", b"other")
    entry = await store.get("office")
    assert entry is not None
    assert entry.value == b"other"


async def test_a_lease_is_renewed_while_it_runs_and_what_hangs_on_it_goes_at_its_end(opener: Opener) -> None:
    store = opener()
    tenure = Tenure(store, QUICK)
    async with running(tenure.run()):
        assert await tenure.take("office", b"")
        assert await tenure.take("other", b"")
        first = tenure.until

        async def renewed_often() -> bool:
            assert await store.get("office")
            return tenure.until > first + 2 * QUICK.lease_duration

        await until(renewed_often)
    assert await store.get("office") is None
    assert await store.get("other") is None
    assert not tenure.held


async def test_who_does_not_renew_loses_all(opener: Opener) -> None:
    store = opener()
    silent, other = Tenure(store, QUICK), Tenure(store, QUICK)
    assert await silent.take("office", b"")
    await until(lambda: other.take("office", b""))
    assert boot_time() >= silent.until


async def test_a_successor_of_the_same_name_takes_over_at_once(opener: Opener) -> None:
    store = opener()
    killed, successor = Tenure(store, QUICK), Tenure(store, Timing())
    assert await killed.take("office", b"me")
    assert await successor.take("office", b"me", killed.held["office"])
    # The former lease no longer matters to the key.
    await asyncio.sleep(1.5 * QUICK.lease_duration)
    assert await store.get("office")


class Broken:
    """A store that cannot be reached, after a while."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.broken = False

    def __getattr__(self, name: str) -> object:
        if self.broken:
            raise Unavailable("broken")
        return getattr(self._store, name)


async def test_what_cannot_be_renewed_is_held_until_it_lapses_and_no_longer(opener: Opener) -> None:
    broken = Broken(opener())
    told: list[bool] = []
    tenure = Tenure(broken, QUICK, lambda: told.append("office" in tenure.held))  # type: ignore[arg-type]
    async with running(tenure.run()):
        assert await tenure.take("office", b"")
        broken.broken = True

        async def lost() -> bool:
            return bool(told) and not told[-1]

        until_then = tenure.until
        await until(lost)
        assert boot_time() >= until_then
        assert told[0]
        broken.broken = False
        await until(lambda: tenure.take("office", b""))


async def test_what_could_not_be_given_back_is_given_back_later(opener: Opener) -> None:
    store = opener()
    broken = Broken(store)
    tenure = Tenure(broken, QUICK)  # type: ignore[arg-type]
    async with running(tenure.run()):
        assert await tenure.take("kept", b"")
        assert await tenure.take("office", b"")
        broken.broken = True
        await tenure.release("office")
        assert "office" not in tenure.held
        broken.broken = False

        async def free() -> bool:
            return await store.get("office") is None

        await until(free)
        assert await store.get("kept")


def test_times_that_make_no_sense_are_refused() -> None:
    for wrong in ({"renew": 20.0}, {"retry": 6.0}, {"retry": 0.0}):
        with pytest.raises(ValueError, match="expected retry <= renew < lease_duration"):
            Timing(**wrong)
