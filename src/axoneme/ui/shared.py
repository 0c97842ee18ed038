"""The shared state as the web UI needs it: objects, endpoints, nodes; read anew at most every two seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, TypeVar

import msgspec

from axoneme.model.state import ENDPOINTS, NODES, EndpointState, NodeState, decode
from axoneme.sources.store import Entry, Store

S = TypeVar("S", EndpointState, NodeState)

OBJECTS: Final = "objects/"
_KEEP: Final = 2.0


class Stored(NamedTuple):
    """An object as it stands in the store; ``namespace`` is empty for cluster-wide kinds."""

    kind: str
    namespace: str
    name: str
    value: bytes
    revision: int

    @classmethod
    def of(cls, entry: Entry) -> Stored:
        _, kind, namespace, name = entry.key.split("/", 3)
        return cls(kind, "" if namespace == "_" else namespace, name, entry.value, entry.revision)

    @property
    def key(self) -> str:
        return f"{OBJECTS}{self.kind}/{self.namespace or '_'}/{self.name}"


class Shared:
    """Raises `axoneme.sources.store.StoreError` where the store does not answer."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._kept: dict[str, tuple[float, list[Entry]]] = {}

    async def objects(self, *kinds: str) -> list[Stored]:
        return [Stored.of(entry) for kind in kinds for entry in await self._list(f"{OBJECTS}{kind}/")]

    async def object(self, kind: str, namespace: str, name: str) -> Stored | None:
        entry = await self._store.get(f"{OBJECTS}{kind}/{namespace or '_'}/{name}")
        return Stored.of(entry) if entry else None

    async def endpoints(self) -> list[EndpointState]:
        found = _read(await self._list(ENDPOINTS), EndpointState)
        return sorted(found, key=lambda each: (each.namespace, each.pod, each.node, each.id))

    async def nodes(self) -> dict[str, NodeState]:
        return {each.name: each for each in _read(await self._list(NODES), NodeState)}

    async def namespaces(self) -> list[str]:
        named = {each.name for each in await self.objects("Namespace")}
        return sorted(named | {each.namespace for each in await self.endpoints() if each.namespace})

    async def _list(self, prefix: str) -> list[Entry]:
        known = self._kept.get(prefix)
        if known and known[0] > self._clock() - _KEEP:
            return known[1]
        entries = (await self._store.list(prefix)).entries
        self._kept[prefix] = (self._clock(), entries)
        return entries


def _read(entries: Iterable[Entry], kind: type[S]) -> list[S]:
    """Without those that cannot be read: agents say of them what is wrong."""
    found: list[S] = []
    for entry in entries:
        try:
            found.append(decode(entry.value, kind, entry.key))
        except (ValueError, msgspec.MsgspecError):
            continue
    return found
