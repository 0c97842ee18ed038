"""Views: what stands under the number of a service.

A view whose backends change keeps the slots of those that stay: the new ones get the gaps, then the last
ones move into them. So one backend more or less is a constant number of writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from axoneme.services.backends import Backends
from axoneme.services.maglev import Shares
from axoneme.services.numbers import Numbers
from axoneme.services.plan import Ranges
from axoneme.services.rows import Held, RangeKey, ServiceRow, TableAlgorithm, place_text
from axoneme.services.writes import Changes, Writes

#: A tick of the datapath in nanoseconds (``TICK_SHIFT``).
TICK: Final = 1 << 30
#: Of a lookup table that an earlier process has left.
_INHERITED: Final = Shares(())


@dataclass(slots=True)
class View:
    """As it is written."""

    number: int
    row: ServiceRow | None = None
    #: Numbers of backends, by slot; and of those that are in none.
    slots: list[int] = field(default_factory=list)
    leaving: tuple[int, ...] = ()
    #: Slots of an earlier process that are not in a row with the others.
    stray: tuple[int, ...] = ()
    #: What its lookup table is made from; None: it has none.
    shares: Shares | None = None
    ranges: Ranges = frozenset()


class Wish(NamedTuple):
    """What a view should be: weights by the numbers of backends, and the numbers of those that only go on."""

    weights: Mapping[int, int]
    leaving: Set[int]
    ranges: Ranges
    affinity: int  # seconds
    algorithm: TableAlgorithm


class Views:
    """All views by number, and the writes that change them."""

    def __init__(self, held: Held, backends: Backends, writes: Writes, after: int) -> None:
        self._backends = backends
        self._writes = writes
        self._views: dict[int, View] = {}
        #: Views of an earlier process that nobody has taken up.
        self._orphans: dict[int, View] = {}
        #: How many entries all of them have in these tables.
        self.slots = self.ranges = self.tables = 0
        for view in _inherited(held):
            self._views[view.number] = self._orphans[view.number] = view
            members = set(view.slots)
            backends.count((frozenset(), members), (frozenset(), members))
            self._add_up(view, 1)
        self._next = Numbers(max([after, *self._views]))

    def __len__(self) -> int:
        return len(self._views)

    @property
    def highest(self) -> int:
        return self._next.highest

    def get(self, number: int) -> View | None:
        return self._views.get(number)

    @property
    def inherited(self) -> bool:
        """Whether there are any of an earlier process that nobody has taken up."""
        return bool(self._orphans)

    def adopt(self, number: int) -> View | None:
        return self._orphans.pop(number, None)

    def new(self) -> View:
        view = View(self._next.take(self._views))
        self._views[view.number] = view
        return view

    def renew(self, view: View, wish: Wish, changes: Changes) -> None:
        change, number = self._writes.change, view.number
        self._add_up(view, -1)
        slots = rearranged(view.slots, wish.weights)
        for at, backend in enumerate(slots):
            former = view.slots[at] if at < len(view.slots) else None
            if former != backend:
                change("slots", (number, at), former, backend)
        for at in range(len(slots), len(view.slots)):
            change("slots", (number, at), view.slots[at], None)
        for at in view.stray:
            change("slots", (number, at), 0, slots[at] if at < len(slots) else None)
        before, now = set(view.slots), wish.weights.keys()
        self._backends.count((before, now), (before.union(view.leaving), now | wish.leaving))
        changes.withdrawn += [(number, each) for each in before - now]
        view.slots, view.leaving, view.stray = slots, tuple(wish.leaving), ()
        self._share(view, wish)
        for bits, address in wish.ranges - view.ranges:
            change("source_ranges", RangeKey(bits, number, address), None, 1)
        for bits, address in view.ranges - wish.ranges:
            change("source_ranges", RangeKey(bits, number, address), 1, None)
        view.ranges = wish.ranges
        row = ServiceRow(len(slots), -(-wish.affinity * 10**9 // TICK), wish.algorithm)
        if row != view.row:
            change("services", number, view.row, row)
            view.row = row
        self._add_up(view, 1)

    def _share(self, view: View, wish: Wish) -> None:
        shares = None
        if wish.algorithm != TableAlgorithm.RANDOM and wish.weights:
            place = self._backends.place
            named = ((place_text(place(number)), weight, number) for number, weight in wish.weights.items())
            shares = Shares(tuple(sorted(named)))
        if shares != view.shares:
            self._writes.change("maglev", view.number, view.shares, shares)
            view.shares = shares

    def retire(self, view: View, changes: Changes) -> None:
        change, number = self._writes.change, view.number
        self._add_up(view, -1)
        change("services", number, view.row, None)
        change("maglev", number, view.shares, None)
        for bits, address in view.ranges:
            change("source_ranges", RangeKey(bits, number, address), 1, None)
        for at, backend in (*enumerate(view.slots), *((at, 0) for at in view.stray)):
            change("slots", (number, at), backend, None)
        before = set(view.slots)
        self._backends.count((before, frozenset()), (before.union(view.leaving), frozenset()))
        changes.withdrawn += [(number, each) for each in before]
        changes.retired.append(number)
        del self._views[number]

    def retire_orphans(self, changes: Changes) -> None:
        orphans, self._orphans = self._orphans, {}
        for view in orphans.values():
            self.retire(view, changes)

    def _add_up(self, view: View, sign: int) -> None:
        self.slots += sign * len(view.slots)
        self.ranges += sign * len(view.ranges)
        self.tables += sign * (view.shares is not None)


def _inherited(held: Held) -> Iterator[View]:
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
        yield View(
            number,
            held.services.get(number),
            [theirs[at] for at in range(count)],
            (),
            tuple(at for at in theirs if at >= count),
            _INHERITED if number in held.maglev else None,
            frozenset(ranges.get(number, ())),
        )


def rearranged(slots: Sequence[int], wanted: Iterable[int]) -> list[int]:
    """These numbers in slots, with as few changes as possible to those that were there."""
    fresh = dict.fromkeys(wanted)
    if not slots:
        return list(fresh)
    kept: list[int | None] = []
    for number in slots:
        kept.append(number if number in fresh else None)
        fresh.pop(number, None)
    coming = list(fresh)[::-1]
    at = 0
    while at < len(kept):
        if kept[at] is None and coming:
            kept[at] = coming.pop()
        elif kept[at] is None:
            last = kept.pop()
            if at < len(kept):
                kept[at] = last
            continue
        at += 1
    return [number for number in kept if number is not None] + coming[::-1]
