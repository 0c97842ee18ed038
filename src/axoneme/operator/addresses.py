"""Gives services of type LoadBalancer their addresses: what `axoneme.ipam.loadbalancers` says is written into
the statuses of services and pools.

Level-triggered: news only say that something is other than before; what is done follows from how everything
stands then, and a status that says it already is not written.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from axoneme.ipam.loadbalancers import SATISFIED, assign
from axoneme.ipam.loadbalancerstatus import pool_conditions, service_status
from axoneme.model.documents import with_field
from axoneme.model.exposure import ExposedService, parse_exposure
from axoneme.model.loadbalancerpool import KIND as POOL
from axoneme.model.loadbalancerpool import LoadBalancerPool, parse_pool
from axoneme.sources.follow import Sync, follow
from axoneme.sources.store import Change, Conflict, Put, Store, Unavailable

log = logging.getLogger(__name__)

SERVICES, POOLS = "objects/Service/", f"objects/{POOL}/"

#: Seconds for which news are gathered, and after which a failure is tried again.
_GATHER, _RETRY = 0.05, 2.0
#: Writes in one transaction: etcd takes 128.
_BATCH = 64
#: What a document of a service that matters holds.
_MARKS = (b'"LoadBalancer"', SATISFIED.encode())

V = TypeVar("V", ExposedService, LoadBalancerPool)


@dataclass(frozen=True, slots=True)
class _Seen(Generic[V]):
    """An object as it stands in the store; ``value`` is what it last said that could be understood."""

    document: bytes
    revision: int
    value: V | None


class AddressController:
    """One at a time in a cluster. ``fence``: keys and their revisions without which nothing is written, so
    that one who has lost his office changes nothing any more. ``now`` tells the time as objects write it."""

    def __init__(
        self,
        store: Store,
        now: Callable[[], str],
        families: Collection[int] = (4, 6),
        fence: Mapping[str, int] | None = None,
    ) -> None:
        self._store = store
        self._now = now
        self._families = families
        self._fence = dict(fence or {})
        self._services: dict[str, _Seen[ExposedService]] = {}
        self._pools: dict[str, _Seen[LoadBalancerPool]] = {}
        self._called = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled; `Conflict` when the fence has fallen."""
        heard = asyncio.Event(), asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(POOLS, self._hear_pool, heard[0]))
            tasks.create_task(self._follow(SERVICES, self._hear_service, heard[1]))
            for each in heard:
                await each.wait()
            while True:
                await self._called.wait()
                await asyncio.sleep(_GATHER)
                self._called.clear()
                try:
                    await self._settle()
                except Unavailable as error:
                    log.warning("addresses of services: %s; trying again", error)
                    self._called.set()
                    await asyncio.sleep(_RETRY)

    # ---- what is there -------------------------------------------------------------------------

    async def _follow(self, prefix: str, hear: Callable[[Change], bool], heard: asyncio.Event) -> None:
        async with aclosing(follow(self._store, prefix)) as news:
            async for changes in news:
                if isinstance(changes, Sync):
                    heard.set()
                    continue
                for change in changes:
                    if hear(change):
                        self._called.set()

    def _hear_service(self, change: Change) -> bool:
        known = self._services.get(change.key)
        if change.value is None or not any(mark in change.value for mark in _MARKS):
            if known and known.revision < change.revision:
                del self._services[change.key]
            return known is not None
        return _note(self._services, change, parse_exposure)

    def _hear_pool(self, change: Change) -> bool:
        if change.value is None:
            return self._pools.pop(change.key, None) is not None
        return _note(self._pools, change, parse_pool)

    # ---- what is done about it -----------------------------------------------------------------

    async def _settle(self) -> None:
        if unreadable := [key for key, seen in self._pools.items() if seen.value is None]:
            # Its addresses would be taken from those who have them.
            log.error("addresses stay as they are until this can be read: %s", ", ".join(unreadable))
            return
        services = {key: seen for key, seen in self._services.items() if seen.value is not None}
        assignment = assign(_values(services), _values(self._pools), self._families)
        now = self._now()
        changes: dict[str, tuple[bytes, int]] = {}
        for key, service in services.items():
            assert service.value is not None
            verdict = assignment.services.get(service.value.key)
            if verdict is None and service.value.key not in assignment.released:
                continue
            status = service_status(service.value, verdict, now)
            if status is not None:
                document = with_field(service.document, ("status", "loadBalancer", "ingress"), status.ingress)
                document = with_field(document, ("status", "conditions"), status.conditions)
                changes[key] = document, service.revision
        for key, pool in self._pools.items():
            assert pool.value is not None
            conditions = pool_conditions(pool.value, assignment.pools[pool.value.name], now)
            if conditions is not None:
                document = with_field(pool.document, ("status", "conditions"), conditions)
                changes[key] = document, pool.revision
        await self._write(changes)

    async def _write(self, changes: Mapping[str, tuple[bytes, int]]) -> None:
        """What somebody else has changed meanwhile is left: the news of it will come."""
        keys = list(changes)
        for start in range(0, len(keys), _BATCH):
            batch = keys[start : start + _BATCH]
            try:
                await self._put({key: changes[key] for key in batch})
            except Conflict as conflict:
                self._mind_fence(conflict)
                for key in batch:
                    try:
                        await self._put({key: changes[key]})
                    except Conflict as single:
                        self._mind_fence(single)

    def _mind_fence(self, conflict: Conflict) -> None:
        if conflict.key in self._fence:
            raise conflict

    async def _put(self, changes: Mapping[str, tuple[bytes, int]]) -> None:
        expected = {key: revision for key, (_, revision) in changes.items()}
        puts = [Put(key, document) for key, (document, _) in changes.items()]
        revision = await self._store.transact(self._fence | expected, puts)
        # At once: with older ones coming in between, what was just given would be given again.
        for key, (document, _) in changes.items():
            change = Change(key, document, revision)
            if key.startswith(POOLS):
                self._hear_pool(change)
            else:
                self._hear_service(change)


def _note(known: dict[str, _Seen[V]], change: Change, parse: Callable[[Mapping[str, object]], V]) -> bool:
    """Whether it was news."""
    assert change.value is not None
    before = known.get(change.key)
    if before and before.revision >= change.revision:
        return False
    value = before.value if before else None
    try:
        value = parse(msgspec.json.decode(change.value, type=dict[str, Any]))
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        log.warning("%s: %s; what it said before stays in force", change.key, error)
    known[change.key] = _Seen(change.value, change.revision, value)
    return True


def _values(seen: Mapping[str, _Seen[V]]) -> Iterable[V]:
    return (each.value for each in seen.values() if each.value is not None)
