"""The selector cache: every distinct peer that a rule in use names, with the identities that it means.

Kept current as identities, services and CIDR groups come and go; each change marks the cells that it
touches as dirty, and no others.
"""

from __future__ import annotations

from collections.abc import Collection, Set

from axoneme.model.policy import CIDRGroup, CIDRGroupPeer, ServicePeer
from axoneme.policy.identities import Identity, IdentityIndex
from axoneme.policy.peers import AnyKindOfPeer, Catalog, Match, Service, refers
from axoneme.policy.reach import ReachIndex
from axoneme.policy.sides import PeerSet
from axoneme.policy.table import EVERY_PEER

_NONE: Set[PeerSet] = frozenset()


class PeerSets:
    def __init__(self, catalog: Catalog) -> None:
        self.identities = IdentityIndex()
        self._catalog = catalog
        self._sets: dict[AnyKindOfPeer, PeerSet] = {}
        self._memberships: dict[int, set[PeerSet]] = {}
        self._reach: ReachIndex[PeerSet] = ReachIndex()
        #: Those whose meaning stands in the catalog, and may change there.
        self._referring: dict[PeerSet, None] = {}

    def __len__(self) -> int:
        return len(self._sets)

    def hold(self, peer: AnyKindOfPeer) -> PeerSet:
        """The set of ``peer``, kept until it has been dropped as often as held."""
        found = self._sets.get(peer)
        if found is None:
            found = self._sets[peer] = PeerSet(peer, Match(), set())
            self._aim(found, self._catalog.resolve(peer))
            if isinstance(peer, CIDRGroupPeer | ServicePeer):
                self._referring[found] = None
        found.holds += 1
        return found

    def drop(self, peers: PeerSet) -> None:
        peers.holds -= 1
        if not peers.holds:
            self._aim(peers, Match())
            self._referring.pop(peers, None)
            del self._sets[peers.peer]

    def containing(self, peer: int) -> Set[PeerSet]:
        """The sets that ``peer`` is in."""
        return self._memberships.get(peer, _NONE)

    def put_identity(self, identity: Identity) -> None:
        number = identity.number
        self.identities.put(identity)
        before = self._memberships.get(number, _NONE)
        after = {
            peers
            for peers in self._reach.candidates(identity)
            if any(identity.fulfils(term) for term in peers.match.terms)
        }
        for peers in after - before:
            self._join(peers, number)
        for peers in before - after:
            self._leave(peers, number)

    def remove_identity(self, number: int) -> None:
        self.identities.remove(number)
        for peers in tuple(self.containing(number)):
            self._leave(peers, number)

    def catalog_changed(self, things: Collection[Service | CIDRGroup]) -> None:
        """Looks again at the peers that mean one of these, as they were or as they are."""
        for peers in self._referring:
            if refers(peers.peer, things):
                self._aim(peers, self._catalog.resolve(peers.peer))

    def _aim(self, peers: PeerSet, match: Match) -> None:
        """Lets ``peers`` mean ``match`` from now on."""
        if match == peers.match:
            return
        for term in peers.match.terms:
            self._reach.remove(term, peers)
        for term in match.terms:
            self._reach.add(term, peers)
        peers.match = match
        members = {EVERY_PEER} if match.everyone else self.identities.select(match)
        for number in members - peers.members:
            self._join(peers, number)
        for number in peers.members - members:
            self._leave(peers, number)

    def _join(self, peers: PeerSet, number: int) -> None:
        peers.members.add(number)
        self._memberships.setdefault(number, set()).add(peers)
        peers.touch(number)

    def _leave(self, peers: PeerSet, number: int) -> None:
        peers.members.discard(number)
        memberships = self._memberships[number]
        memberships.discard(peers)
        if not memberships:
            del self._memberships[number]
        peers.touch(number)
