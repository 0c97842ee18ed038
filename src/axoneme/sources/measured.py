"""A store whose operations are timed."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from axoneme.sources.store import Changes, Conflict, Delete, Entry, Lease, Listing, Put, Store

T = TypeVar("T")

#: Told of an operation: the key or prefix, its name, whether it failed, and seconds.
Told = Callable[[str, str, bool, float], None]


class MeasuredStore:
    """Passes everything on. A conflict is an answer, and no failure."""

    def __init__(self, store: Store, told: Told) -> None:
        self._store = store
        self._told = told

    async def _timed(self, key: str, action: str, work: Awaitable[T]) -> T:
        began, failed = time.monotonic(), True
        try:
            result = await work
            failed = False
            return result
        except Conflict:
            failed = False
            raise
        finally:
            self._told(key, action, failed, time.monotonic() - began)

    async def get(self, key: str) -> Entry | None:
        return await self._timed(key, "get", self._store.get(key))

    async def list(self, prefix: str) -> Listing:
        return await self._timed(prefix, "list", self._store.list(prefix))

    def watch(self, prefix: str, after: int) -> AsyncGenerator[Changes, None]:
        return self._store.watch(prefix, after)

    async def put(self, key: str, value: bytes, lease: Lease | None = None) -> int:
        return await self._timed(key, "set", self._store.put(key, value, lease))

    async def delete(self, key: str) -> bool:
        return await self._timed(key, "delete", self._store.delete(key))

    async def transact(self, expect: Mapping[str, int], operations: Sequence[Put | Delete]) -> int:
        key = next((each.key for each in operations), "")
        return await self._timed(key, "transact", self._store.transact(expect, operations))

    async def grant(self, ttl: float) -> Lease:
        return await self._timed("", "grant", self._store.grant(ttl))

    async def keep_alive(self, lease: Lease) -> None:
        await self._timed("", "keep_alive", self._store.keep_alive(lease))

    async def revoke(self, lease: Lease) -> None:
        await self._timed("", "revoke", self._store.revoke(lease))

    async def close(self) -> None:
        await self._store.close()
