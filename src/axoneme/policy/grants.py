"""Grants: what rules say, without whom they say it of.

A *grant* is one rule's L4 part with its verdict and its ref. `sides` lays grants on the subjects of a policy,
`flatten` makes entries of those that apply to one peer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from axoneme.model.l7 import L7
from axoneme.model.policy import Authentication, NamedPort, PolicyRef, PortRange, Rank, Tier
from axoneme.policy.identities import Identity
from axoneme.policy.ports import EVERYTHING, Prefix, prefixes
from axoneme.policy.rulenumbers import Refs


@dataclass(frozen=True, slots=True, eq=False)
class Grant:
    """One rule's ports; ``names`` mean something only together with the endpoint that owns them.

    Without a ``ref`` it is nobody's rule: an open direction, or the node that reaches its own pods. ``l7``:
    what it allows, a proxy has to look at. ``watch``: it allows nothing; what others allow, a proxy looks at.
    ``audit``: it is only tried; ``loose``: what it says above L4 is. ``authentication``: what both ends of a
    connection must have done before. ``closing``, of an open direction: it is open because the policies that
    would close it are only tried; these, by their refs.
    """

    prefixes: frozenset[Prefix]
    names: frozenset[NamedPort]
    deny: bool
    ref: PolicyRef | None
    tier: Tier = Tier.NORMAL
    rank: Rank = (0, "", 0)
    passes: bool = False
    l7: L7 | None = None
    watch: bool = False
    audit: bool = False
    loose: bool = False
    closing: Refs | None = None
    authentication: Authentication | None = None

    @property
    def conditional(self) -> bool:
        """Whether what it allows does not simply pass."""
        return self.l7 is not None or bool(self.authentication)

    @property
    def layered(self) -> bool:
        """Whether it is not enough for a packet's verdict that a deny beats every allow."""
        tried = self.audit or self.closing is not None
        return self.tier is not Tier.NORMAL or self.conditional or tried

    def named(self, owner: Identity | None) -> frozenset[Prefix]:
        """What the names mean on endpoints of ``owner``."""
        if owner is None or not self.names:
            return frozenset()
        ports = (port for name in self.names for port in owner.ports(name))
        return prefixes(PortRange(protocol, port, port) for protocol, port in ports)


#: Nobody's rule: everything passes.
OPEN = Grant(frozenset({EVERYTHING}), frozenset(), deny=False, ref=None)
#: The same for a node towards its own pods. Unlike an open direction it also frees from what is above L4.
HOST = Grant(frozenset({EVERYTHING}), frozenset(), deny=False, ref=None)


@lru_cache(maxsize=1024)
def open_but_for(refs: Refs) -> Grant:
    """`OPEN`, but for policies that are only tried. The same grant for the same, so that cells are shared."""
    return Grant(frozenset({EVERYTHING}), frozenset(), deny=False, ref=None, closing=refs)
