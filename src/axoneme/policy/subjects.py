"""The local subjects: which policies act on each, and so what its two sides hold.

A side starts open, with nobody's rule that lets everything pass. The first policy which selects the
subject and asks for default-deny closes it; what the policies allow and deny lies beside that. Nobody's
rule comes last of all tiers: what an admin's or the baseline policy says of a packet, it cannot change.
"""

from __future__ import annotations

from collections.abc import Iterator

from axoneme.model.labels import RESERVED
from axoneme.model.policy import Direction, Enforcement, Policy
from axoneme.policy.grants import HOST, OPEN, open_but_for
from axoneme.policy.identities import Identity
from axoneme.policy.loaded import LoadedPolicy
from axoneme.policy.peers import EVERYONE_PEER, HOST_PEER, Catalog
from axoneme.policy.peersets import PeerSets
from axoneme.policy.reach import ReachIndex
from axoneme.policy.sides import Bond, Side


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
        self._audited: set[int] = set()
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
        for side in self.sides[number]:
            side.audit(number in self._audited)
        self._acting[number] = set()
        self.refresh(number)
        return new

    def remove(self, number: int) -> None:
        self._let_act(number, set())
        for side in self.sides[number]:
            side.open_by(frozenset())
        del self._acting[number]

    def refresh(self, number: int) -> None:
        """Lets exactly those policies act on a subject that select what it is now."""
        identity = self._peer_sets.identities.get(number)
        selecting: set[LoadedPolicy] = set()
        if identity and self._enforcement is not Enforcement.NEVER:
            candidates = self._policies.candidates(identity)
            selecting = {loaded for loaded in candidates if identity.fulfils(loaded.policy.subject)}
        self._let_act(number, selecting)

    def audited(self, number: int) -> bool:
        return number in self._audited

    def set_audited(self, number: int, audited: bool) -> None:
        """Whether policies are only tried on a subject, now or when it comes."""
        (self._audited.add if audited else self._audited.discard)(number)
        if number in self:
            for side in self.sides[number]:
                side.audit(audited)
            self._settle(number)

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
            for loaded, change in ((new, 1), (old, -1)):
                if loaded is not None and side.direction in loaded.policy.default_deny:
                    side.demand(loaded.policy.ref, change, loaded.policy.audit)
        if old is not None:
            old.subjects.discard(number)
            self._acting[number].discard(old)
            if not old.subjects:
                old.deactivate(self._peer_sets)

    # ---- open or closed ------------------------------------------------------------------------

    def _settle(self, number: int) -> None:
        """Opens the sides that nothing closes, and lets the host into those where not everything may pass."""
        identity = self._peer_sets.identities.get(number)
        for side in self.sides[number]:
            bases: set[Bond] = set()
            if identity is not None:
                closed, would = self._closed(side, identity), self._would_be_closed(side, identity)
                if not closed:
                    bases.add((self._everyone, open_but_for(side.tried) if would else OPEN))
                inward = side.direction is Direction.INGRESS
                if inward and self._host_reaches_pods and (would or side.above):
                    bases.add((self._host, HOST))
            side.open_by(frozenset(bases))

    def _closed(self, side: Side, identity: Identity) -> bool:
        return not side.audited and (bool(side.closers) or self._closed_by_itself(identity))

    def _would_be_closed(self, side: Side, identity: Identity) -> bool:
        """Whether it would, were all policies in force that are only tried."""
        return bool(side.closers or side.triers) or self._closed_by_itself(identity)

    def _closed_by_itself(self, identity: Identity) -> bool:
        if self._enforcement is not Enforcement.DEFAULT:
            return self._enforcement is Enforcement.ALWAYS
        # An endpoint whose labels are not known yet must not be open meanwhile.
        return bool(identity.labels.values(RESERVED, "init"))
