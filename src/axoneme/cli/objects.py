"""The objects of a sandbox or a machine, read from and written to its store.

The store is asynchronous because the agents need that; a command does one thing after the other, so it
runs each piece of work in a loop of its own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from axoneme.cli.failures import Failure
from axoneme.cli.kinds import Kind, of_object
from axoneme.cli.place import Place
from axoneme.sandbox.objects import OBJECTS, ObjectKey
from axoneme.sources.store import Conflict, Entry, Put, Store

T = TypeVar("T")

#: An object as JSON has it: the form in which it comes from a user and goes to one.
Document = dict[str, Any]

_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as it stands in the store. ``revision`` is that of its last change."""

    key: ObjectKey
    value: bytes
    revision: int

    @classmethod
    def of(cls, entry: Entry) -> Stored:
        return cls(ObjectKey.parse(entry.key), entry.value, entry.revision)

    @property
    def kind(self) -> Kind:
        return of_object(self.key.kind)

    def document(self) -> Document:
        """With the revision where Kubernetes has it."""
        value: Document = json.loads(self.value)
        value.setdefault("metadata", {})["resourceVersion"] = str(self.revision)
        return value

    def __str__(self) -> str:
        return f"{self.kind.resource}/{self.key.name}"


def work(place: Place, do: Callable[[Store], Awaitable[T]]) -> T:
    """What ``do`` makes of the shared state."""

    async def run() -> T:
        store = place.open_store()
        try:
            return await do(store)
        finally:
            await store.close()

    return asyncio.run(run())


def path(kind: Kind, namespace: str, name: str) -> str:
    return ObjectKey(kind.name, namespace if kind.namespaced else "", name).path()


async def listing(store: Store, kind: Kind, namespace: str | None) -> list[Stored]:
    """The objects of a kind, of every namespace for None, in the order of namespaces and names."""
    inside = f"{namespace or '_'}/" if not kind.namespaced or namespace else ""
    if not kind.namespaced:
        inside = "_/"
    found = await store.list(f"{OBJECTS}{kind.name}/{inside}")
    return [Stored.of(entry) for entry in found.entries]


async def get(store: Store, kind: Kind, namespace: str, name: str) -> Stored | None:
    entry = await store.get(path(kind, namespace, name))
    return Stored.of(entry) if entry else None


async def need(store: Store, kind: Kind, namespace: str, name: str) -> Stored:
    """`Failure` when there is none."""
    found = await get(store, kind, namespace, name)
    if found is None:
        raise missing(kind, namespace, name)
    return found


def missing(kind: Kind, namespace: str, name: str) -> Failure:
    where = f" in namespace {namespace}" if kind.namespaced else ""
    return Failure(f'{kind.resources} "{name}" not found{where}')


async def update(store: Store, stored: Stored, change: Callable[[Document], bool]) -> bool:
    """Applies ``change`` to the object as it stands, again when someone else was faster.

    ``change`` says whether it changed anything; `Failure` when the object has vanished.
    """
    key = stored.key.path()
    for _ in range(_ATTEMPTS):
        document = json.loads(stored.value)
        if not change(document):
            return False
        try:
            await store.transact({key: stored.revision}, [Put(key, encode(document))])
            return True
        except Conflict:
            entry = await store.get(key)
            if entry is None:
                raise missing(stored.kind, stored.key.namespace, stored.key.name) from None
            stored = Stored.of(entry)
    raise Failure(f"{stored}: it changes so fast that {_ATTEMPTS} attempts to change it failed")


def encode(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
