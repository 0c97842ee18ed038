"""Why a packet gets its verdict, for people: the entries that decide, and each policy's part in it.

The verdict comes from the compiled table. The policies' parts are worked out from the policies
themselves, so an explanation that does not fit its verdict would show a fault of the compiler.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from axoneme.model.l7 import L7
from axoneme.model.labels import Labels, Selector
from axoneme.model.policy import (
    CIDRPeer,
    Direction,
    NamedPort,
    Policy,
    PolicyRef,
    Port,
    Protocol,
    Rank,
    Tier,
)
from axoneme.policy.engine import PolicyEngine
from axoneme.policy.flatten import is_tried
from axoneme.policy.identities import Identity
from axoneme.policy.lookup import Decision, evaluate
from axoneme.policy.peers import Match, Term
from axoneme.policy.rulesets import RuleSet


@dataclass(frozen=True, slots=True)
class RulePart:
    """What one rule has to say. ``peer`` is the term that selects the peer, None if none does.

    ``ports`` are the rule's own that cover the packet; empty if none does. ``l7``: what it asks of a proxy;
    ``audit``: it is only tried.
    """

    ref: PolicyRef
    deny: bool
    peer: str | None
    ports: tuple[Port, ...]
    passes: bool = False
    tier: Tier = Tier.NORMAL
    rank: Rank = (0, "", 0)
    l7: L7 | None = None
    audit: bool = False

    @property
    def applies(self) -> bool:
        return self.peer is not None and bool(self.ports)

    @property
    def missed_by_port(self) -> bool:
        """The peer fits, the protocol or port does not."""
        return self.peer is not None and not self.ports


@dataclass(frozen=True, slots=True)
class PolicyPart:
    """A policy that selects the subject; ``selector`` is how, ``default_deny`` whether it closes the
    direction. ``rules`` are those of the direction."""

    ref: PolicyRef
    selector: str
    default_deny: bool
    rules: tuple[RulePart, ...]
    tier: Tier = Tier.NORMAL
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Explanation:
    """``refs`` are the rules that give the outcome: none for a default, or where nobody's rule does
    (an open direction, or the host towards its own pods). ``subject_known`` and ``peer_known`` say
    whether the node knows these identities at all; the subject must also be on this node. ``above``: what a
    proxy holds it to."""

    decision: Decision
    refs: tuple[PolicyRef, ...]
    enforced: bool
    subject_labels: Labels
    subject_known: bool
    peer_labels: Labels
    peer_known: bool
    policies: tuple[PolicyPart, ...]
    above: RuleSet | None = None

    @property
    def rules(self) -> tuple[RulePart, ...]:
        return tuple(rule for policy in self.policies for rule in policy.rules)

    @property
    def deciding(self) -> tuple[RulePart, ...]:
        """The rules of which the outcome consists: of the first tier that decides. Where what is only tried
        is named, all rules count as if they were in force."""
        tried = self.decision.audited or bool(self.above and self.above.audit)
        return self._deciding([rule for rule in self.rules if rule.applies and (tried or not rule.audit)])

    def _deciding(self, applying: list[RulePart]) -> tuple[RulePart, ...]:
        admin = first_of(applying, Tier.ADMIN)
        if admin and not admin.passes:
            return (admin,)
        normal = [rule for rule in applying if rule.tier is Tier.NORMAL]
        for chosen in (
            [rule for rule in normal if rule.deny],
            [rule for rule in normal if rule.l7 is None],
            # A node that reaches its own pods is held to no rules above L4.
            normal if self.above or not self.decision.allowed or self.decision.audited else [],
        ):
            if chosen:
                return tuple(chosen)
        isolated = any(policy.default_deny for policy in self.policies)
        baseline = None if isolated else first_of(applying, Tier.BASELINE)
        return (baseline,) if baseline else ()


def first_of(rules: Iterable[RulePart], tier: Tier) -> RulePart | None:
    """The rule that comes first in the order of a tier."""
    return min((rule for rule in rules if rule.tier is tier), key=lambda rule: rule.rank, default=None)


def why(
    engine: PolicyEngine, subject: int, direction: Direction, peer: int, protocol: int, port: int
) -> Explanation:
    """Explains the verdict on a packet; ``port`` is the destination port, or the ICMP type."""
    decision = evaluate(engine.table, subject, direction, peer, protocol, port)
    subject_identity, peer_identity = engine.identity(subject), engine.identity(peer)
    owner = subject_identity if direction is Direction.INGRESS else peer_identity
    policies = tuple(
        _policy_part(engine, policy, direction, peer_identity, owner, protocol, port, engine.audited(subject))
        for policy in engine.policies_selecting(subject)
    )
    return Explanation(
        decision=decision,
        refs=tuple(sorted({ref for number in decision.rules for ref in engine.rules(number)})),
        enforced=engine.enforced(subject, direction),
        subject_labels=subject_identity.labels if subject_identity else Labels(),
        subject_known=subject_identity is not None,
        peer_labels=peer_identity.labels if peer_identity else Labels(),
        peer_known=peer_identity is not None,
        policies=policies,
        above=engine.rule_sets[decision.listener] if decision.listener else None,
    )


def _policy_part(
    engine: PolicyEngine,
    policy: Policy,
    direction: Direction,
    peer: Identity | None,
    owner: Identity | None,
    protocol: int,
    port: int,
    audited: bool,
) -> PolicyPart:
    rules = tuple(
        RulePart(
            replace(policy.ref, rule=rule.path),
            rule.deny,
            next((found for p in rule.peers if (found := selects(engine.meaning(p), peer))), None),
            tuple(item for item in rule.ports if covers(item, owner, protocol, port)),
            rule.passes,
            policy.tier,
            policy.rank(rule),
            rule.l7,
            is_tried(policy.tier, policy.audit or rule.audit, audited),
        )
        for rule in policy.rules
        if rule.direction is direction and not rule.watch
    )
    closes = direction in policy.default_deny
    return PolicyPart(policy.ref, str(policy.subject), closes, rules, policy.tier, policy.priority)


def selects(match: Match, peer: Identity | None) -> str | None:
    """The term that selects the peer, as text."""
    if match.everyone:
        return "every peer"
    return next((_text(term) for term in match.terms if peer and peer.fulfils(term)), None)


def _text(term: Term) -> str:
    match term:
        case CIDRPeer(cidr, ()):
            return str(cidr)
        case CIDRPeer(cidr, excepts):
            return f"{cidr} except {', '.join(map(str, excepts))}"
        case Selector():
            return str(term)
        case NamedPort():
            return f"owner of port {term.name}"


def covers(item: Port, owner: Identity | None, protocol: int, port: int) -> bool:
    """Whether packets to this port, or of this ICMP type, are meant; ``owner`` has the named ports."""
    if isinstance(item, NamedPort):
        return owner is not None and (protocol, port) in owner.ports(item)
    if item.protocol is Protocol.ANY:
        whole = (item.first, item.last) == (0, 65535)
        return whole or (protocol in (6, 17, 132) and item.first <= port <= item.last)
    return item.protocol == protocol and item.first <= port <= item.last
