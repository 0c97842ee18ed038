"""A policy in the engine: which local subjects it selects, and what it lays on their sides."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from axoneme.model.policy import Direction, NamedPort, Policy, PortRange, Rule
from axoneme.policy.grants import Grant
from axoneme.policy.peers import EVERYONE, Catalog, PortOwner
from axoneme.policy.peersets import PeerSets
from axoneme.policy.ports import prefixes
from axoneme.policy.sides import Bond, PeerSet


@dataclass(slots=True, eq=False)
class LoadedPolicy:
    """``bonds`` are there only while it selects some subject: other policies cost next to nothing."""

    policy: Policy
    subjects: set[int] = field(default_factory=set)
    bonds: dict[Direction, set[Bond]] = field(default_factory=dict)
    grants: dict[Rule, Grant] = field(default_factory=dict)
    held: list[PeerSet] = field(default_factory=list)

    def activate(self, peer_sets: PeerSets, catalog: Catalog, former: LoadedPolicy | None) -> None:
        """Builds the bonds; a rule that ``former`` has too keeps its grant, so its cells stay clean."""
        self.bonds = {direction: set() for direction in Direction}
        known = former.grants if former and _kin(former.policy, self.policy) else {}
        for rule in self.policy.rules:
            grant = self.grants[rule] = known.get(rule) or self._grant(rule)
            peers = [peer_sets.hold(peer) for peer in rule.peers]
            everyone = any(catalog.resolve(peer) is EVERYONE for peer in rule.peers)
            if everyone and grant.names and rule.direction is Direction.EGRESS:
                # The name means something else for each peer, and nothing for "every peer".
                peers.append(peer_sets.hold(PortOwner(grant.names)))
            self.held += peers
            self.bonds[rule.direction].update((peer_set, grant) for peer_set in peers)

    def deactivate(self, peer_sets: PeerSets) -> None:
        for peers in self.held:
            peer_sets.drop(peers)
        self.bonds, self.grants, self.held = {}, {}, []

    def _grant(self, rule: Rule) -> Grant:
        return Grant(
            prefixes([port for port in rule.ports if isinstance(port, PortRange)]),
            frozenset(port for port in rule.ports if isinstance(port, NamedPort)),
            rule.deny,
            replace(self.policy.ref, rule=rule.path),
            self.policy.tier,
            self.policy.rank(rule),
            rule.passes,
            rule.l7,
            rule.watch,
            self.policy.audit or (rule.audit and rule.deny),
            rule.audit and not rule.deny,
            authentication=None if rule.audit else rule.authentication,
        )


def _kin(former: Policy, latter: Policy) -> bool:
    """Whether equal rules in both make equal grants."""
    return _nature(former) == _nature(latter)


def _nature(policy: Policy) -> tuple[object, ...]:
    return policy.ref, policy.tier, policy.priority, policy.audit
