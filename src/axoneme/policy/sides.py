"""What stands between policies and cells: grants, and the sides on which they act.

A *grant* (`grants`) is one rule's L4 part with what it says. A *peer set* is a distinct peer that some
rule names, with the identities that it means at present. A *side* is one direction of one local
subject; it holds grants per peer set, and so what applies to a peer is the grants of the peer sets
that the peer is in. Nothing is stored per cell but the outcome, and a cell is worked out anew only
when it is dirty.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field

from axoneme.model.policy import Direction, Tier
from axoneme.policy.cells import Compiled
from axoneme.policy.grants import OPEN, Grant
from axoneme.policy.peers import AnyKindOfPeer, Match
from axoneme.policy.ports import Prefix
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
    by now, ``demands`` the number of policies which make it default-deny, ``layers`` that of the bonds with a
    layered grant. ``was_complete`` is `complete` as of the cells.
    """

    subject: int
    direction: Direction
    grants: dict[PeerSet, tuple[Grant, ...]] = field(default_factory=dict)
    cells: dict[int, Compiled] = field(default_factory=dict)
    dirty: set[int] = field(default_factory=set)
    demands: int = 0
    layers: int = 0
    was_complete: bool = False
    base: PeerSet | None = None

    @property
    def complete(self) -> bool:
        """Whether each peer's cell holds what is for every peer too: see `table`."""
        return self.layers > 0

    def attach(self, bond: Bond) -> None:
        peers, grant = bond
        self.layers += grant.layered
        self.grants[peers] = (*self.grants.get(peers, ()), grant)
        peers.users.add(self)
        self.dirty |= peers.members

    def detach(self, bond: Bond) -> None:
        peers, grant = bond
        self.layers -= grant.layered
        left = tuple(g for g in self.grants[peers] if g is not grant)
        if left:
            self.grants[peers] = left
        else:
            del self.grants[peers]
            peers.users.discard(self)
        self.dirty |= peers.members

    def open_towards(self, peers: PeerSet | None) -> None:
        """Lets everything pass to and from ``peers``, whatever policies say, unless they deny it."""
        if peers is self.base:
            return
        if self.base is not None:
            self.detach((self.base, OPEN))
        if peers is not None:
            self.attach((peers, OPEN))
        self.base = peers

    def demand(self, change: int) -> None:
        """So many policies more make it default-deny: the first silences those of the baseline."""
        before, self.demands = self.demands > 0, self.demands + change
        if before != (self.demands > 0):
            for peers, grants in self.grants.items():
                if any(grant.tier is Tier.BASELINE for grant in grants):
                    self.dirty |= peers.members

    @property
    def stale(self) -> bool:
        """Whether there are cells to be made anew."""
        return bool(self.dirty) or self.complete != self.was_complete

    def touched(self) -> set[int]:
        """The peers whose cells have to be made anew; from now on none."""
        dirty, self.dirty = self.dirty, set()
        toggled = self.complete != self.was_complete
        if toggled or (self.complete and EVERY_PEER in dirty):
            dirty.update(*(peers.members for peers in self.grants), self.cells)
        self.was_complete = self.complete
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
        if self.layers and self.demands > 0:
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
