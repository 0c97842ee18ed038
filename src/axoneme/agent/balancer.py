"""What is balanced, in the kernel: written step by step, and what follows when something goes.

    Balanced -> ServiceTables -> steps -> tables -> epochs, sockets, affinities, counters

Whoever has services (a cluster's, or those of a standalone load balancer) tells them by `apply`; `settle`
makes them true. A service that finds no room in the tables is refused as a whole, and what it was before
stays in force.
"""

from __future__ import annotations

import gc
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Final
from typing import Protocol as Interface

import numpy as np

from axoneme.agent.capacity import Room, lack
from axoneme.agent.highmark import HighMark
from axoneme.datapath.plane import Datapath
from axoneme.flows.servicenames import ServicePort
from axoneme.services import telling
from axoneme.services.arrays import held, key_array, value_array
from axoneme.services.balanced import Address, Balanced
from axoneme.services.rows import ADDRESS
from axoneme.services.tables import Name, ServiceTables
from axoneme.services.view import ServiceView
from axoneme.services.writes import Changes, Departed, Step

log = logging.getLogger(__name__)

TABLES: Final = ("frontends", "services", "slots", "backends", "source_ranges")
#: Services at once.
_MANY: Final = 500


class Names(Interface):
    """Writes down what the numbers of services mean, before they get into the kernel."""

    def services(self, services: Mapping[int, ServicePort]) -> None: ...


class Balancer:
    """The service tables of one node."""

    def __init__(
        self,
        plane: Datapath,
        names: Names,
        mark: HighMark,
        limits: Mapping[str, int] | None = None,
        close: Callable[[Sequence[Departed]], None] = lambda _: None,
    ) -> None:
        """``limits``: how many entries tables may grow to; ``close`` ends the sockets that called backends
        which are gone."""
        self._plane = plane
        self._names = names
        self._mark = mark
        self._close = close
        self._limits = {
            name: max((limits or {}).get(name, 0), getattr(plane, name).room) for name in (*TABLES, "maglev")
        }
        # What is new is written before what it replaces is deleted: for a moment there is both.
        self._room = Room(plane, {name: 2 * limit for name, limit in self._limits.items()})
        self._machines: tuple[Address, ...] = ()
        #: Of services told since the last `settle`: what they were before.
        self._changed: dict[Name, Balanced | None] = {}
        self._refused: dict[Name, tuple[Balanced, str]] = {}
        #: (service, backend) that counters and affinities may still have; backend None: all of the service.
        self._gone: set[tuple[int, int | None]] = set()
        self._departed: set[int] = set()
        #: Writes to kernel tables since the start, by table.
        self.writes: Counter[str] = Counter()
        #: Whether a write has failed, so that the kernel lacks something until `reconcile`.
        self.broken = False
        self.tables = self._adopted()

    def _adopted(self) -> ServiceTables:
        """The kernel's tables as they are."""
        plane = self._plane
        found = held({name: getattr(plane, name).adopt() for name in TABLES}, plane.maglev.adopt())
        tables = ServiceTables(found, self._mark.after)
        plane.maglev.refill = tables.shares
        return tables

    # ---- what is told --------------------------------------------------------------------------

    def apply(self, upserts: Iterable[Balanced], removals: Iterable[Name] = ()) -> None:
        """Services are new or other than before, or gone (name and port); removals come first."""
        for name in removals:
            self._tell(name, None)
        for balanced in upserts:
            self._tell((balanced.name, balanced.port), balanced)

    def machines(self, addresses: Iterable[Address]) -> None:
        """All addresses of all nodes."""
        self._machines = tuple(addresses)
        self.tables.machines(self._machines)

    def _tell(self, name: Name, balanced: Balanced | None) -> None:
        self._refused.pop(name, None)
        self._changed.setdefault(name, self.tables.get(*name))
        self._set(name, balanced)

    def _set(self, name: Name, balanced: Balanced | None) -> None:
        if balanced is None:
            self.tables.remove(*name)
        else:
            self.tables.upsert(balanced)

    # ---- to the kernel -------------------------------------------------------------------------

    def settle(self) -> int:
        """Brings the kernel up to date with what was told; how many entries were written. The first one, when
        everything has been told, writes the difference to what an earlier process left.

        BpfError when the kernel refuses it; then only `reconcile` makes it whole again.
        """
        with _uncollected() if len(self._changed) > _MANY else nullcontext():
            return self._settle()

    def _settle(self) -> int:
        self._fit()
        changes = self.tables.changes()
        self._names.services({number: ServicePort(*name) for number, name in changes.named.items()})
        if not changes:
            return 0
        before = self.writes.total()
        self.broken, broken = True, self.broken
        self._mark.reach(self.tables.highest)
        for step in changes.steps:
            self._make_room(step)
        for step in changes.steps:
            self._write(step)
        self._follow(changes)
        self.broken = broken
        return self.writes.total() - before

    def reconcile(self) -> int:
        """Compares the kernel's tables with what they should be and mends them; how many entries."""
        former = self.tables
        self.tables = self._adopted()
        self.tables.machines(self._machines)
        for balanced in former:
            self.tables.upsert(balanced)
        mended = self.settle()
        self.broken = False
        return mended

    def _make_room(self, step: Step) -> None:
        """`MapFull` where there is none."""
        if step.values is None or step.table == "maglev":
            return
        table = getattr(self._plane, step.table)
        if len(table) + len(step.keys) > table.room:
            keys = key_array(step.table, step.keys, table.key)
            self._room.reach(step.table, len(table) + table.absent(keys))

    def _write(self, step: Step) -> None:
        table = getattr(self._plane, step.table)
        if step.table == "maglev":
            if step.values is None:
                self.writes["maglev"] += table.delete(step.keys)
            else:
                self.writes["maglev"] += table.write(dict(zip(step.keys, step.values, strict=True)))
            return
        keys = key_array(step.table, step.keys, table.key)
        if step.values is None:
            table.delete(keys)
        else:
            table.write(keys, value_array(step.table, step.values, table.value))
        self.writes[step.table] += len(step.keys)

    def _follow(self, changes: Changes) -> None:
        """Flows of backends that are gone, and to addresses that are a service's now, are decided anew."""
        places = [*(each.place for each in changes.departed), *changes.opened]
        self._plane.raise_addresses({each[:ADDRESS] for each in places})
        if changes.departed:
            self._close(changes.departed)
        self._departed.update(each.number for each in changes.departed)
        self._gone.update((service, None) for service in changes.retired)
        self._gone.update(changes.withdrawn)
        if any(self.tables.affinity(service) for service, _ in changes.withdrawn):
            self._forget_affinities()

    # ---- what does not fit ---------------------------------------------------------------------

    @property
    def problems(self) -> dict[Name, str]:
        """By name and port: what of a service is not in force, and why."""
        return self.tables.problems | {name: why for name, (_, why) in self._refused.items()}

    def _fit(self) -> None:
        """Compiles what was told; of services that do not fit together the youngest stay as they were."""
        changed, self._changed = self._changed, {}
        before = self.tables.sizes
        self.tables.compile()
        if self._lack() is not None:
            self._refuse(changed)
        elif self._refused and any(before[name] > size for name, size in self.tables.sizes.items()):
            self._try_refused()

    def _lack(self) -> tuple[str, str] | None:
        """A table that has no room for what is compiled, and the problem in words."""
        for name, size in self.tables.sizes.items():
            if size > self._limits[name]:
                return name, lack(name, size, self._limits[name])
        return None

    def _refuse(self, changed: Mapping[Name, Balanced | None]) -> None:
        told = {name: wanted for name in changed if (wanted := self.tables.get(*name))}
        for name in sorted(told, key=lambda each: (told[each].created, each), reverse=True):
            lacking = self._lack()
            if lacking is None:
                return
            table, problem = lacking
            size = self.tables.sizes[table]
            self._set(name, changed[name])
            self.tables.compile()
            if self.tables.sizes[table] < size:
                self._refused[name] = told[name], f"refused, what was before stays in force: {problem}"
                log.error("%s %s: %s", *name, problem)
            else:
                self._set(name, told[name])
                self.tables.compile()

    def _try_refused(self) -> None:
        """Perhaps they fit now."""
        for name, (balanced, _) in sorted(self._refused.items(), key=lambda each: each[1][0].created):
            former = self.tables.get(*name)
            self._set(name, balanced)
            self.tables.compile()
            if self._lack() is None:
                del self._refused[name]
            else:
                self._set(name, former)
                self.tables.compile()

    # ---- what the datapath remembers ------------------------------------------------------------

    def tidy(self) -> None:
        """Counters and affinities of what is gone are removed; call it now and then."""
        if not self._gone and not self._departed:
            return
        self._forget_affinities()
        table = self._plane.served
        keys, _ = table.read_all()
        stale = np.isin(keys["backend"], _numbers(self._departed))
        stale |= np.isin(keys["service"], _numbers(service for service, each in self._gone if each is None))
        if stale.any():
            table.delete(keys[stale])
        self._gone, self._departed = set(), set()

    def _forget_affinities(self) -> None:
        """No client is led to a backend again that takes no connections of its service any more."""
        table = self._plane.affinities
        keys, values = table.read_all()
        pairs = keys["service"].astype(np.uint64) << np.uint64(32) | values["backend"]
        withdrawn = [service << 32 | backend for service, backend in self._gone if backend is not None]
        stale = np.isin(pairs, np.array(withdrawn, np.uint64))
        stale |= np.isin(values["backend"], _numbers(self._departed))
        stale |= np.isin(keys["service"], _numbers(service for service, each in self._gone if each is None))
        if stale.any():
            table.delete(keys[stale])

    # ---- what is told to others ------------------------------------------------------------------

    def services(self) -> list[ServiceView]:
        """All that is balanced, and how often which backend was chosen."""
        keys, values = self._plane.served.read_all()
        pairs = zip(keys["service"].tolist(), keys["backend"].tolist(), strict=True)
        served = dict(zip(pairs, values["connections"].tolist(), strict=True))
        return telling.tell(self.tables, served, self.problems)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the garbage collector: what is made stays, and it would look through it again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _numbers(found: Iterable[int]) -> Any:
    return np.array(list(found), np.uint32)
