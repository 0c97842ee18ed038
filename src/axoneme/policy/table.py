"""The kernel's policy table as values, and the difference between two of them.

**Two forms.** A *side* is one direction of one subject. Where all its rules only allow and deny, a packet is
looked up under its peer and under every peer, and a deny in either wins. Where rules have an order (tiers),
or where a proxy looks at what passes, that does not suffice: the cell of each peer that some rule
names then holds what the rules for every peer say as well, and what is found there is the answer: nothing is
looked up under every peer. All entries of such a side are marked `PolicyFlag.COMPLETE`.

**Order of writing.** Entries are written one by one while packets pass. A `TableDiff` is written step by
step, and at every moment each packet gets the verdict of the old table or that of the new one.

*Sides that are of the first form before and after.* Within a step in any order:

1. put denies: every deny of the new table takes effect. An old allow that sits inside a new, wider
   deny would hide it until step 3, so such an entry is turned into that deny first.
2. put allows: every allow of the new table takes effect where no deny, old or new, forbids it.
3. delete allows that are not in the new table.
4. (at the end) delete denies that are not.

While an old deny stands, a packet that it denied stays denied; once step 1 is over, so does one that the new
table denies. A packet that no table denies has its old allows until step 3 and its new ones from step 2 on.

*Other sides.* Here an allow may stand inside a deny and the other way round, so verdicts have no order in
which they could be written; prefixes have. In one trie, take all puts before all deletes, puts narrowest
first and deletes widest first. A packet whose longest match is a new entry then has no narrower new entry
still to come, so that entry is its answer in the new table; one whose longest match is an old entry that
shall go has lost none that is narrower, so it is its answer in the old one. Each packet changes over once.
That leaves the two tries that a packet may be looked up in:

1. each peer's own cell gets its complete new content. From here on every packet of such a peer is decided
   by that cell alone, so the other trie can change unseen. Entries of the first form that shall go would
   still be read together with those for every peer: they get the verdict that holds there in the new table.
2. put, 3. delete what is under every peer: seen by the peers without cell only.
4. cells that shall be of the first form again get it: a complete entry and the pair of lookups give the same
   verdict now, so each packet may have the one or the other.
5. delete what own cells do not have any more; the packets fall to what is under every peer, which is as it
   shall be since step 3.

Both kinds go through the same five steps (`TableDiff`).

**Epochs.** ``changed`` holds the subjects whose open connections must be decided anew. For a peer that
was known before, that is every change of an entry, for it changes the verdict or who is named for it.
For a peer that has only just become known, no decision can rest on entries under its number, only on
those for every peer; an allow under its number then alters no verdict, but a deny does. For a subject
that is new on this node nothing has been decided. (An address that moves from one identity to
another is the address table's matter, with an epoch of its own.) Raise the epochs *after* the last step;
the datapath must read the epoch before it looks up policy, so that a decision made from a half
written table is taken again.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from axoneme.policy.ports import Prefix, wider
from axoneme.policy.rulenumbers import NO_POLICY, Refs

#: The peer of entries that hold for every peer.
EVERY_PEER = 0


class Verdict(enum.IntEnum):
    """The values of ``enum verdict`` of the datapath. ``NONE``: as if there were no entry; it is written
    where a wider entry would say something else."""

    NONE = 0
    ALLOW = 1
    DENY = 2


class PolicyFlag(enum.IntFlag):
    """The values of ``enum policy_flag`` of the datapath."""

    COMPLETE = 1
    AUTHENTICATE = 2
    AUDIT = 4
    ALWAYS_FAIL = 8


class Key(NamedTuple):
    """One policy entry's key; the port in host byte order, ``prefix_length`` in bits."""

    subject: int
    peer: int
    direction: int
    protocol: int
    port: int
    prefix_length: int


class Value(NamedTuple):
    """``listener``: the number of the rule set to which a proxy holds what is allowed; 0: none."""

    verdict: int
    rule: int
    flags: int = 0
    listener: int = 0

    @property
    def complete(self) -> bool:
        return bool(self.flags & PolicyFlag.COMPLETE)


#: The entries under one (subject, direction, peer), and all cells of a side by peer.
Cell = Mapping[Prefix, Value]
Cells = Mapping[int, Cell]
Entry = tuple[Key, Value]

_NO_CELL: Cell = {}


@dataclass(slots=True)
class TableDiff:
    """What to write, step by step and in order; what to register before it, and which subjects' epochs to
    raise after.

    ``rules`` says what rule numbers mean that the entries carry from now on; ``released`` are
    numbers in no entry any more (flows that they decided may still be shown). ``moves`` has the listeners
    that no entry names any more, with those to which their packets go instead, 0 for none.
    """

    put_first: list[Entry] = field(default_factory=list)
    put: list[Entry] = field(default_factory=list)
    delete: list[Key] = field(default_factory=list)
    put_last: list[Entry] = field(default_factory=list)
    delete_last: list[Key] = field(default_factory=list)
    changed: set[int] = field(default_factory=set)
    rules: dict[int, Refs] = field(default_factory=dict)
    released: frozenset[int] = frozenset()
    moves: dict[int, set[int]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(len(self) or self.rules)

    def __len__(self) -> int:
        """How many writes to the kernel."""
        puts = len(self.put_first) + len(self.put) + len(self.put_last)
        return puts + len(self.delete) + len(self.delete_last)

    def writes(self) -> Iterator[tuple[Key, Value | None]]:
        """Every write in order; None deletes."""
        yield from self.put_first
        yield from self.put
        for key in self.delete:
            yield key, None
        yield from self.put_last
        for key in self.delete_last:
            yield key, None

    def add(self, subject: int, direction: int, peer: int, change: CellChange) -> None:
        """Adds what one cell's change writes."""
        cell = (subject, peer, direction)
        make = Key._make
        self.put_first += [(make(cell + prefix), value) for prefix, value in change.put_first]
        self.put += [(make(cell + prefix), value) for prefix, value in change.put]
        self.delete += [make(cell + prefix) for prefix in change.delete]
        self.put_last += [(make(cell + prefix), value) for prefix, value in change.put_last]
        self.delete_last += [make(cell + prefix) for prefix in change.delete_last]


_Puts = tuple[tuple[Prefix, Value], ...]


@dataclass(frozen=True, slots=True)
class CellChange:
    """The part of a difference that concerns one cell, by step; the same for all cells that change alike."""

    put_first: _Puts = ()
    put: _Puts = ()
    delete: tuple[Prefix, ...] = ()
    put_last: _Puts = ()
    delete_last: tuple[Prefix, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.put_first or self.put or self.delete or self.put_last or self.delete_last)


def cell_change(before: Cell, after: Cell) -> CellChange:
    """What turns one cell into another, on a side where a deny wins before and after."""
    denies: list[tuple[Prefix, Value]] = []
    allows: list[tuple[Prefix, Value]] = []
    delete_allows: list[Prefix] = []
    delete_denies: list[Prefix] = []
    for prefix, value in after.items():
        if before.get(prefix) != value:
            (denies if value.verdict == Verdict.DENY else allows).append((prefix, value))
    for prefix, value in before.items():
        if prefix in after:
            continue
        if value.verdict == Verdict.DENY:
            delete_denies.append(prefix)
        elif hidden := _denied_by(prefix, after):
            denies.append((prefix, hidden))
            delete_denies.append(prefix)
        else:
            delete_allows.append(prefix)
    return CellChange(
        put_first=tuple(denies),
        put=tuple(allows),
        delete=tuple(delete_allows),
        delete_last=tuple(delete_denies),
    )


def every_cell_change(before: Cell, after: Cell) -> CellChange:
    """What turns the cell of every peer into another, on a side that is complete before or after."""
    return CellChange(put=_new_entries(before, after), delete=_gone(before, after))


def own_cell_change(before: Cell, after: Cell, every: Cell, complete: bool) -> CellChange:
    """What turns a peer's own cell into another, on a side that is complete before or after.

    ``every`` is the new cell of every peer; ``complete``: the side is so afterwards.
    """
    settled = complete and (bool(after) or all(value.complete for value in before.values()))
    meanwhile = dict(after) if settled else combined(after, every)
    first = dict(meanwhile)
    for prefix, value in before.items():
        if prefix not in first and not value.complete:
            first[prefix] = longest(prefix, meanwhile) or _NOTHING
    puts = _new_entries(before, first)
    now = {**before, **first}
    return CellChange(put_first=puts, put_last=_new_entries(now, after), delete_last=_gone(now, after))


def combined(own: Cell, every: Cell) -> dict[Prefix, Value]:
    """The complete cell that decides as the lookup in two cells does."""
    found: dict[Prefix, Value] = {}
    for prefix in {*own, *every}:
        values = [value for cell in (own, every) if (value := longest(prefix, cell))]
        complete = [value for value in values[:1] if value.complete]
        wins = max(complete or values, key=lambda value: value.verdict)
        found[prefix] = wins._replace(flags=wins.flags | PolicyFlag.COMPLETE)
    return found


_NOTHING = Value(Verdict.NONE, NO_POLICY, PolicyFlag.COMPLETE)


def longest(prefix: Prefix, cell: Cell) -> Value | None:
    """What a cell says of the packets of a prefix, entries within it apart."""
    if (value := cell.get(prefix)) is not None:
        return value
    return next((cell[around] for around in wider(prefix) if around in cell), None)


def _new_entries(before: Cell, after: Cell) -> _Puts:
    """Narrowest first."""
    new = [entry for entry in after.items() if before.get(entry[0]) != entry[1]]
    return tuple(sorted(new, key=lambda entry: entry[0].length, reverse=True))


def _gone(before: Cell, after: Cell) -> tuple[Prefix, ...]:
    """Widest first."""
    return tuple(sorted((p for p in before if p not in after), key=lambda prefix: prefix.length))


def side_changes(before: Cells, after: Cells, peers: Iterable[int]) -> Iterator[tuple[int, CellChange]]:
    """The changes of the cells of ``peers``, the only ones that differ, on a complete side."""
    every = after.get(EVERY_PEER, _NO_CELL)
    complete = _complete(after)
    for peer in peers:
        old, new = before.get(peer, _NO_CELL), after.get(peer, _NO_CELL)
        if peer == EVERY_PEER:
            yield peer, every_cell_change(old, new)
        else:
            yield peer, own_cell_change(old, new, every, complete)


def difference(before: Mapping[Key, Value], after: Iterable[Entry]) -> TableDiff:
    """What turns one whole table into another: for an agent that finds its predecessor's table.

    Every peer counts as known before. ``rules`` stays empty.
    """
    sides: dict[tuple[int, int], tuple[dict[int, dict[Prefix, Value]], dict[int, dict[Prefix, Value]]]] = {}
    for index, entries in ((0, before.items()), (1, after)):
        for key, value in entries:
            side = sides.setdefault((key.subject, key.direction), ({}, {}))
            side[index].setdefault(key.peer, {})[Prefix(*key[3:])] = value
    diff = TableDiff()
    for (subject, direction), (old, new) in sides.items():
        for peer, change in _changes(old, new):
            if change:
                diff.add(subject, direction, peer, change)
                diff.changed.add(subject)
    return diff


def _changes(before: Cells, after: Cells) -> Iterable[tuple[int, CellChange]]:
    peers = [p for p in before.keys() | after.keys() if before.get(p, _NO_CELL) != after.get(p, _NO_CELL)]
    if _complete(before) or _complete(after):
        return side_changes(before, after, peers)
    return ((peer, cell_change(before.get(peer, _NO_CELL), after.get(peer, _NO_CELL))) for peer in peers)


def _complete(cells: Cells) -> bool:
    return any(value.complete for cell in cells.values() for value in cell.values())


def _denied_by(prefix: Prefix, cell: Cell) -> Value | None:
    """The entry of ``cell`` that rules ``prefix``, if it is a deny."""
    value = longest(prefix, cell)
    return value if value and value.verdict == Verdict.DENY else None
