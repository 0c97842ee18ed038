"""Which prefixes need an identity: every range and except that a loaded policy names.

Also those that it names through a CIDR group or a service. A whole address space needs none: it has
the world's identity.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

from axoneme.model.policy import CIDRGroup, CIDRGroupPeer, CIDRPeer, Network, Peer, Policy, ServicePeer
from axoneme.policy.peers import Catalog, Service, refers

_NAMING = CIDRPeer | CIDRGroupPeer | ServicePeer


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


def _naming(policy: Policy) -> Iterable[Peer]:
    return (peer for rule in policy.rules for peer in rule.peers if isinstance(peer, _NAMING))
