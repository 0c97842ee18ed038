"""What only the SQLite store must stand: killed processes, lost wake-ups, locks, clocks, odd files."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path

import pytest

from axoneme.sources import sqlite as sqlite_store
from axoneme.sources import sqlite_schema
from axoneme.sources.inotify import Bell
from axoneme.sources.sqlite import SqliteStore
from axoneme.sources.sqlite_schema import WrongDatabase
from axoneme.sources.store import LeaseExpired, Put, Unavailable

from .backends import Sqlite, process

PATIENCE = 20.0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@asynccontextmanager
async def opened(
    path: Path, clock: Clock | None = None, patience: float = 10.0
) -> AsyncIterator[SqliteStore]:
    store = (
        SqliteStore(path, clock=clock, patience=patience) if clock else SqliteStore(path, patience=patience)
    )
    try:
        yield store
    finally:
        await store.close()


# ---- other processes ---------------------------------------------------------------------------


async def test_a_killed_writer_leaves_whole_transactions_and_a_working_store(path: Path) -> None:
    seen: list[tuple[str, bytes | None]] = []

    async def watch(store: SqliteStore) -> None:
        async with aclosing(store.watch("n/", 0)) as batches:
            async for batch in batches:
                seen.extend((change.key, change.value) for change in batch)

    async with opened(path) as store:
        watching = asyncio.create_task(watch(store))
        for _ in range(5):
            async with process(Sqlite(path), "scribble", "n/", 0) as writer:
                assert writer.stdout is not None
                for _ in range(100):
                    said = await asyncio.to_thread(writer.stdout.readline)
                writer.kill()
            left, right = await store.get("n/left"), await store.get("n/right")
            assert left is not None
            assert right is not None
            assert left.value == right.value
            assert left.revision == right.revision
            assert int(left.value) >= int(said)
            await store.put("after", b"")
        last = (await store.get("n/right")).value  # type: ignore[union-attr]
        async with asyncio.timeout(PATIENCE):
            while not seen or seen[-1] != ("n/right", last):
                await asyncio.sleep(0.001)
        watching.cancel()
    for one, two in zip(seen[::2], seen[1::2], strict=True):
        assert (one[0], two[0]) == ("n/left", "n/right")
        assert one[1] == two[1]


async def test_many_processes_may_create_the_store_at_once(path: Path) -> None:
    backend = Sqlite(path)
    async with AsyncExitStack() as stack:
        running = [await stack.enter_async_context(process(backend, "increment", "n", 10)) for _ in range(6)]
        assert [await asyncio.to_thread(each.wait, PATIENCE) for each in running] == [0] * 6
    async with opened(path) as store:
        assert (await store.get("n")).value == b"60"  # type: ignore[union-attr]


async def test_a_lost_wake_up_costs_time_but_no_change(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(path) as reader, opened(path) as writer, aclosing(reader.watch("", 0)) as batches:
        waiting = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0)
        monkeypatch.setattr(Bell, "ring", lambda _: None)
        await writer.put("a", b"")
        (change,) = await asyncio.wait_for(waiting, PATIENCE)
        assert change.key == "a"


async def test_without_inotify_changes_still_arrive(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(_: Bell) -> int:
        raise OSError(24, "inotify: Too many open files")

    monkeypatch.setattr(Bell, "listen", exhausted)
    async with opened(path) as reader, opened(path) as writer, aclosing(reader.watch("", 0)) as batches:
        waiting = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0)
        await writer.put("a", b"")
        assert len(await asyncio.wait_for(waiting, PATIENCE)) == 1


async def test_a_foreign_lock_is_waited_for_without_stopping_the_loop(path: Path) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with opened(path) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        counting = asyncio.create_task(count())
        put = asyncio.create_task(store.put("a", b""))
        while turns < 1000:
            await asyncio.sleep(0)
        assert not put.done()
        assert await store.get("a") is None  # readers need not wait
        other.execute("ROLLBACK")
        await asyncio.wait_for(put, PATIENCE)
        assert await store.get("a") is not None
        counting.cancel()
        other.close()


async def test_a_lock_that_is_never_released_is_an_error_that_names_the_file(path: Path) -> None:
    async with opened(path, patience=0.05) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match=r"store\.db: locked for 0\.05 s"):
            await store.put("a", b"")
        other.close()
        await store.put("a", b"")


# ---- who is woken ------------------------------------------------------------------------------


async def settle(reader: SqliteStore, writer: SqliteStore) -> None:
    """Until all wake-ups so far have been heard."""
    revision = await writer.put("settle", b"")
    async with asyncio.timeout(PATIENCE):
        while reader._watchers._seen != revision:
            await asyncio.sleep(0)


async def test_a_watcher_that_has_not_looked_yet_is_not_moved_on(path: Path) -> None:
    async with opened(path) as reader, opened(path) as writer:
        await writer.put("n/missed", b"")
        with reader._watchers.watcher("n/", 0) as late:
            await settle(reader, writer)
            late._event.clear()
            await settle(reader, writer)
            assert late.after == 0


async def test_a_watcher_that_was_woken_is_not_moved_on_before_it_looks(path: Path) -> None:
    async with opened(path) as reader, opened(path) as writer:
        start = await writer.put("start", b"")
        with reader._watchers.watcher("n/", start) as watcher:
            await settle(reader, writer)
            # It looks, finds nothing, and waits.
            watcher._event.clear()
            watcher.after = await writer.put("before", b"")
            await settle(reader, writer)
            await settle(reader, writer)
            quiet = watcher.after
            assert quiet > start + 2
            await writer.put("n/a", b"")
            await settle(reader, writer)
            await settle(reader, writer)
            assert watcher.awake
            assert watcher.after == quiet


async def test_a_watcher_is_woken_by_what_was_forgotten_meanwhile(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = SqliteStore(path, keep=10)
    async with opened(path) as reader:
        start = await writer.put("start", b"")
        with reader._watchers.watcher("n/", start) as watcher:
            await settle(reader, writer)
            watcher._event.clear()
            with monkeypatch.context() as context:
                context.setattr(Bell, "ring", lambda _: None)
                await writer.put("n/a", b"")
                for _ in range(200):
                    await writer.put("m", b"")
            await settle(reader, writer)
            assert watcher.awake
    await writer.close()


# ---- leases and clocks -------------------------------------------------------------------------


async def test_a_lease_ends_when_its_time_is_over_and_not_before(path: Path) -> None:
    clock = Clock()
    async with opened(path, clock) as store:
        lease = await store.grant(10)
        await store.put("a", b"", lease)
        clock.now += 9
        await store.keep_alive(lease)
        clock.now += 9.9
        assert await store.get("a") is not None
        clock.now += 0.2
        assert await store.get("a") is None
        assert (await store.list("")).entries == []
        with pytest.raises(LeaseExpired):
            await store.keep_alive(lease)


async def test_an_expired_key_counts_as_absent_in_a_transaction(path: Path) -> None:
    clock = Clock()
    async with opened(path, clock) as store:
        await store.put("a", b"1", await store.grant(10))
        clock.now += 11
        await store.transact({"a": 0}, [Put("a", b"2")])
        async with aclosing(store.watch("a", 0)) as batches:
            assert [change.value for change in await anext(batches)] == [b"1", None, b"2"]


async def test_leases_begin_anew_when_the_machine_has_booted(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    async with opened(path, clock) as store:
        lease = await store.grant(10)
        await store.put("a", b"", lease)
    clock.now = 5.0  # the clock counts from the boot
    monkeypatch.setattr(sqlite_schema, "boot_id", lambda: "another")
    async with opened(path, clock) as store:
        clock.now += 9
        assert await store.get("a") is not None
        clock.now += 2
        assert await store.get("a") is None


# ---- upkeep ------------------------------------------------------------------------------------


async def test_calls_without_a_pause_let_others_run(path: Path) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with opened(path) as store:
        counting = asyncio.create_task(count())
        for number in range(200):
            await store.put("a", str(number).encode())
        for _ in range(200):
            await store.get("a")
        assert turns >= 40
        counting.cancel()


async def test_the_log_of_changes_keeps_no_more_than_it_was_told(path: Path) -> None:
    store = SqliteStore(path, keep=100)
    for _ in range(1000):
        await store.put("a", b"")
    await store.close()
    db = sqlite3.connect(path)
    ((count,),) = db.execute("SELECT count(*) FROM changes")
    db.close()
    assert 100 <= count <= 200


async def test_the_write_ahead_log_is_copied_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_store, "_CHECKPOINT_SIZE", 1 << 18)
    wal = path.with_name(path.name + "-wal")
    async with opened(path) as store:
        largest = 0  # it may have been copied back already when all is written
        for _ in range(100):
            await store.put("a", b"x" * 5000)
            largest = max(largest, wal.stat().st_size)
        assert largest > 1 << 18
        async with asyncio.timeout(PATIENCE):
            while wal.stat().st_size > 1 << 18:
                await store.put("a", b"x" * 5000)
                await asyncio.sleep(0.001)
        assert await store.get("a") is not None


# ---- files -------------------------------------------------------------------------------------


async def test_only_the_owner_may_read_the_store(path: Path) -> None:
    async with opened(path) as store:
        await store.put("a", b"secret")
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == {f"store.db{suffix}": 0o600 for suffix in ("", "-wal", "-shm", "-bell")}


async def test_what_was_written_is_there_when_the_store_is_opened_again(path: Path) -> None:
    async with opened(path) as store:
        revision = await store.put("a", b"1")
    async with opened(path) as store:
        assert (await store.list("")).revision == revision
        assert await store.put("a", b"2") == revision + 1


def test_a_file_that_is_no_store_is_refused_by_name(path: Path) -> None:
    path.write_bytes(b"kind: Pod\n" * 100)
    with pytest.raises(WrongDatabase, match=r"store\.db: not an Axoneme store"):
        SqliteStore(path)


def test_a_database_of_something_else_is_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE songs (name TEXT)")
    db.close()
    with pytest.raises(WrongDatabase, match="it has tables of something else"):
        SqliteStore(path)


def test_a_store_of_a_later_version_is_refused(path: Path) -> None:
    SqliteStore(path)._db.close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version=7")
    db.close()
    with pytest.raises(WrongDatabase, match="its version is 7, this program knows 1"):
        SqliteStore(path)


def test_a_directory_that_is_not_there_is_an_ordinary_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        SqliteStore(tmp_path / "absent" / "store.db")


async def test_a_text_that_was_put_there_by_hand_is_bytes_as_all_others(path: Path) -> None:
    async with opened(path) as store:
        revision = await store.put("a", b"1")
        async with aclosing(store.watch("", revision)) as batches:
            with sqlite3.connect(path) as db:
                db.execute("UPDATE entries SET value = '{}', revision = 2")
                db.execute("INSERT INTO changes VALUES (2, 0, 'a', '{}')")
                db.execute("UPDATE store SET revision = 2")
            db.close()
            changes = await asyncio.wait_for(anext(batches), PATIENCE)
        entry = await store.get("a")
        assert entry is not None
        assert [changes[0].value, entry.value, (await store.list("")).entries[0].value] == [b"{}"] * 3


async def test_a_damaged_file_makes_the_store_unavailable(path: Path) -> None:
    async with opened(path) as store:
        await store.put("a", b"1")
        with sqlite3.connect(path) as db:
            db.execute("PRAGMA ignore_check_constraints=ON")
            db.execute("DELETE FROM store")
        db.close()
        with pytest.raises(Unavailable, match="the file is damaged"):
            await store.list("")
