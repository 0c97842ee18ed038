"""Services in the store, complete: what writes them there, and what mends those that others wrote.

Whoever gives out addresses has looked at all services first, and no two may do so at once: each such
transaction also writes one common key, and expects it as it was at the look.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Final

from axoneme.sandbox.objects import OBJECTS
from axoneme.sandbox.services.admission import admit, by_age, repaired
from axoneme.sandbox.services.allocation import Ranges, Taken
from axoneme.sandbox.services.spec import Document
from axoneme.sources.store import Conflict, Put, Store

log = logging.getLogger(__name__)

SERVICES: Final = f"{OBJECTS}Service/"

#: Written in every transaction that gives out addresses or ports.
GUARD: Final = "allocations/services"

_ATTEMPTS: Final = 20


class Registry:
    """All services as they stood at one moment, to add to and to change."""

    def __init__(self, guard: int, services: dict[str, tuple[Document, int]]) -> None:
        """`guard` is the revision of the common key; services are by key, with their revisions."""
        self._guard = guard
        self._services = services
        documents = {key: document for key, (document, _) in services.items()}
        self._taken = Taken.by(documents[key] for key in by_age(documents))

    @classmethod
    async def look(cls, store: Store) -> Registry:
        guard = await store.get(GUARD)  # first: what is written after it makes the transaction fail
        listing = await store.list(SERVICES)
        found = {each.key: (json.loads(each.value), each.revision) for each in listing.entries}
        return cls(guard.revision if guard else 0, found)

    def expected(self) -> dict[str, int]:
        """What a transaction must expect besides."""
        return {GUARD: self._guard}

    def admit(self, key: str, service: Document, ranges: Ranges) -> Document:
        """The service complete, and from now on among the others; ManifestError when it cannot be."""
        before, revision = self._services.get(key, (None, 0))
        made = admit(service, before, self._taken, ranges)
        self._services[key] = (made, revision)
        self._taken.add(made)
        return made

    def repaired(self, ranges: Ranges) -> tuple[Mapping[str, Document], Mapping[str, int]]:
        """Those that lack something, complete; and the revisions that they had."""
        changed, wrong = repaired({key: document for key, (document, _) in self._services.items()}, ranges)
        for failure in wrong:
            log.warning("%s", failure)
        return changed, {key: self._services[key][1] for key in changed}


def guarding() -> Put:
    """The write that goes with what was given out."""
    return Put(GUARD, b"{}")


async def repair(store: Store, ranges: Ranges) -> int:
    """Gives every service in the store what it lacks, all in one transaction; returns how many had less."""
    for _ in range(_ATTEMPTS):
        registry = await Registry.look(store)
        changed, revisions = registry.repaired(ranges)
        if not changed:
            return 0
        puts = [Put(key, encode(document)) for key, document in changed.items()]
        try:
            await store.transact({**registry.expected(), **revisions}, [*puts, guarding()])
        except Conflict:
            continue
        return len(changed)
    raise RuntimeError(f"services change so fast that {_ATTEMPTS} attempts to complete them failed")


def encode(service: Document) -> bytes:
    return json.dumps(service, separators=(",", ":"), ensure_ascii=False).encode()
