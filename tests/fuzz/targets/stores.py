"""Stores: answers of an etcd, or of something that calls itself one, and SQLite files that were damaged."""

from __future__ import annotations

import asyncio
import base64
import json
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

from axoneme.sources import etcd
from axoneme.sources.sqlite import SqliteStore
from axoneme.sources.store import Put, Store, StoreError
from fuzz.target import Target, says_why

_FOLDER = tempfile.TemporaryDirectory(prefix="fuzz-store-")
_FILE = Path(_FOLDER.name) / "store.db"
_LOOP = asyncio.new_event_loop()


class _Etcd(etcd.EtcdStore):
    """Its server answers every question with the same bytes; a watch gets them as its stream."""

    def __init__(self, body: bytes) -> None:
        super().__init__(["http://e"])
        self._body, self._left = body, 50

    async def _exchange(self, path: str, request: Any) -> tuple[int, bytes]:
        self._left -= 1
        assert self._left, f"{path}: asked again and again"
        return (200 if self._body[:1] != b"!" else 500), self._body.removeprefix(b"!")

    @asynccontextmanager
    async def _stream(self, path: str, request: Any) -> AsyncIterator[AsyncIterator[bytes]]:
        async def lines() -> AsyncIterator[bytes]:
            for line in self._body.split(b"\n"):
                yield line

        yield lines()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _answers() -> Iterable[bytes]:
    pair = {"key": _text(b"state/a"), "value": _text(b"{}"), "mod_revision": "7"}
    header = {"revision": "9"}
    answers: tuple[Any, ...] = (
        {"header": header, "kvs": [pair], "count": "1"},
        {"header": header, "kvs": [pair], "more": True},
        {"header": header, "succeeded": True},
        {"header": header, "responses": [{"response_range": {"header": header, "kvs": [pair]}}]},
        {"header": header, "deleted": "1"},
        {"header": header, "ID": "77", "TTL": "10"},
        {"result": {"header": header, "TTL": "5"}},
        {"result": {"header": header, "created": True, "events": [{"kv": pair}, {"type": "DELETE", "kv": pair}]}},
        {"result": {"header": header, "canceled": True, "compact_revision": "5", "cancel_reason": "compacted"}},
        {"error": {"message": "no leader", "code": 14}},
    )  # fmt: skip
    yield from (json.dumps(each).encode() for each in answers)
    yield b'!{"code": 5, "message": "requested lease not found"}'


async def _use(store: Store) -> None:
    """All questions, each of which may fail as a store may."""
    lease = etcd.Lease(5, 1.0)
    for work in (
        lambda: store.get("state/a"),
        lambda: store.list("state/"),
        lambda: store.transact({"state/a": 3}, [Put("state/a", b"", lease)]),
        lambda: store.delete("state/a"),
        lambda: store.grant(3.0),
        lambda: store.keep_alive(lease),
        lambda: store.revoke(lease),
    ):
        try:
            await work()
        except StoreError as error:
            says_why(error)
    try:
        async with asyncio.timeout(0.001), aclosing(store.watch("state/", 0)) as batches:
            async for changes in batches:
                assert all(isinstance(change.key, str) for change in changes)
    except TimeoutError:
        pass
    except StoreError as error:
        says_why(error)


def check_etcd(data: bytes) -> None:
    _LOOP.run_until_complete(_use(_Etcd(data)))


def _files() -> Iterable[bytes]:
    async def fill() -> None:
        store = SqliteStore(_FILE)
        lease = await store.grant(100)
        await store.transact({}, [Put(f"state/{n}", b"x" * n, lease) for n in range(20)])
        await store.close()

    _remove()
    _LOOP.run_until_complete(fill())
    with sqlite3.connect(_FILE) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.execute("PRAGMA journal_mode=DELETE")
    db.close()
    yield _FILE.read_bytes()


def _remove() -> None:
    for path in _FILE.parent.glob(f"{_FILE.name}*"):
        path.unlink()


def check_sqlite(data: bytes) -> None:
    """A damaged file is an error of the store, or not noticed."""
    _remove()
    _FILE.write_bytes(data)
    try:
        store = SqliteStore(_FILE, patience=0.01)
    except StoreError as error:
        says_why(error)
        return

    async def use() -> None:
        try:
            await _use(store)
        finally:
            await store.close()

    _LOOP.run_until_complete(use())


TARGETS = [
    Target("etcd", check_etcd, _answers, json=True),
    Target("sqlite", check_sqlite, _files, longest=1 << 17),
]
