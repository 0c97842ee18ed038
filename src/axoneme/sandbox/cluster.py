"""The objects of a sandbox as its controllers see them: a mirror of the shared state, and the ways to
change it.

The mirror follows the store. What this process writes enters the mirror at once, so a controller that
has just made a pod does not make it again because the news of it is still under way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from axoneme.model import documents
from axoneme.sandbox.objects import OBJECTS, AnyObject, Metadata, ObjectKey, read
from axoneme.sandbox.workloads.changes import NewObject
from axoneme.sources.follow import Sync, follow
from axoneme.sources.store import Change, Conflict, Delete, Put, Store

log = logging.getLogger(__name__)

T = TypeVar("T")

#: How often a change of an object is tried again because someone else changed it meanwhile.
_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class Stored:
    """One object as it stands in the store."""

    document: bytes
    revision: int
    metadata: Metadata


@dataclass(frozen=True, slots=True)
class ObjectChange:
    """`before` and `after` are None where the object was not there, or is no more."""

    key: ObjectKey
    before: Stored | None
    after: Stored | None


Listener = Callable[[list[ObjectChange]], None]


class Cluster:
    """All objects below ``objects/``."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._objects: dict[ObjectKey, Stored] = {}
        self._by_kind: dict[str, dict[ObjectKey, Stored]] = {}
        self._owned: dict[str, set[ObjectKey]] = {}
        self._parsed: dict[ObjectKey, tuple[int, type[object], object]] = {}
        self._deleted: dict[ObjectKey, int] = {}
        self._listeners: list[Listener] = []
        self._waiting: list[ObjectChange] = []
        self._synced = False
        #: The store's revision up to which changes of objects have been seen.
        self.revision = 0

    def listen(self, listener: Listener) -> None:
        """`listener` is told of every change, the first time of all that there is."""
        self._listeners.append(listener)

    async def run(self) -> None:
        """Follows the store, until cancelled."""
        async for news in follow(self._store, OBJECTS):
            if isinstance(news, Sync):
                self._synced = True
                self.revision = max(self.revision, news.revision)
            else:
                for change in news:
                    self._take(change)
                self.revision = max(self.revision, news[-1].revision)
            self._tell()

    # ---- reading -----------------------------------------------------------------------------------

    def get(self, key: ObjectKey) -> Stored | None:
        return self._objects.get(key)

    def keys(self, kind: str) -> list[ObjectKey]:
        return list(self._by_kind.get(kind, ()))

    def every(self) -> Iterator[tuple[ObjectKey, Stored]]:
        return iter(list(self._objects.items()))

    def owned(self, uid: str, kind: str) -> list[ObjectKey]:
        """The objects of `kind` whose controller has this uid, in the order of their names."""
        return sorted(key for key in self._owned.get(uid, ()) if key.kind == kind)

    def parsed(self, key: ObjectKey, kind: type[T]) -> T | None:
        """The object as a `kind`; None when it is not there, or is none (which is logged once)."""
        stored = self._objects.get(key)
        if stored is None:
            return None
        known = self._parsed.get(key)
        if known is not None and known[:2] == (stored.revision, kind):
            return known[2]  # type: ignore[return-value]
        try:
            value: T | None = read(stored.document, kind)
        except msgspec.ValidationError as failure:
            log.warning("%s cannot be used: %s", key, failure)
            value = None
        self._parsed[key] = (stored.revision, kind, value)
        return value

    def all(self, name: str, kind: type[T]) -> list[T]:
        """All objects of the kind called `name`, in the order of their names."""
        found = (self.parsed(key, kind) for key in sorted(self._by_kind.get(name, ())))
        return [value for value in found if value is not None]

    # ---- writing -----------------------------------------------------------------------------------

    async def create(self, new: NewObject) -> bool:
        """False when there is such an object already."""
        path = new.key.path()
        try:
            revision = await self._store.transact({path: 0}, [Put(path, new.document)])
        except Conflict:
            return False
        self._put(new.key, new.document, revision)
        return True

    async def update(self, key: ObjectKey, change: Callable[[bytes], bytes], uid: str = "") -> bool:
        """Applies `change` to the object as it stands, again when someone else was faster.

        False when the object is not there, or is another one than that with `uid`.
        """
        path = key.path()
        stored = self._objects.get(key)
        for _ in range(_ATTEMPTS):
            if stored is None or (uid and stored.metadata.uid != uid):
                return False
            document = change(stored.document)
            if document == stored.document:
                return True
            try:
                revision = await self._store.transact({path: stored.revision}, [Put(path, document)])
            except Conflict:
                entry = await self._store.get(path)
                stored = None if entry is None else _stored(key, entry.value, entry.revision)
                continue
            self._put(key, document, revision)
            return True
        raise RuntimeError(f"{key} changes so fast that {_ATTEMPTS} attempts to change it failed")

    async def remove(self, key: ObjectKey, uid: str = "") -> bool:
        """Deletes the object; False when it is not there, or is another one than that with `uid`."""
        path = key.path()
        stored = self._objects.get(key)
        while stored is not None and (not uid or stored.metadata.uid == uid):
            try:
                revision = await self._store.transact({path: stored.revision}, [Delete(path)])
            except Conflict as conflict:
                if conflict.found == 0:
                    return False
                entry = await self._store.get(path)
                stored = None if entry is None else _stored(key, entry.value, entry.revision)
                continue
            self._drop(key, revision)
            return True
        return False

    async def terminate(self, key: ObjectKey, now: str) -> None:
        """Deletes a pod the graceful way: its kubelet ends it and removes the object. A pod that no
        kubelet has yet goes at once, as do other objects."""
        stored = self._objects.get(key)
        if stored is None:
            return
        on_node = key.kind == "Pod" and documents.field(stored.document, ("spec", "nodeName")) is not None
        if not on_node:
            await self.remove(key, stored.metadata.uid)
            return

        def mark(document: bytes) -> bytes:
            if documents.field(document, ("metadata", "deletionTimestamp")) is not None:
                return document
            grace = documents.field(document, ("spec", "terminationGracePeriodSeconds")) or b"30"
            marked = documents.with_field(document, ("metadata", "deletionTimestamp"), now)
            return documents.with_field(
                marked, ("metadata", "deletionGracePeriodSeconds"), msgspec.Raw(grace)
            )

        await self.update(key, mark, stored.metadata.uid)

    # ---- the mirror --------------------------------------------------------------------------------

    def _take(self, change: Change) -> None:
        key = ObjectKey.parse(change.key)
        if change.revision < self._deleted.get(key, 0):
            return  # older than what this process has deleted
        self._deleted.pop(key, None)
        known = self._objects.get(key)
        if known is not None and known.revision >= change.revision:
            return
        if change.value is None:
            self._forget(key)
        else:
            self._keep(key, change.value, change.revision)

    def _put(self, key: ObjectKey, document: bytes, revision: int) -> None:
        known = self._objects.get(key)
        if known is None or known.revision < revision:
            self._deleted.pop(key, None)
            self._keep(key, document, revision)
            self._tell()

    def _drop(self, key: ObjectKey, revision: int) -> None:
        self._deleted[key] = revision
        self._forget(key)
        self._tell()

    def _keep(self, key: ObjectKey, document: bytes, revision: int) -> None:
        stored = _stored(key, document, revision)
        if stored is None:
            return
        before = self._objects.get(key)
        self._unown(key, before)
        self._objects[key] = stored
        self._by_kind.setdefault(key.kind, {})[key] = stored
        if owner := stored.metadata.controller:
            self._owned.setdefault(owner.uid, set()).add(key)
        self._waiting.append(ObjectChange(key, before, stored))

    def _forget(self, key: ObjectKey) -> None:
        before = self._objects.pop(key, None)
        if before is None:
            return
        self._unown(key, before)
        self._by_kind[key.kind].pop(key, None)
        self._parsed.pop(key, None)
        self._waiting.append(ObjectChange(key, before, None))

    def _unown(self, key: ObjectKey, before: Stored | None) -> None:
        owner = before.metadata.controller if before else None
        if owner:
            left = self._owned.get(owner.uid, set())
            left.discard(key)
            if not left:
                self._owned.pop(owner.uid, None)

    def _tell(self) -> None:
        # Before the first list is complete, an owner may only not have come yet.
        if not self._synced or not self._waiting:
            return
        news, self._waiting = self._waiting, []
        for listener in self._listeners:
            listener(news)


def _stored(key: ObjectKey, document: bytes, revision: int) -> Stored | None:
    try:
        metadata = read(document, AnyObject).metadata
    except msgspec.DecodeError as failure:
        log.warning("%s in the store is no object: %s", key, failure)
        return None
    return Stored(document, revision, metadata)
