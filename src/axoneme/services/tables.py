"""From services as values to the kernel's tables, change by change.

**Numbers.** One port of one service has a number for each family that it has frontends of; callers from
outside have one of their own where they get other backends, or where only some of them are served. Such a
number with its slots is a *view*. A backend has one number for all services that it is in. After a restart
numbers are taken from what the kernel holds: a view's from its frontends, a backend's from its address.

**Order.** What is pointed to is written before what points to it, and deleted after:

    put     backends, maglev, slots, source_ranges, services, frontends
    delete  frontends, services, maglev, source_ranges, slots, backends

So no frontend ever leads to a service that is not there, no service counts a slot that is not there, and no
slot names a backend that is not there. A view whose backends change keeps the slots of those that stay: the
last ones move into the gaps.

**Frontends that two services claim.** The service that is older has it, or where they are of the same age
the one whose name sorts first, on every machine alike; the other gets it when that one lets go.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np

from axoneme.services import maglev
from axoneme.services.balanced import (
    Address,
    Algorithm,
    Backend,
    BackendState,
    Balanced,
    FrontendKind,
    Network,
)
from axoneme.services.numbers import Numbers
from axoneme.services.rows import (
    ADDRESS,
    PLACE,
    BackendFlag,
    BackendRow,
    Changes,
    Departed,
    FrontendFlag,
    FrontendRow,
    Held,
    Place,
    RangeKey,
    ServiceRow,
    Step,
    TableAlgorithm,
    is_marker,
    marker,
    packed,
    place,
    place_text,
    range_of,
)

#: A tick of the datapath in nanoseconds (``TICK_SHIFT``).
TICK: Final = 1 << 30
#: Flags of a backend's row that the kernel does not have yet.
_UNWRITTEN: Final = 0xFF
#: Addresses of these kinds are a service's own; those of the others belong to somebody.
_MARKED: Final = (FrontendKind.CLUSTER_IP, FrontendKind.LOAD_BALANCER, FrontendKind.BALANCER)

#: Name and port.
Name = tuple[str, str]
#: Of those that claim a frontend the lowest has it: when it was made, its name, its port.
_Claim = tuple[str, str, str]
#: Family, and for whom: callers within, callers from outside, or those of certain ranges only.
_ViewKey = tuple[int, str]
_Ranges = frozenset[tuple[int, bytes]]


@dataclass(slots=True)
class _View:
    """What is written under a service's number."""

    number: int
    row: ServiceRow | None = None
    #: Numbers of backends, by slot.
    slots: list[int] = field(default_factory=list)
    leaving: tuple[int, ...] = ()
    #: Slots of an earlier process that are not in the row with the others.
    stray: tuple[int, ...] = ()
    #: The backends and weights of its maglev table; None: it has none; empty: of an earlier process.
    shares: tuple[tuple[int, int], ...] | None = None
    ranges: _Ranges = frozenset()

    def members(self) -> set[int]:
        return {*self.slots, *self.leaving}


class _Pointer(NamedTuple):
    """A frontend before numbers are known."""

    service: _ViewKey
    outside: _ViewKey
    flags: int


@dataclass(slots=True)
class _Plan:
    """What a service asks for."""

    claim: _Claim
    pointers: dict[Place, _Pointer] = field(default_factory=dict)
    markers: dict[Place, int] = field(default_factory=dict)
    ranges: dict[_ViewKey, _Ranges] = field(default_factory=dict)  # of every view
    external: bool = False


@dataclass(slots=True)
class _Entry:
    """A service as it is written."""

    plan: _Plan
    views: dict[_ViewKey, _View]


class _Writes:
    """Rows that are put and deleted, by table."""

    def __init__(self) -> None:
        self.put: dict[str, tuple[list[object], list[object]]] = {}
        self.gone: dict[str, list[object]] = {}

    def add(self, table: str, key: object, value: object) -> None:
        keys, values = self.put.setdefault(table, ([], []))
        keys.append(key)
        values.append(value)

    def drop(self, table: str, key: object) -> None:
        self.gone.setdefault(table, []).append(key)

    def steps(self) -> list[Step]:
        order = ("backends", "maglev", "slots", "source_ranges", "services", "frontends")
        puts = [Step(table, *self.put[table]) for table in order if table in self.put]
        order = ("frontends", "services", "maglev", "source_ranges", "slots", "backends")
        return puts + [Step(table, self.gone[table], None) for table in order if table in self.gone]


class ServiceTables:
    """All services of a node. ``held`` is what the kernel holds at the start; numbers up to ``after`` may be
    remembered by flows; ``places`` is the size of maglev tables. Tell it everything, then write what
    `changes` says."""

    def __init__(self, held: Held | None = None, after: int = 0, places: int = maglev.PLACES) -> None:
        held = held or Held()
        self._places = places
        self._wanted: dict[Name, Balanced] = {}
        self._touched: dict[Name, None] = {}
        self._entries: dict[Name, _Entry] = {}
        self._machines: frozenset[bytes] = frozenset()
        #: By frontend or marker, who claims it, the owner first.
        self._claims: dict[Place, list[_Claim]] = {}
        self._contested: set[Place] = set()
        #: As written.
        self._frontends = dict(held.frontends)
        self._dirty: set[Place] = set(held.frontends)
        #: Views by number; those of an earlier process that nobody has taken up.
        self._views: dict[int, _View] = {}
        self._orphans: dict[int, _View] = {}
        self._rows = dict(held.backends)
        #: By number: in how many views a backend is, and in how many of them it has a slot.
        self._uses: dict[int, int] = dict.fromkeys(held.backends, 0)
        self._slotted: dict[int, int] = dict.fromkeys(held.backends, 0)
        self._backends: dict[Place, int] = {}
        for number, row in held.backends.items():
            self._backends.setdefault(Place(row[:PLACE]), number)
        #: Backends of which something has changed.
        self._moved: set[int] = set(held.backends)
        self._inherit(held)
        self._service_numbers = Numbers(max([after, *self._views]))
        self._backend_numbers = Numbers(max([after, *self._uses]))
        #: By name and port: what of a service could not be done.
        self.problems: dict[Name, str] = {}

    def _inherit(self, held: Held) -> None:
        """Views as the kernel has them."""
        slots: dict[int, dict[int, int]] = {}
        for (service, slot), backend in held.slots.items():
            slots.setdefault(service, {})[slot] = backend
        ranges: dict[int, set[tuple[int, bytes]]] = {}
        for key in held.ranges:
            ranges.setdefault(key.service, set()).add((key.prefix_length, key.address))
        for number in {*held.services, *slots, *ranges, *held.maglev}:
            theirs = slots.get(number, {})
            count = next(at for at in range(len(theirs) + 1) if at not in theirs)
            view = _View(number, held.services.get(number))
            view.slots = [theirs[at] for at in range(count)]
            view.stray = tuple(at for at in theirs if at >= count)
            view.shares = () if number in held.maglev else None
            view.ranges = frozenset(ranges.get(number, ()))
            for member in set(view.slots):
                self._uses[member] = self._uses.get(member, 0) + 1
                self._slotted[member] = self._slotted.get(member, 0) + 1
            self._views[number] = self._orphans[number] = view

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

    def numbers(self, name: str, port: str) -> dict[tuple[int, str], int]:
        """The numbers that a service has since the last `changes`, by family (4, 6) and for whom: ``""`` for
        callers within, or for all; ``outside``; or ranges."""
        entry = self._entries.get((name, port))
        return {key: view.number for key, view in entry.views.items()} if entry else {}

    def backend_number(self, backend: Backend, protocol: int) -> int | None:
        return self._backends.get(place(backend.address, backend.port, protocol))

    @property
    def counts(self) -> tuple[int, int, int]:
        """Services (one a port), frontends without markers, backends, as written."""
        frontends = sum(1 for key in self._frontends if not is_marker(key))
        return len(self._entries), frontends, len(self._rows)

    # ---- the difference ------------------------------------------------------------------------

    def changes(self) -> Changes:
        """What to write so that the tables say what was told; it counts as written."""
        changes, writes = Changes(), _Writes()
        touched, self._touched = self._touched, {}
        plans = {name: _plan(balanced) for name in touched if (balanced := self._wanted.get(name))}
        for name in touched:
            self._claim(name, plans.get(name))
        for name, plan in plans.items():
            self._compile(name, plan, writes, changes)
        for name in touched:
            if name not in plans and (entry := self._entries.pop(name, None)):
                for view in entry.views.values():
                    self._retire(view, writes, changes)
        for view in self._orphans.values():
            self._retire(view, writes, changes)
        self._orphans = {}
        self._write_frontends(writes)
        self._write_backends(writes, changes)
        self._note_problems()
        changes.steps = writes.steps()
        return changes

    def _claim(self, name: Name, plan: _Plan | None) -> None:
        entry = self._entries.get(name)
        if entry is not None:
            for key in (*entry.plan.pointers, *entry.plan.markers):
                claims = self._claims[key]
                claims.remove(entry.plan.claim)
                if not claims:
                    del self._claims[key]
                self._dirty.add(key)
        if plan is not None:
            for key in (*plan.pointers, *plan.markers):
                insort(self._claims.setdefault(key, []), plan.claim)
                self._dirty.add(key)

    def _compile(self, name: Name, plan: _Plan, writes: _Writes, changes: Changes) -> None:
        balanced = self._wanted[name]
        entry = self._entries.get(name)
        before = entry.views if entry else {}
        views: dict[_ViewKey, _View] = {}
        for key, ranges in plan.ranges.items():
            view = before.get(key) or self._adopt(key, plan) or self._new_view()
            views[key] = view
            changes.named[view.number] = name
            self._renew(view, key, ranges, balanced, plan, writes, changes)
        self._entries[name] = _Entry(plan, views)
        for key, view in before.items():
            if key not in views:
                self._retire(view, writes, changes)

    def _adopt(self, key: _ViewKey, plan: _Plan) -> _View | None:
        """The view to which an earlier process let this one's frontends lead."""
        if not self._orphans:
            return None
        for frontend, pointer in plan.pointers.items():
            row = self._frontends.get(frontend)
            if row is None or self._claims[frontend][0] != plan.claim:
                continue
            for each, number in ((pointer.service, row.service), (pointer.outside, row.outside)):
                if each == key and (view := self._orphans.pop(number, None)):
                    return view
        return None

    def _new_view(self) -> _View:
        view = _View(self._service_numbers.take(self._views))
        self._views[view.number] = view
        return view

    def _renew(
        self,
        view: _View,
        key: _ViewKey,
        ranges: _Ranges,
        balanced: Balanced,
        plan: _Plan,
        writes: _Writes,
        changes: Changes,
    ) -> None:
        version, side = key
        theirs = balanced.backends if not side or balanced.outside is None else balanced.outside
        weights, leaving = self._number(theirs, version, int(balanced.protocol))
        self._count(view, weights.keys(), leaving)
        slots = rearranged(view.slots, weights)
        for at, backend in enumerate(slots):
            if at >= len(view.slots) or view.slots[at] != backend:
                writes.add("slots", (view.number, at), backend)
        for at in (*range(len(slots), len(view.slots)), *(at for at in view.stray if at >= len(slots))):
            writes.drop("slots", (view.number, at))
        changes.withdrawn += [(view.number, each) for each in set(view.slots) - weights.keys()]
        view.slots, view.leaving, view.stray = slots, tuple(leaving), ()
        algorithm = _algorithm(balanced, plan, weights)
        self._share(view, algorithm, weights, writes)
        for bits, address in ranges - view.ranges:
            writes.add("source_ranges", RangeKey(bits, view.number, address), 1)
        for bits, address in view.ranges - ranges:
            writes.drop("source_ranges", RangeKey(bits, view.number, address))
        view.ranges = ranges
        row = ServiceRow(len(slots), -(-balanced.affinity * 10**9 // TICK), algorithm)
        if row != view.row:
            writes.add("services", view.number, row)
            view.row = row

    def _number(
        self, backends: Sequence[Backend], version: int, protocol: int
    ) -> tuple[dict[int, int], set[int]]:
        """The weights, by number, of those that take connections, and the numbers of the others."""
        weights: dict[int, int] = {}
        leaving: set[int] = set()
        for backend in backends:
            if backend.address.version != version:
                continue
            key = place(backend.address, backend.port, protocol)
            number = self._backends.get(key)
            if number is None:
                number = self._backends[key] = self._backend_numbers.take(self._uses)
                self._uses[number] = self._slotted[number] = 0
                self._rows[number] = BackendRow(key + bytes((_UNWRITTEN,)))
            if backend.state is BackendState.ACTIVE and backend.weight > 0:
                weights.setdefault(number, backend.weight)
            else:
                leaving.add(number)
        return weights, leaving - weights.keys()

    def _count(self, view: _View, slotted: Set[int], leaving: Set[int]) -> None:
        before = set(view.slots)
        if slotted != before:
            _add(self._slotted, slotted - before, before - slotted)
            self._moved |= slotted ^ before
        members, former = slotted | leaving, view.members()
        if members != former:
            _add(self._uses, members - former, former - members)
            self._moved |= members ^ former

    def _share(
        self, view: _View, algorithm: TableAlgorithm, weights: Mapping[int, int], writes: _Writes
    ) -> None:
        """Its maglev table."""
        if algorithm == TableAlgorithm.RANDOM or not weights:
            if view.shares is not None:
                writes.drop("maglev", view.number)
            view.shares = None
            return
        shares = tuple(sorted(weights.items()))
        if shares != view.shares:
            numbers = np.fromiter(weights, np.uint32, len(weights))
            names = [place_text(Place(self._rows[number][:PLACE])) for number in weights]
            places = numbers[maglev.fill(names, list(weights.values()), self._places)]
            writes.add("maglev", view.number, places)
            view.shares = shares

    def _retire(self, view: _View, writes: _Writes, changes: Changes) -> None:
        self._count(view, frozenset(), frozenset())
        if view.row is not None:
            writes.drop("services", view.number)
        if view.shares is not None:
            writes.drop("maglev", view.number)
        for bits, address in view.ranges:
            writes.drop("source_ranges", RangeKey(bits, view.number, address))
        for at in (*range(len(view.slots)), *view.stray):
            writes.drop("slots", (view.number, at))
        changes.withdrawn += [(view.number, each) for each in view.slots]
        changes.retired.append(view.number)
        del self._views[view.number]

    def _write_frontends(self, writes: _Writes) -> None:
        dirty, self._dirty = self._dirty, set()
        for key in dirty:
            row, before = self._frontend(key), self._frontends.get(key)
            if row is None:
                if before is not None:
                    writes.drop("frontends", key)
                    del self._frontends[key]
            elif row != before:
                writes.add("frontends", key, row)
                self._frontends[key] = row
            contested = row is not None and not is_marker(key) and len(self._claims[key]) > 1
            (self._contested.add if contested else self._contested.discard)(key)

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
        pointer = entry.plan.pointers[key]
        return FrontendRow(
            entry.views[pointer.service].number, entry.views[pointer.outside].number, pointer.flags
        )

    def _write_backends(self, writes: _Writes, changes: Changes) -> None:
        moved, self._moved = self._moved, set()
        for number in sorted(moved):
            row = self._rows.get(number)
            if self._uses[number]:
                assert row is not None
                flags = 0 if self._slotted[number] else int(BackendFlag.LEAVING)
                if row[PLACE] != flags:
                    row = self._rows[number] = BackendRow(row[:PLACE] + bytes((flags,)))
                    writes.add("backends", number, row)
                continue
            del self._uses[number], self._slotted[number]
            if row is None:  # a slot of an earlier process led nowhere
                continue
            del self._rows[number]
            where = Place(row[:PLACE])
            if row[PLACE] != _UNWRITTEN:
                writes.drop("backends", number)
                changes.departed.append(Departed(number, where))
            if self._backends.get(where) == number:
                del self._backends[where]

    def _note_problems(self) -> None:
        self.problems = {}
        for key in sorted(self._contested):
            (_, owner, _), *others = self._claims[key]
            for _, name, port in others:
                where = f"{place_text(key)}/{_protocol(key[-1])}"
                self.problems.setdefault((name, port), f"{where} belongs to {owner}, which is older")


def _plan(balanced: Balanced) -> _Plan:
    plan = _Plan((balanced.created, balanced.name, balanced.port))
    #: By family, the ranges that the view for callers from outside already has.
    served: dict[int, _Ranges] = {}
    for frontend in balanced.frontends:
        version = frontend.address.version
        within: _ViewKey = (version, "")
        plan.ranges.setdefault(within, frozenset())
        outside, flags = within, 0
        if frontend.external:
            plan.external = True
            flags |= FrontendFlag.EXTERNAL
            outside = (version, "outside") if balanced.outside is not None else within
            if frontend.source_ranges is not None:
                flags |= FrontendFlag.SOURCE_RANGES
                ranges = frozenset(map(range_of, _of_family(frontend.source_ranges, version)))
                if served.setdefault(version, ranges) != ranges:
                    outside = (version, _text(ranges))
                plan.ranges[outside] = ranges
            plan.ranges.setdefault(outside, frozenset())
        if frontend.direct:
            flags |= FrontendFlag.DIRECT
        key = place(frontend.address, frontend.port, frontend.protocol)
        plan.pointers[key] = _Pointer(within, outside, int(flags))
        if frontend.kind in _MARKED and not frontend.address.is_unspecified:
            key = marker(packed(frontend.address))
            plan.markers[key] = plan.markers.get(key, 0) | int(flags & FrontendFlag.EXTERNAL)
    return plan


def _of_family(ranges: Iterable[Network], version: int) -> Iterator[Network]:
    return (network for network in ranges if network.version == version)


def _text(ranges: _Ranges) -> str:
    return " ".join(["only", *(f"{bits}:{address.hex()}" for bits, address in sorted(ranges))])


def _algorithm(balanced: Balanced, plan: _Plan, weights: Mapping[int, int]) -> TableAlgorithm:
    """Callers within choose at their sockets, before there is a tuple that could decide."""
    if balanced.algorithm is Algorithm.MAGLEV and plan.external:
        return TableAlgorithm.MAGLEV
    return TableAlgorithm.WEIGHTED if len(set(weights.values())) > 1 else TableAlgorithm.RANDOM


def rearranged(slots: Sequence[int], wanted: Iterable[int]) -> list[int]:
    """These numbers in slots, with as few changes as possible to those that were there."""
    fresh = dict.fromkeys(wanted)
    if not slots:
        return list(fresh)
    kept: list[int | None] = []
    for number in slots:
        kept.append(number if number in fresh else None)
        fresh.pop(number, None)
    coming = list(fresh)
    coming.reverse()
    at = 0
    while at < len(kept):
        if kept[at] is None:
            if coming:
                kept[at] = coming.pop()
            else:
                last = kept.pop()
                if at < len(kept):
                    kept[at] = last
                continue
        at += 1
    coming.reverse()
    return [number for number in kept if number is not None] + coming


def _add(counts: dict[int, int], more: Iterable[int], fewer: Iterable[int]) -> None:
    for number in more:
        counts[number] += 1
    for number in fewer:
        counts[number] -= 1


def _protocol(number: int) -> str:
    return {6: "TCP", 17: "UDP", 132: "SCTP"}.get(number, str(number))
