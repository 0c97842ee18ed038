"""What stands between policies and cells: grants, and the sides on which they act.

A *grant* is one rule's L4 part with its verdict and its ref. A *peer set* is a distinct peer that some
rule names, with the identities that it means at present. A *side* is one direction of one local
subject; it holds grants per peer set, and so what applies to a peer is the grants of the peer sets
that the peer is in. Nothing is stored per cell but the outcome, and a cell is worked out anew only
when it is dirty.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field

from axoneme.model.policy import Direction, NamedPort, PolicyRef, PortRange
from axoneme.policy.cells import Compiled
from axoneme.policy.identities import Identity
from axoneme.policy.peers import AnyKindOfPeer, Match
from axoneme.policy.ports import EVERYTHING, Prefix, prefixes
from axoneme.policy.table import Key, Value


@dataclass(frozen=True, slots=True, eq=False)
class Grant:
    """One rule's ports; ``names`` mean something only together with the endpoint that owns them."""

    prefixes: frozenset[Prefix]
    names: frozenset[NamedPort]
    deny: bool
    ref: PolicyRef | None

    def named(self, owner: Identity | None) -> frozenset[Prefix]:
        """What the names mean on endpoints of ``owner``."""
        if owner is None or not self.names:
            return frozenset()
        ports = (port for name in self.names for port in owner.ports(name))
        return prefixes(PortRange(protocol, port, port) for protocol, port in ports)


#: Nobody's rule: everything passes.
OPEN = Grant(frozenset({EVERYTHING}), frozenset(), deny=False, ref=None)


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
    by now, ``demands`` the number of policies which make it default-deny.
    """

    subject: int
    direction: Direction
    grants: dict[PeerSet, tuple[Grant, ...]] = field(default_factory=dict)
    cells: dict[int, Compiled] = field(default_factory=dict)
    dirty: set[int] = field(default_factory=set)
    demands: int = 0
    base: PeerSet | None = None

    def attach(self, bond: Bond) -> None:
        peers, grant = bond
        self.grants[peers] = (*self.grants.get(peers, ()), grant)
        peers.users.add(self)
        self.dirty |= peers.members

    def detach(self, bond: Bond) -> None:
        peers, grant = bond
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

    def touch_named_ports(self) -> None:
        for peers, grants in self.grants.items():
            if any(grant.names for grant in grants):
                self.dirty |= peers.members

    def applying(self, memberships: Set[PeerSet]) -> frozenset[Grant]:
        """The grants that apply to a peer who is in ``memberships``."""
        grants = self.grants
        if not grants:
            return frozenset()
        return frozenset([grant for peers in grants.keys() & memberships for grant in grants[peers]])


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
