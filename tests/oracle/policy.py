"""What policies mean, as plainly as it can be said: no identities, no prefixes, no tables.

Judges the policy compiler, and the kernel. Every packet is held against every rule of every policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address

from axoneme.model.l7 import L7
from axoneme.model.labels import Label, Labels, Operator, Selector
from axoneme.model.policy import (
    AnyPeer,
    CIDRGroup,
    CIDRGroupPeer,
    CIDRPeer,
    Direction,
    Enforcement,
    EntityPeer,
    LabelPeer,
    NamedPort,
    Network,
    Peer,
    Policy,
    PolicyRef,
    Port,
    Protocol,
    Rule,
    ServicePeer,
    Tier,
)
from axoneme.policy.lookup import Outcome
from axoneme.policy.peers import Service

Address = IPv4Address | IPv6Address
IN_CLUSTER = ("host", "remote-node", "kube-apiserver", "ingress", "init", "health", "unmanaged")


@dataclass(frozen=True)
class Party:
    """One end of a packet. ``address`` counts where CIDR rules look: outside, and at nodes."""

    labels: Labels
    address: Address | None = None
    named_ports: Mapping[tuple[str, Protocol], frozenset[int]] = field(default_factory=dict)
    audited: bool = False  # all policies are only tried on it

    def reserved(self, *names: str) -> bool:
        return any(self.labels.values("reserved", name) for name in names)

    @property
    def outside(self) -> bool:
        return self.reserved("world")


@dataclass
class World:
    policies: list[Policy] = field(default_factory=list)
    services: list[Service] = field(default_factory=list)
    groups: list[CIDRGroup] = field(default_factory=list)
    enforcement: Enforcement = Enforcement.DEFAULT
    cluster: str = "default"
    host_reaches_pods: bool = True
    cidr_matches_nodes: bool = False


@dataclass(frozen=True)
class Judgement:
    """``above``: the rules above L4 that a proxy holds it to, with their kind; ``watched``: it only looks on.
    ``audit``: it passes although what is only tried would deny it, and ``refs`` are of that."""

    outcome: Outcome
    refs: frozenset[PolicyRef] = frozenset()
    above: frozenset[object] = frozenset()
    watched: bool = False
    audit: bool = False


def decide(
    world: World, subject: Party, direction: Direction, peer: Party, protocol: int, port: int
) -> tuple[Outcome, frozenset[PolicyRef]]:
    """The outcome for a packet, and the rules that give it."""
    found = judge(world, subject, direction, peer, protocol, port)
    return found.outcome, found.refs


def judge(
    world: World, subject: Party, direction: Direction, peer: Party, protocol: int, port: int
) -> Judgement:
    """What policies in force say; then what they would with those that are only tried; then who looks on."""
    if world.enforcement is Enforcement.NEVER:
        return Judgement(Outcome.ALLOWED)
    selecting = [policy for policy in world.policies if policy.subject.matches(subject.labels)]
    packet = (direction, peer, subject if direction is Direction.INGRESS else peer, protocol, port)
    in_force = [
        replace(policy, rules=lasting(policy.rules))
        for policy in selecting
        if not (policy.audit or (subject.audited and policy.tier is not Tier.ADMIN))
    ]
    tried = [policy for policy in selecting if policy not in in_force]
    found = verdict(world, subject, in_force, packet)
    if found.outcome is Outcome.ALLOWED and (tried or subject.audited):
        shadow = verdict(world, replace(subject, audited=False), selecting, packet)
        if shadow.outcome is not Outcome.ALLOWED:
            whole = [policy for policy in tried if policy.audit or subject.audited]
            closing = {policy.ref for policy in whole if direction in policy.default_deny}
            open_ = not closed(world, subject, in_force, direction)
            refs = shadow.refs or frozenset(closing if open_ else ())
            found = Judgement(Outcome.ALLOWED, refs, found.above, audit=True)
        elif shadow.above and not found.above:
            found = replace(shadow, watched=True)
    watching = [each[1].l7 for each in matching(world, selecting, packet) if each[1].watch]
    if watching and found.outcome is Outcome.ALLOWED and not found.above and (seen := together(watching)):
        found = replace(found, above=seen, watched=True)
    return found


def lasting(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """Without what is only tried of them."""
    kept = (rule for rule in rules if not (rule.audit and rule.deny))
    return tuple(replace(rule, l7=None) if rule.audit else rule for rule in kept)


Packet = tuple[Direction, Party, Party, int, int]


def verdict(world: World, subject: Party, policies: list[Policy], packet: Packet) -> Judgement:
    """What some policies say, all of them in force."""
    direction, peer, *_ = packet
    said: dict[Tier, list[tuple[Policy, Rule]]] = {tier: [] for tier in Tier}
    for policy, rule in matching(world, policies, packet):
        if not rule.watch:
            said[policy.tier].append((policy, rule))
    if admin := first_of(said[Tier.ADMIN]):
        return Judgement(*admin)
    normal = said[Tier.NORMAL]
    host = world.host_reaches_pods and direction is Direction.INGRESS and peer.reserved("host")
    for outcome, chosen in (
        (Outcome.DENIED, [each for each in normal if each[1].deny]),
        (Outcome.ALLOWED, [each for each in normal if each[1].l7 is None]),
        (Outcome.ALLOWED, [] if host else normal),
    ):
        if chosen:
            refs = frozenset(ref_of(*each) for each in chosen)
            above = [each[1].l7 for each in chosen if each[1].l7 and outcome is Outcome.ALLOWED]
            if above and not (rules := together(above)):
                return Judgement(Outcome.DENIED, refs)
            return Judgement(outcome, refs, rules if above else frozenset())
    isolated = any(direction in policy.default_deny for policy in policies)
    if not (host and normal) and not isolated and (baseline := first_of(said[Tier.BASELINE])):
        return Judgement(*baseline)
    if host or not closed(world, subject, policies, direction):
        return Judgement(Outcome.ALLOWED)
    return Judgement(Outcome.DEFAULT_DENIED)


def matching(world: World, policies: list[Policy], packet: Packet) -> list[tuple[Policy, Rule]]:
    direction, peer, owner, protocol, port = packet
    return [
        (policy, rule)
        for policy in policies
        for rule in policy.rules
        if rule.direction is direction
        and any(covers(each, owner, protocol, port) for each in rule.ports)
        and any(selects(world, each, peer) for each in rule.peers)
    ]


def closed(world: World, subject: Party, policies: list[Policy], direction: Direction) -> bool:
    return not subject.audited and (
        any(direction in policy.default_deny for policy in policies)
        or world.enforcement is Enforcement.ALWAYS
        or subject.reserved("init")
    )


def together(parts: list[L7 | None]) -> frozenset[object]:
    """The rules of all; nothing when no proxy can hold to all of them."""
    if len({part.kind for part in parts if part}) > 1:
        return frozenset()
    return frozenset(item for part in parts if part for item in (part.kind, *part.rules, *part.server_names))


def first_of(said: list[tuple[Policy, Rule]]) -> tuple[Outcome, frozenset[PolicyRef]] | None:
    """What the first rule of a tier with an order says; None where there is none, or it passes."""
    for policy, rule in sorted(said, key=lambda each: (each[0].priority, each[0].ref.name, each[1].order)):
        if rule.passes:
            return None
        return Outcome.DENIED if rule.deny else Outcome.ALLOWED, frozenset({ref_of(policy, rule)})
    return None


def ref_of(policy: Policy, rule: Rule) -> PolicyRef:
    ref = policy.ref
    return PolicyRef(ref.kind, ref.namespace, ref.name, rule.path)


def covers(port: Port, owner: Party, protocol: int, number: int) -> bool:
    if isinstance(port, NamedPort):
        return any(
            name == port.name
            and has == protocol
            and port.protocol in (Protocol.ANY, has)
            and number in numbers
            for (name, has), numbers in owner.named_ports.items()
        )
    if port.protocol is Protocol.ANY:
        everything = (port.first, port.last) == (0, 65535)
        return everything or (protocol in (6, 17, 132) and port.first <= number <= port.last)
    return port.protocol == protocol and port.first <= number <= port.last


def selects(world: World, peer: Peer, party: Party) -> bool:
    match peer:
        case AnyPeer():
            return True
        case LabelPeer(selector):
            return names(selector, party)
        case EntityPeer(entity):
            return is_entity(world, entity, party)
        case CIDRPeer(cidr, excepts):
            return in_range(world, party, cidr, excepts)
        case CIDRGroupPeer(name, selector, excepts):
            return any(
                in_range(world, party, cidr, excepts)
                for group in world.groups
                if (
                    group.name == name
                    if name is not None
                    else labelled(selector, "cidrgroup", dict(group.labels))
                )
                for cidr in group.cidrs
            )
        case ServicePeer(namespace, name, selector):
            return any(
                is_backend(world, service, party)
                for service in world.services
                if namespace in (None, service.namespace)
                and (service.name == name if name is not None else labelled(selector, "k8s", service.labels))
            )


def names(selector: Selector, party: Party) -> bool:
    """Labels are about the cluster; who is outside must be asked for by something that it has."""
    asks = any(r.operator in (Operator.IN, Operator.EXISTS) for r in selector.requirements)
    return selector.matches(party.labels) and (asks or not party.outside)


def is_entity(world: World, entity: str, party: Party) -> bool:
    pod = bool(party.labels.values("k8s", "io.kubernetes.pod.namespace"))
    if entity == "cluster":
        cluster = party.labels.get("k8s", "io.cilium.k8s.policy.cluster")
        return party.reserved(*IN_CLUSTER) or (pod and cluster in (None, world.cluster))
    return entity == "all" or (entity != "none" and party.reserved(entity))


def in_range(world: World, party: Party, cidr: Network, excepts: tuple[Network, ...]) -> bool:
    if party.address is None or not (party.outside or world.cidr_matches_nodes):
        return False
    return party.address in cidr and not any(party.address in network for network in excepts)


def is_backend(world: World, service: Service, party: Party) -> bool:
    if not service.selector:
        return party.outside and party.address in service.addresses
    wanted = {"io.kubernetes.pod.namespace": service.namespace, **service.selector}
    return all(value in party.labels.values("any", key) for key, value in wanted.items())


def labelled(selector: Selector | None, source: str, labels: Mapping[str, str]) -> bool:
    return selector is not None and selector.matches(Labels(Label(source, k, v) for k, v in labels.items()))
