"""What stands between policies and cells: grants, and the sides on which they act.

A *grant* (`grants`) is one rule's L4 part with what it says. A *peer set* is a distinct peer that some
rule names, with the identities that it means at present. A *side* is one direction of one local
subject; it holds grants per peer set, and so what applies to a peer is the grants of the peer sets
that the peer is in. Nothing is stored per cell but the outcome, and a cell is worked out anew only
when it is dirty.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field

from axoneme.model.policy import Direction, PolicyRef, Tier
from axoneme.policy.cells import Compiled
from axoneme.policy.grants import Grant
from axoneme.policy.peers import AnyKindOfPeer, Match
from axoneme.policy.ports import Prefix
from axoneme.policy.rulenumbers import Refs
from axoneme.policy.table import EVERY_PEER, Key, Value


@dataclass(slots=True, eq=False)
class PeerSet:
    """The identities that a peer means (or, alone, "every peer"), and the sides that ask for it."""

    peer: AnyKindOfPeer
    match: Match
    members: set[int]
    users: set[Side] = field(default_factory=set)
    holds: int = 0

    def touch(self, peer: int) -> None:
        for side in self.users:
            side.dirty.add(peer)


Bond = tuple[PeerSet, Grant]


@dataclass(slots=True, eq=False)
class Side:
    """One direction of one subject.

    ``cells`` is what `PolicyEngine.changes` last gave out, ``dirty`` the peers whose cell may differ
    by now. ``closers`` are the policies that make it default-deny, ``triers`` those that would, were they not
    only tried; ``audited``: all are. ``layers`` counts the bonds with a layered grant, ``above`` those with
    rules above L4, or that ask for authentication. ``was`` is what `nature` was of the cells.
    """

    subject: int
    direction: Direction
    grants: dict[PeerSet, tuple[Grant, ...]] = field(default_factory=dict)
    cells: dict[int, Compiled] = field(default_factory=dict)
    dirty: set[int] = field(default_factory=set)
    closers: Counter[PolicyRef] = field(default_factory=Counter)
    triers: Counter[PolicyRef] = field(default_factory=Counter)
    audited: bool = False
    layers: int = 0
    above: int = 0
    was: tuple[bool, bool, bool] = (False, False, False)
    bases: frozenset[Bond] = frozenset()

    @property
    def complete(self) -> bool:
        """Whether each peer's cell holds what is for every peer too: see `table`."""
        return self.layers > 0 or self.audited

    @property
    def demanded(self) -> bool:
        """Whether some policy makes it default-deny."""
        return bool(self.closers) and not self.audited

    @property
    def tried(self) -> Refs:
        """The policies that would make it default-deny, were they not only tried."""
        return tuple(sorted({*self.triers, *self.closers} if self.audited else self.triers))

    @property
    def nature(self) -> tuple[bool, bool, bool]:
        """What all cells depend on."""
        return self.complete, self.demanded, self.audited

    def attach(self, bond: Bond) -> None:
        peers, grant = bond
        self._count(grant, 1)
        self.grants[peers] = (*self.grants.get(peers, ()), grant)
        peers.users.add(self)
        self.dirty |= peers.members

    def detach(self, bond: Bond) -> None:
        peers, grant = bond
        self._count(grant, -1)
        left = tuple(g for g in self.grants[peers] if g is not grant)
        if left:
            self.grants[peers] = left
        else:
            del self.grants[peers]
            peers.users.discard(self)
        self.dirty |= peers.members

    def _count(self, grant: Grant, change: int) -> None:
        before = self.nature
        self.layers += change * grant.layered
        self.above += change * grant.conditional
        self._look(before)

    def open_by(self, bases: frozenset[Bond]) -> None:
        """Lets pass what these say, which are nobody's rules, unless policies deny it."""
        for bond in bases - self.bases:
            self.attach(bond)
        for bond in self.bases - bases:
            self.detach(bond)
        self.bases = bases

    def demand(self, ref: PolicyRef, change: int, audit: bool) -> None:
        """A policy that closes this direction comes (1) or goes (-1)."""
        before = self.nature
        policies = self.triers if audit else self.closers
        policies[ref] += change
        if not policies[ref]:
            del policies[ref]
        self._look(before)

    def audit(self, audited: bool) -> None:
        """From now on all policies are only tried here, or not."""
        before, self.audited = self.nature, audited
        self._look(before)

    def _look(self, before: tuple[bool, bool, bool]) -> None:
        """Where all cells may be other ones now, `touched` has to see to it."""
        if self.nature != before:
            self.dirty.add(EVERY_PEER)

    def touched(self) -> set[int]:
        """The peers whose cells have to be made anew; from now on none."""
        dirty, self.dirty = self.dirty, set()
        toggled = self.nature != self.was and (self.complete or self.was[0])
        if toggled or (self.complete and EVERY_PEER in dirty):
            dirty.update(*(peers.members for peers in self.grants), self.cells)
        self.was = self.nature
        return dirty

    def touch_named_ports(self) -> None:
        for peers, grants in self.grants.items():
            if any(grant.names for grant in grants):
                self.dirty |= peers.members

    def applying(self, memberships: Set[PeerSet]) -> frozenset[Grant]:
        """The grants that apply to a peer who is in ``memberships``."""
        grants = self.grants
        if not grants:
            return frozenset()
        found = [grant for peers in grants.keys() & memberships for grant in grants[peers]]
        if self.layers and self.demanded:
            return frozenset([grant for grant in found if grant.tier is not Tier.BASELINE])
        return frozenset(found)


class CompiledTable(Mapping[Key, Value]):
    """All cells as one table. Keys are made while one iterates: what is stored is shared."""

    def __init__(self, sides: Mapping[int, tuple[Side, Side]]) -> None:
        self._sides = sides

    def __getitem__(self, key: Key) -> Value:
        sides = self._sides[key.subject]
        return sides[key.direction].cells[key.peer].entries[Prefix(*key[3:])]

    def __iter__(self) -> Iterator[Key]:
        for sides in self._sides.values():
            for side in sides:
                for peer, cell in side.cells.items():
                    for prefix in cell.entries:
                        yield Key(side.subject, peer, side.direction, *prefix)

    def __len__(self) -> int:
        return sum(
            len(cell.entries)
            for sides in self._sides.values()
            for side in sides
            for cell in side.cells.values()
        )
