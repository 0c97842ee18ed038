"""The kernel's policy table as values, and the difference between two of them.

**Order of writing.** Entries are written one by one while packets pass. A `TableDiff` holds four
phases, and if they are written in order (within a phase in any order), every packet meanwhile gets
the verdict of the old table or that of the new one:

1. put denies: every deny of the new table takes effect. An old allow that sits inside a new, wider
   deny would hide it until phase 3, so such an entry is turned into that deny first.
2. put allows: every allow of the new table takes effect where no deny, old or new, forbids it.
3. delete allows that are not in the new table.
4. delete denies that are not.

Why it holds across the two lookups (under the peer, under every peer): while an old deny stands, a
packet that it denied stays denied; once phase 1 is over, so does one that the new table denies. A
packet that no table denies has its old allows until phase 3 and its new ones from phase 2 on.

**Epochs.** ``changed`` holds the subjects whose open connections must be decided anew. For a peer that
was known before, that is every change of an entry, for it changes the verdict or who is named for it.
For a peer that has only just become known, no decision can rest on entries under its number, only on
those for every peer; an allow under its number then alters no verdict, but a deny does. For a subject
that is new on this node nothing has been decided. (An address that moves from one identity to
another is the address table's matter, with an epoch of its own.) Raise the epochs *after* phase 4;
the datapath must read the epoch before it looks up policy, so that a decision made from a half
written table is taken again.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from axoneme.policy.ports import Prefix, wider
from axoneme.policy.rulenumbers import Refs

#: The peer of entries that hold for every peer.
EVERY_PEER = 0


class Verdict(enum.IntEnum):
    """The values of ``enum verdict`` of the datapath."""

    ALLOW = 1
    DENY = 2


class Key(NamedTuple):
    """One policy entry's key; the port in host byte order, ``prefix_length`` in bits."""

    subject: int
    peer: int
    direction: int
    protocol: int
    port: int
    prefix_length: int


class Value(NamedTuple):
    verdict: int
    rule: int


#: The entries under one (subject, direction, peer).
Cell = Mapping[Prefix, Value]
Entry = tuple[Key, Value]


@dataclass(slots=True)
class TableDiff:
    """What to write, in order; what to register before it, and which subjects' epochs to raise after.

    ``rules`` says what rule numbers mean that the entries carry from now on; ``released`` are
    numbers in no entry any more (flows that they decided may still be shown).
    """

    put_denies: list[Entry] = field(default_factory=list)
    put_allows: list[Entry] = field(default_factory=list)
    delete_allows: list[Key] = field(default_factory=list)
    delete_denies: list[Key] = field(default_factory=list)
    changed: set[int] = field(default_factory=set)
    rules: dict[int, Refs] = field(default_factory=dict)
    released: frozenset[int] = frozenset()

    def __bool__(self) -> bool:
        return bool(
            self.put_denies or self.put_allows or self.delete_allows or self.delete_denies or self.rules
        )

    def __len__(self) -> int:
        """How many writes to the kernel."""
        return len(self.put_denies) + len(self.put_allows) + len(self.delete_allows) + len(self.delete_denies)

    def writes(self) -> Iterator[tuple[Key, Value | None]]:
        """Every write in order; None deletes."""
        yield from self.put_denies
        yield from self.put_allows
        for key in self.delete_allows:
            yield key, None
        for key in self.delete_denies:
            yield key, None

    def add(self, subject: int, direction: int, peer: int, change: CellChange) -> None:
        """Adds what one cell's change writes."""
        cell = (subject, peer, direction)
        make = Key._make
        for prefix, value in change.put_denies:
            self.put_denies.append((make(cell + prefix), value))
        for prefix, value in change.put_allows:
            self.put_allows.append((make(cell + prefix), value))
        self.delete_allows += [make(cell + prefix) for prefix in change.delete_allows]
        self.delete_denies += [make(cell + prefix) for prefix in change.delete_denies]


@dataclass(frozen=True, slots=True)
class CellChange:
    """The part of a difference that concerns one cell; the same for all cells that change alike."""

    put_denies: tuple[tuple[Prefix, Value], ...]
    put_allows: tuple[tuple[Prefix, Value], ...]
    delete_allows: tuple[Prefix, ...]
    delete_denies: tuple[Prefix, ...]

    def __bool__(self) -> bool:
        return bool(self.put_denies or self.put_allows or self.delete_allows or self.delete_denies)


def cell_change(before: Cell, after: Cell) -> CellChange:
    """What turns one cell into another."""
    put_denies: list[tuple[Prefix, Value]] = []
    put_allows: list[tuple[Prefix, Value]] = []
    delete_allows: list[Prefix] = []
    delete_denies: list[Prefix] = []
    for prefix, value in after.items():
        if before.get(prefix) != value:
            (put_denies if value.verdict == Verdict.DENY else put_allows).append((prefix, value))
    for prefix, value in before.items():
        if prefix in after:
            continue
        if value.verdict == Verdict.DENY:
            delete_denies.append(prefix)
        elif hidden := _denied_by(prefix, after):
            put_denies.append((prefix, hidden))
            delete_denies.append(prefix)
        else:
            delete_allows.append(prefix)
    return CellChange(tuple(put_denies), tuple(put_allows), tuple(delete_allows), tuple(delete_denies))


def difference(before: Mapping[Key, Value], after: Iterable[Entry]) -> TableDiff:
    """What turns one whole table into another: for an agent that finds its predecessor's table.

    Every peer counts as known before. ``rules`` stays empty.
    """
    cells: dict[tuple[int, int, int], tuple[dict[Prefix, Value], dict[Prefix, Value]]] = {}
    for side, entries in ((0, before.items()), (1, after)):
        for key, value in entries:
            cell = cells.setdefault((key.subject, key.direction, key.peer), ({}, {}))
            cell[side][Prefix(key.protocol, key.port, key.prefix_length)] = value
    diff = TableDiff()
    for (subject, direction, peer), (old, new) in cells.items():
        if change := cell_change(old, new):
            diff.add(subject, direction, peer, change)
            diff.changed.add(subject)
    return diff


def _denied_by(prefix: Prefix, cell: Cell) -> Value | None:
    """The entry of ``cell`` that rules ``prefix``, if it is a deny."""
    for around in wider(prefix):
        if value := cell.get(around):
            return value if value.verdict == Verdict.DENY else None
    return None
