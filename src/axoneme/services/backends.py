"""The table of backends: one number for each place, in however many services it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Final

from axoneme.services.numbers import Numbers
from axoneme.services.rows import PLACE, BackendFlag, BackendRow, Place
from axoneme.services.writes import Changes, Departed, Writes

#: Flags of a row that the kernel does not have yet.
_UNWRITTEN: Final = 0xFF


class Backends:
    """Numbers and rows, and who uses them. A number without a use is deleted by the next `write`."""

    def __init__(self, held: Mapping[int, BackendRow], named: Iterable[int], after: int) -> None:
        """``held`` is what the kernel has, ``named`` the numbers in its slots, also those that it has not."""
        self._rows = dict(held)
        #: By number: in how many views a backend is, and in how many of them it has a slot.
        self._uses = dict.fromkeys([*held, *named], 0)
        self._slotted = dict(self._uses)
        self._numbers: dict[Place, int] = {}
        for number, row in held.items():
            self._numbers.setdefault(Place(row[:PLACE]), number)
        #: Those that may have to be written.
        self._moved = set(self._uses)
        self._next = Numbers(max([after, *self._uses]))

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def highest(self) -> int:
        return self._next.highest

    def get(self, place: Place) -> int | None:
        return self._numbers.get(place)

    def place(self, number: int) -> Place:
        return Place(self._rows[number][:PLACE])

    def number(self, place: Place) -> int:
        """A new one where it has none; count a use of it."""
        found = self._numbers.get(place)
        if found is None:
            found = self._numbers[place] = self._next.take(self._uses)
            self._uses[found] = self._slotted[found] = 0
            self._rows[found] = BackendRow(place + bytes((_UNWRITTEN,)))
        return found

    def count(self, slots: tuple[Set[int], Set[int]], members: tuple[Set[int], Set[int]]) -> None:
        """A view has others: numbers before and now, in its slots, and in all."""
        for counts, (before, now) in ((self._slotted, slots), (self._uses, members)):
            if before == now:
                continue
            for number in now - before:
                counts[number] += 1
            for number in before - now:
                counts[number] -= 1
            self._moved |= before ^ now

    def write(self, writes: Writes, changes: Changes) -> None:
        moved, self._moved = self._moved, set()
        for number in sorted(moved):
            row = self._rows.get(number)
            if self._uses[number]:
                assert row is not None
                flags = 0 if self._slotted[number] else int(BackendFlag.LEAVING)
                if row[PLACE] != flags:
                    after = self._rows[number] = BackendRow(row[:PLACE] + bytes((flags,)))
                    writes.change("backends", number, None if row[PLACE] == _UNWRITTEN else row, after)
                continue
            del self._uses[number], self._slotted[number]
            if row is not None:  # else a slot of an earlier process led nowhere
                self._delete(number, row, writes, changes)

    def _delete(self, number: int, row: BackendRow, writes: Writes, changes: Changes) -> None:
        del self._rows[number]
        place = Place(row[:PLACE])
        if self._numbers.get(place) == number:
            del self._numbers[place]
        if row[PLACE] != _UNWRITTEN:
            writes.change("backends", number, row, None)
            changes.departed.append(Departed(number, place))
