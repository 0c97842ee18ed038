"""What needs identities so that peers can be told in them: ranges, DNS names, other nodes' labels.

Every range and except that a loaded policy names needs one, also those that it names through a CIDR group
or a service. A whole address space needs none: it has the world's identity.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import Generic, TypeVar

from axoneme.model.l7 import NameMatch
from axoneme.model.policy import (
    CIDRGroup,
    CIDRGroupPeer,
    CIDRPeer,
    NamePeer,
    Network,
    NodePeer,
    Peer,
    Policy,
    ServicePeer,
)
from axoneme.policy.peers import Catalog, Service, refers

_NAMING = CIDRPeer | CIDRGroupPeer | ServicePeer
_T = TypeVar("_T")


class PrefixNeeds:
    def __init__(self, catalog: Catalog, versions: frozenset[int]) -> None:
        self._catalog = catalog
        self._versions = versions
        self._peers: Counter[Peer] = Counter()
        self._prefixes: Counter[Network] = Counter()
        #: What each peer was counted with.
        self._counted: dict[Peer, tuple[Network, ...]] = {}
        self._answer: frozenset[Network] | None = None
        self._touched: set[Network] = set()

    def __call__(self) -> frozenset[Network]:
        """The same object until the answer changes."""
        if self._answer is None:
            self._answer = frozenset(self._prefixes)
        return self._answer

    def __contains__(self, prefix: Network) -> bool:
        return prefix in self._prefixes

    def touched(self) -> set[Network]:
        """The prefixes of which the answer may be another than at the last call."""
        touched, self._touched = self._touched, set()
        return touched

    def add(self, policy: Policy) -> None:
        for peer in _naming(policy):
            self._peers[peer] += 1
            if self._peers[peer] == 1:
                self._count(peer)

    def remove(self, policy: Policy) -> None:
        for peer in _naming(policy):
            self._peers[peer] -= 1
            if not self._peers[peer]:
                del self._peers[peer]
                self._discount(peer)

    def catalog_changed(self, things: Collection[Service | CIDRGroup]) -> None:
        for peer in self._peers:
            if refers(peer, things) and self._networks(peer) != self._counted[peer]:
                self._discount(peer)
                self._count(peer)

    def _networks(self, peer: Peer) -> tuple[Network, ...]:
        named = self._catalog.resolve(peer).networks()
        return tuple(n for n in named if n.prefixlen and n.version in self._versions)

    def _count(self, peer: Peer) -> None:
        networks = self._counted[peer] = self._networks(peer)
        for network in networks:
            self._prefixes[network] += 1
            if self._prefixes[network] == 1:
                self._changed(network)

    def _discount(self, peer: Peer) -> None:
        for network in self._counted.pop(peer):
            self._prefixes[network] -= 1
            if not self._prefixes[network]:
                del self._prefixes[network]
                self._changed(network)

    def _changed(self, network: Network) -> None:
        self._answer = None
        self._touched.add(network)


class LabelNeeds:
    """Which labels identities need beside those that they have anyhow."""

    def __init__(self) -> None:
        self._names: _Needed[NameMatch] = _Needed()
        self._node_keys: _Needed[str] = _Needed()

    @property
    def names(self) -> frozenset[NameMatch]:
        """The DNS names that policies select by: the same object until they change."""
        return self._names()

    @property
    def node_keys(self) -> frozenset[str]:
        """The same of the keys of nodes' labels."""
        return self._node_keys()

    def exchange(self, former: Iterable[Policy], policies: Iterable[Policy]) -> None:
        for many, change in ((policies, 1), (former, -1)):
            for policy in many:
                self._names.count(_names(policy), change)
                self._node_keys.count(_node_keys(policy), change)


class _Needed(Generic[_T]):
    """What is needed as often as it is counted."""

    def __init__(self) -> None:
        self._uses: Counter[_T] = Counter()
        self._answer: frozenset[_T] | None = frozenset()

    def __call__(self) -> frozenset[_T]:
        if self._answer is None:
            self._answer = frozenset(self._uses)
        return self._answer

    def count(self, things: Iterable[_T], change: int) -> None:
        for thing in things:
            before = self._uses[thing]
            self._uses[thing] += change
            if not self._uses[thing]:
                del self._uses[thing]
            if not before or thing not in self._uses:
                self._answer = None


def _names(policy: Policy) -> list[NameMatch]:
    return [peer.match for rule in policy.rules for peer in rule.peers if isinstance(peer, NamePeer)]


def _node_keys(policy: Policy) -> list[str]:
    peers = (peer for rule in policy.rules for peer in rule.peers if isinstance(peer, NodePeer))
    return [requirement.key for peer in peers for requirement in peer.selector.requirements]


def _naming(policy: Policy) -> Iterable[Peer]:
    return (peer for rule in policy.rules for peer in rule.peers if isinstance(peer, _NAMING))
