"""Grants: what rules say, without whom they say it of.

A *grant* is one rule's L4 part with its verdict and its ref. `sides` lays grants on the subjects of a policy,
`flatten` makes entries of those that apply to one peer.
"""

from __future__ import annotations

from dataclasses import dataclass

from axoneme.model.policy import NamedPort, PolicyRef, PortRange, Rank, Tier
from axoneme.policy.identities import Identity
from axoneme.policy.ports import EVERYTHING, Prefix, prefixes


@dataclass(frozen=True, slots=True, eq=False)
class Grant:
    """One rule's ports; ``names`` mean something only together with the endpoint that owns them.

    Without a ``ref`` it is nobody's rule: an open direction.
    """

    prefixes: frozenset[Prefix]
    names: frozenset[NamedPort]
    deny: bool
    ref: PolicyRef | None
    tier: Tier = Tier.NORMAL
    rank: Rank = (0, "", 0)
    passes: bool = False

    @property
    def layered(self) -> bool:
        """Whether it is not enough for a packet's verdict that a deny beats every allow."""
        return self.tier is not Tier.NORMAL

    def named(self, owner: Identity | None) -> frozenset[Prefix]:
        """What the names mean on endpoints of ``owner``."""
        if owner is None or not self.names:
            return frozenset()
        ports = (port for name in self.names for port in owner.ports(name))
        return prefixes(PortRange(protocol, port, port) for protocol, port in ports)


#: Nobody's rule: everything passes.
OPEN = Grant(frozenset({EVERYTHING}), frozenset(), deny=False, ref=None)
