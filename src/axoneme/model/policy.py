"""Policies as values: what NetworkPolicy, CiliumNetworkPolicy, CiliumClusterwideNetworkPolicy and the two
kinds of admin network policies say, in one vocabulary.

The parsers (``networkpolicy``, ``ciliumpolicy``, ``adminpolicy``) turn a manifest into one `Policy`;
everything after them knows only this module. All scoping is done here once: a selector in a `Policy`
already says which namespace it means. What a nil or empty list meant in the manifest is decided by the parser
too: `AnyPeer` for an absent L3 part, an empty tuple of peers for one that selects nothing.
"""

from __future__ import annotations

import enum
import ipaddress
from dataclasses import dataclass, field

from axoneme.model.l7 import L7, NameMatch
from axoneme.model.labels import Selector

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Direction(enum.IntEnum):
    """Always from the point of view of the policy's subject."""

    INGRESS = 0
    EGRESS = 1


class Protocol(enum.IntEnum):
    """IP protocol numbers (IANA); ``ANY`` stands for TCP, UDP and SCTP in a port, for all when alone."""

    ANY = 0
    ICMP = 1
    TCP = 6
    UDP = 17
    ICMPV6 = 58
    SCTP = 132


class Enforcement(enum.Enum):
    """The agent's mode: ``always`` is default-deny for every endpoint, ``never`` switches policy off."""

    DEFAULT = "default"
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, slots=True, order=True)
class PolicyRef:
    """Which object a rule stands in, and where: what a flow shows as the policy that decided it."""

    kind: str
    namespace: str  # "" for cluster-wide kinds
    name: str
    rule: str = ""  # the path of the rule in the object, e.g. "spec.ingress[0]"

    def __str__(self) -> str:
        owner = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.kind} {owner} {self.rule}".rstrip()


# ---- peers -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AnyPeer:
    """No L3 part in the rule: every peer, inside and outside."""


@dataclass(frozen=True, slots=True)
class LabelPeer:
    """Identities whose labels a selector matches (pods, and whatever has labels in the cluster)."""

    selector: Selector


@dataclass(frozen=True, slots=True)
class EntityPeer:
    """A name from POLICY.md's list of entities: host, world, cluster, all, none …"""

    entity: str


@dataclass(frozen=True, slots=True)
class CIDRPeer:
    """Addresses outside the cluster: in ``cidr`` and in none of ``excepts`` (each inside ``cidr``)."""

    cidr: Network
    excepts: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class CIDRGroupPeer:
    """The ranges of a CiliumCIDRGroup, by name or by its labels; resolved when the policy is compiled."""

    name: str | None = None
    selector: Selector | None = None
    excepts: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class ServicePeer:
    """The pods that a service selects, or the addresses of its endpoints when it has no selector.

    ``namespace`` None means every namespace.
    """

    namespace: str | None
    name: str | None = None
    selector: Selector | None = None


@dataclass(frozen=True, slots=True)
class NamePeer:
    """Addresses outside the cluster that the node's workloads were told for names which ``match`` matches."""

    match: NameMatch


@dataclass(frozen=True, slots=True)
class NodePeer:
    """Other nodes, by the labels of their Node objects (source ``node``)."""

    selector: Selector


Peer = AnyPeer | LabelPeer | EntityPeer | CIDRPeer | CIDRGroupPeer | ServicePeer | NamePeer | NodePeer


# ---- ports -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, order=True)
class PortRange:
    """Ports ``first`` to ``last`` of a protocol, or ICMP types for the two ICMPs; 0 to 65535 is all.

    ``protocol`` ANY with all ports means every packet, ICMP included; the parser expands ANY with a
    port, and `toPorts` without a port number, to TCP, UDP and SCTP.
    """

    protocol: Protocol
    first: int = 0
    last: int = 65535


@dataclass(frozen=True, slots=True, order=True)
class NamedPort:
    """A container port's name; resolved on the endpoint that owns the port (ingress: the subject)."""

    protocol: Protocol  # ANY: whichever protocol the container port has
    name: str


Port = PortRange | NamedPort

#: What a rule without L4 part covers: every packet.
ALL_PORTS: tuple[Port, ...] = (PortRange(Protocol.ANY),)


# ---- rules and policies ------------------------------------------------------------------------


class Authentication(enum.IntEnum):
    """Whether both ends of a connection must have proved who they are; the stricter one is the greater."""

    DISABLED = 0
    REQUIRED = 1
    ALWAYS_FAIL = 2  # nobody can prove anything: for tests


@dataclass(frozen=True, slots=True)
class Rule:
    """One item of one section: any of the peers, on any of the ports. Empty ``peers`` match nobody."""

    direction: Direction
    peers: tuple[Peer, ...]
    ports: tuple[Port, ...]
    deny: bool = False
    path: str = ""  # where in the manifest, e.g. "spec.ingress[0]"
    l7: L7 | None = None  # what a proxy has to look at; of an allow
    watch: bool = False  # allows nothing: a proxy looks at what others allow
    authentication: Authentication | None = None  # of an allow; None: as wider rules say
    passes: bool = False  # neither allows nor denies: lower tiers decide (AdminNetworkPolicy's Pass)
    order: int = 0  # in a tier with an order: a rule decides before those of its policy with a greater number
    audit: bool = False  # what it denies, or what its part above L4 refuses, passes, and flows say so


class Tier(enum.IntEnum):
    """Who decides first. In ``NORMAL`` a deny beats every allow; in the others rules have an order, and the
    first that covers a packet decides (`Policy.rank`)."""

    ADMIN = 0  # AdminNetworkPolicy
    NORMAL = 1
    BASELINE = 2  # BaselineAdminNetworkPolicy: not asked where a policy of NORMAL makes default-deny


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy object (one entry of ``specs`` each makes its own `Policy` with the same ref).

    ``default_deny`` holds the directions in which selecting an endpoint makes it default-deny.
    """

    ref: PolicyRef
    subject: Selector
    rules: tuple[Rule, ...]
    default_deny: frozenset[Direction] = field(default_factory=frozenset)
    labels: tuple[str, ...] = ()
    description: str = ""
    log: str = ""  # what the author wants to read beside each verdict
    hosts: bool = False  # the subject selects nodes, by the labels of their Node objects
    tier: Tier = Tier.NORMAL
    priority: int = 0  # in a tier with an order: decides before those with a greater number
    audit: bool = False  # is only tried: what it denies passes, and flows say that it would not

    def rank(self, rule: Rule) -> Rank:
        """Where a rule stands in its tier; policies of one priority are in the order of their names."""
        return (self.priority, self.ref.name, rule.order)


#: Priority, policy's name, place in the policy.
Rank = tuple[int, str, int]


@dataclass(frozen=True, slots=True)
class CIDRGroup:
    """A CiliumCIDRGroup: ranges under a name, with labels."""

    name: str
    cidrs: tuple[Network, ...]
    labels: tuple[tuple[str, str], ...] = ()
