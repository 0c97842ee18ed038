"""The local subjects: which policies act on each, and so what its two sides hold.

A side starts open, with nobody's rule that lets everything pass. The first policy which selects the
subject and asks for default-deny closes it; what the policies allow and deny lies beside that. Nobody's
rule comes last of all tiers: what an admin's or the baseline policy says of a packet, it cannot change.
"""

from __future__ import annotations

from collections.abc import Iterator

from axoneme.model.labels import RESERVED
from axoneme.model.policy import Direction, Enforcement, Policy
from axoneme.policy.identities import Identity
from axoneme.policy.loaded import LoadedPolicy
from axoneme.policy.peers import EVERYONE_PEER, HOST_PEER, Catalog
from axoneme.policy.peersets import PeerSets
from axoneme.policy.reach import ReachIndex
from axoneme.policy.sides import Side


class Subjects:
    def __init__(
        self, peer_sets: PeerSets, catalog: Catalog, enforcement: Enforcement, host_reaches_pods: bool
    ) -> None:
        self._peer_sets = peer_sets
        self._catalog = catalog
        self._enforcement = enforcement
        self._host_reaches_pods = host_reaches_pods
        self._policies: ReachIndex[LoadedPolicy] = ReachIndex()
        self._acting: dict[int, set[LoadedPolicy]] = {}
        self._everyone = peer_sets.hold(EVERYONE_PEER)
        self._host = peer_sets.hold(HOST_PEER)
        #: Both directions of each subject, until the last cell of one that left is gone.
        self.sides: dict[int, tuple[Side, Side]] = {}

    def __contains__(self, number: int) -> bool:
        return number in self._acting

    def acting(self, number: int) -> Iterator[Policy]:
        """The policies that select a subject."""
        return (loaded.policy for loaded in self._acting.get(number, ()))

    def enforced(self, number: int, direction: Direction) -> bool:
        """Whether what no rule allows is dropped."""
        identity = self._peer_sets.identities.get(number)
        return number not in self or identity is None or self._closed(self.sides[number][direction], identity)

    # ---- subjects come and go ------------------------------------------------------------------

    def add(self, number: int) -> bool:
        """Whether the subject had not even left-over cells here."""
        new = number not in self.sides
        if new:
            self.sides[number] = (Side(number, Direction.INGRESS), Side(number, Direction.EGRESS))
        self._acting[number] = set()
        self.refresh(number)
        return new

    def remove(self, number: int) -> None:
        self._let_act(number, set())
        for side in self.sides[number]:
            side.open_towards(None)
        del self._acting[number]

    def refresh(self, number: int) -> None:
        """Lets exactly those policies act on a subject that select what it is now."""
        identity = self._peer_sets.identities.get(number)
        selecting: set[LoadedPolicy] = set()
        if identity and self._enforcement is not Enforcement.NEVER:
            candidates = self._policies.candidates(identity)
            selecting = {loaded for loaded in candidates if identity.fulfils(loaded.policy.subject)}
        self._let_act(number, selecting)

    def set_enforcement(self, enforcement: Enforcement) -> None:
        self._enforcement = enforcement
        for number in self._acting:
            self.refresh(number)

    def _let_act(self, number: int, after: set[LoadedPolicy]) -> None:
        before = self._acting[number].copy()
        for loaded in after - before:
            self._relay(number, None, loaded)
        for loaded in before - after:
            self._relay(number, loaded, None)
        self._settle(number)

    # ---- policies come and go ------------------------------------------------------------------

    def exchange(self, former: LoadedPolicy | None, latter: LoadedPolicy | None) -> None:
        """Puts ``latter`` in place of ``former``, on the subjects of either."""
        had = former.subjects.copy() if former else set()
        selected: set[int] = set()
        if latter:
            self._policies.add(latter.policy.subject, latter)
            if self._enforcement is not Enforcement.NEVER:
                selected = self._peer_sets.identities.fulfilling(latter.policy.subject, self._acting.keys())
            if selected:
                latter.activate(self._peer_sets, self._catalog, former)
        for number in had | selected:
            self._relay(number, former if number in had else None, latter if number in selected else None)
            self._settle(number)
        if former:
            self._policies.remove(former.policy.subject, former)

    def _relay(self, number: int, old: LoadedPolicy | None, new: LoadedPolicy | None) -> None:
        """On one subject's sides, replaces what one policy lays on them by what another does."""
        if new is not None:
            if not new.bonds:
                new.activate(self._peer_sets, self._catalog, None)
            new.subjects.add(number)
            self._acting[number].add(new)
        for side in self.sides[number]:
            before = old.bonds[side.direction] if old else set()
            after = new.bonds[side.direction] if new else set()
            for bond in after - before:
                side.attach(bond)
            for bond in before - after:
                side.detach(bond)
            side.demand(_demands(new, side) - _demands(old, side))
        if old is not None:
            old.subjects.discard(number)
            self._acting[number].discard(old)
            if not old.subjects:
                old.deactivate(self._peer_sets)

    # ---- open or closed ------------------------------------------------------------------------

    def _settle(self, number: int) -> None:
        """Opens the sides that nothing closes; into a closed one lets the host."""
        identity = self._peer_sets.identities.get(number)
        for side in self.sides[number]:
            if identity is None:
                side.open_towards(None)
            elif not self._closed(side, identity):
                side.open_towards(self._everyone)
            elif side.direction is Direction.INGRESS and self._host_reaches_pods:
                side.open_towards(self._host)
            else:
                side.open_towards(None)

    def _closed(self, side: Side, identity: Identity) -> bool:
        if self._enforcement is not Enforcement.DEFAULT:
            return self._enforcement is Enforcement.ALWAYS
        # An endpoint whose labels are not known yet must not be open meanwhile.
        return side.demands > 0 or bool(identity.labels.values(RESERVED, "init"))


def _demands(loaded: LoadedPolicy | None, side: Side) -> int:
    return int(loaded is not None and side.direction in loaded.policy.default_deny)
