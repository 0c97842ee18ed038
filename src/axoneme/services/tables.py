"""From services as values to the kernel's tables, change by change.

**Numbers.** One port of one service has a number for each family that it has frontends of; callers from
outside have one of their own where they get other backends, or where only some of them are served. Such a
number with what stands under it is a *view*. A backend has one number for all services that it is in. After
a restart numbers are taken from what the kernel holds: a view's from its frontends, a backend's from its
address.

**Frontends that two services claim.** The service that is older has it, or where they are of the same age
the one whose name sorts first, on every machine alike; the other gets it when that one lets go.

How little of that is written, and in which order: `axoneme.services.views`, `axoneme.services.writes`.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from axoneme.services.backends import Backends
from axoneme.services.balanced import Address, Backend, BackendState, Balanced
from axoneme.services.maglev import Shares
from axoneme.services.plan import Claim, Plan, ViewKey, algorithm, plan
from axoneme.services.rows import (
    ADDRESS,
    FrontendRow,
    Held,
    Place,
    is_marker,
    marker,
    packed,
    place,
    place_text,
)
from axoneme.services.views import View, Views, Wish
from axoneme.services.writes import Changes, Writes

#: Name and port.
Name = tuple[str, str]

_RULE = "of those that claim it the oldest has it, or the first by name"
_PROTOCOLS = {6: "TCP", 17: "UDP", 132: "SCTP"}


class Counts(NamedTuple):
    """Services by port, frontends without markers; ``empty`` are services without backends."""

    services: int
    frontends: int
    backends: int
    empty: int


@dataclass(slots=True)
class _Entry:
    """A service as it is written."""

    plan: Plan
    views: dict[ViewKey, View]


class ServiceTables:
    """All services of a node. Tell it everything, then write what `changes` says."""

    def __init__(self, held: Held | None = None, after: int = 0) -> None:
        """``held`` is what the kernel holds at the start; flows may remember numbers up to ``after``."""
        held = held or Held()
        self._wanted: dict[Name, Balanced] = {}
        self._touched: dict[Name, None] = {}
        self._entries: dict[Name, _Entry] = {}
        self._machines: frozenset[bytes] = frozenset()
        #: By frontend or marker, who claims it, the owner first.
        self._claims: dict[Place, list[Claim]] = {}
        self._contested: set[Place] = set()
        #: As written.
        self._frontends = dict(held.frontends)
        self._markers = sum(map(is_marker, held.frontends))
        #: Those that may have to be written.
        self._dirty = set(held.frontends)
        self._writes = Writes()
        self._waiting = Changes()
        self._backends = Backends(held.backends, held.slots.values(), after)
        self._views = Views(held, self._backends, self._writes, after)
        #: By name and port: what of a service could not be done.
        self.problems: dict[Name, str] = {}

    # ---- what is told --------------------------------------------------------------------------

    def upsert(self, balanced: Balanced) -> None:
        """A service is new, or other than before."""
        name = (balanced.name, balanced.port)
        if self._wanted.get(name) != balanced:
            self._wanted[name] = balanced
            self._touched[name] = None

    def remove(self, name: str, port: str) -> None:
        """A service is gone; nothing happens when it was not there."""
        if self._wanted.pop((name, port), None) is not None:
            self._touched[name, port] = None

    def machines(self, addresses: Iterable[Address]) -> None:
        """All addresses of all nodes: what comes for them is not refused because a service has them too."""
        machines = frozenset(map(packed, addresses))
        self._dirty |= {key for each in machines ^ self._machines if (key := marker(each)) in self._claims}
        self._machines = machines

    # ---- what is known -------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._wanted)

    def __iter__(self) -> Iterator[Balanced]:
        return iter(self._wanted.values())

    def get(self, name: str, port: str) -> Balanced | None:
        return self._wanted.get((name, port))

    # What follows is as of the last `compile` or `changes`.

    def numbers(self, name: str, port: str) -> dict[ViewKey, int]:
        """The numbers that a service has."""
        entry = self._entries.get((name, port))
        return {key: view.number for key, view in entry.views.items()} if entry else {}

    def backend_number(self, backend: Backend, protocol: int) -> int | None:
        return self._backends.get(place(backend.address, backend.port, protocol))

    def shares(self, service: int) -> Shares | None:
        """What the lookup table of a service's number is made from."""
        view = self._views.get(service)
        return view.shares if view else None

    def affinity(self, service: int) -> bool:
        """Whether clients of a service's number keep their backends."""
        view = self._views.get(service)
        return view is not None and view.row is not None and view.row.affinity > 0

    @property
    def highest(self) -> int:
        """The highest number of a service or backend so far."""
        return max(self._views.highest, self._backends.highest)

    @property
    def counts(self) -> Counts:
        views = [each.views.values() for each in self._entries.values() if each.views]
        empty = sum(not any(view.slots for view in those) for those in views)
        frontends = len(self._frontends) - self._markers
        return Counts(len(self._entries), frontends, len(self._backends), empty)

    @property
    def sizes(self) -> dict[str, int]:
        """How many entries each table needs."""
        views = self._views
        return {
            "frontends": len(self._frontends),
            "services": len(views),
            "slots": views.slots,
            "backends": len(self._backends),
            "source_ranges": views.ranges,
            "maglev": views.tables,
        }

    # ---- the difference ------------------------------------------------------------------------

    def changes(self) -> Changes:
        """What to write so that the tables say what was told; it counts as written."""
        self.compile()
        changes, self._waiting = self._waiting, Changes()
        changes.steps = self._writes.take()
        return changes

    def compile(self) -> None:
        """What was told, without handing it out: so that it can still be taken back."""
        touched, self._touched = self._touched, {}
        plans = {name: plan(balanced) for name in touched if (balanced := self._wanted.get(name))}
        for name in touched:
            self._claim(name, plans.get(name))
        for name, theirs in plans.items():
            self._compile(name, theirs)
        for name in touched:
            if name not in plans and (entry := self._entries.pop(name, None)):
                for view in entry.views.values():
                    self._views.retire(view, self._waiting)
        self._views.retire_orphans(self._waiting)
        self._write_frontends()
        self._backends.write(self._writes, self._waiting)
        self._note_problems()

    def _claim(self, name: Name, theirs: Plan | None) -> None:
        entry = self._entries.get(name)
        if entry is not None:
            for key in (*entry.plan.pointers, *entry.plan.markers):
                claims = self._claims[key]
                claims.remove(entry.plan.claim)
                if not claims:
                    del self._claims[key]
                self._dirty.add(key)
        if theirs is not None:
            for key in (*theirs.pointers, *theirs.markers):
                insort(self._claims.setdefault(key, []), theirs.claim)
                self._dirty.add(key)

    def _compile(self, name: Name, theirs: Plan) -> None:
        balanced = self._wanted[name]
        entry = self._entries.get(name)
        before = entry.views if entry else {}
        views: dict[ViewKey, View] = {}
        for key, ranges in theirs.views.items():
            view = before.get(key) or self._adopt(key, theirs) or self._views.new()
            views[key] = view
            self._waiting.named[view.number] = name
            version, side = key
            every = balanced.backends if not side or balanced.outside is None else balanced.outside
            weights, leaving = self._number(every, version, int(balanced.protocol))
            how = algorithm(balanced, theirs.external, weights)
            self._views.renew(view, Wish(weights, leaving, ranges, balanced.affinity, how), self._waiting)
        self._entries[name] = _Entry(theirs, views)
        for key, view in before.items():
            if key not in views:
                self._views.retire(view, self._waiting)

    def _adopt(self, key: ViewKey, theirs: Plan) -> View | None:
        """The view to which an earlier process let this one's frontends lead."""
        if not self._views.inherited:
            return None
        for frontend, pointer in theirs.pointers.items():
            row = self._frontends.get(frontend)
            if row is None or self._claims[frontend][0] != theirs.claim:
                continue
            for each, number in ((pointer.service, row.service), (pointer.outside, row.outside)):
                if each == key and (view := self._views.adopt(number)):
                    return view
        return None

    def _number(
        self, backends: Sequence[Backend], version: int, protocol: int
    ) -> tuple[dict[int, int], set[int]]:
        """The weights, by number, of those that take connections, and the numbers of the others."""
        weights: dict[int, int] = {}
        leaving: set[int] = set()
        for backend in backends:
            if backend.address.version == version:
                number = self._backends.number(place(backend.address, backend.port, protocol))
                if backend.state is BackendState.ACTIVE and backend.weight > 0:
                    weights.setdefault(number, backend.weight)
                else:
                    leaving.add(number)
        return weights, leaving - weights.keys()

    # ---- frontends -----------------------------------------------------------------------------

    def _write_frontends(self) -> None:
        dirty, self._dirty = self._dirty, set()
        for key in dirty:
            row, before = self._frontend(key), self._frontends.get(key)
            if row is None:
                if before is not None:
                    self._writes.change("frontends", key, before, None)
                    del self._frontends[key]
            elif row != before:
                self._writes.change("frontends", key, before, row)
                self._frontends[key] = row
                if before is None and not is_marker(key):
                    self._waiting.opened.append(key)
            if is_marker(key):
                self._markers += (row is not None) - (before is not None)
            elif row is not None and len(self._claims[key]) > 1:
                self._contested.add(key)
            else:
                self._contested.discard(key)

    def _frontend(self, key: Place) -> FrontendRow | None:
        """What should stand there."""
        claims = self._claims.get(key)
        if not claims:
            return None
        if is_marker(key):
            if key[:ADDRESS] in self._machines:
                return None
            flags = 0
            for _, name, port in claims:
                flags |= self._entries[name, port].plan.markers[key]
            return FrontendRow(0, 0, flags)
        _, name, port = claims[0]
        entry = self._entries[name, port]
        service, outside, flags = entry.plan.pointers[key]
        return FrontendRow(entry.views[service].number, entry.views[outside].number, flags)

    def _note_problems(self) -> None:
        self.problems = {}
        for key in sorted(self._contested):
            (_, owner, _), *others = self._claims[key]
            for _, name, port in others:
                where = f"{place_text(key)}/{_PROTOCOLS.get(key[-1], key[-1])}"
                self.problems.setdefault((name, port), f"{where} belongs to {owner}: {_RULE}")
