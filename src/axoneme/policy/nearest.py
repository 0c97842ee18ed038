"""The rules that come nearest to allowing a packet that none allows, and what of each does not fit.

A rule has conditions: its direction, its peer, its ports. The packet meets some of them; how many it does
not meet is how far the rule is from allowing it. Of several peers or ports in a rule the nearest counts, and
in a selector each requirement is a condition. Nearest first; of rules that are equally near the one whose
unmet conditions come first in `Condition`, where what is most often a slip comes first; then the order of
policies and of rules in them.

Only allow rules of policies that select the subject are looked at, of the tier without an order, and only
where no deny rule decides: against that no allow helps. `Miss.mended` is the rule with exactly what is named
changed. With it in the rule's place the packet passes, which a test holds on random policies.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from axoneme.model.labels import (
    CLUSTER,
    K8S,
    NAMESPACE,
    NAMESPACE_LABELS,
    RESERVED,
    Operator,
    Requirement,
    Selector,
    equals,
)
from axoneme.model.policy import (
    ALL_PORTS,
    CIDRGroupPeer,
    CIDRPeer,
    Direction,
    EntityPeer,
    LabelPeer,
    NamedPort,
    NamePeer,
    Network,
    NodePeer,
    Peer,
    PolicyRef,
    Port,
    PortRange,
    Protocol,
    Rule,
    ServicePeer,
    Tier,
)
from axoneme.policy.engine import PolicyEngine
from axoneme.policy.explain import covers, selects
from axoneme.policy.identities import Identity, Span
from axoneme.policy.lookup import Outcome, evaluate
from axoneme.policy.peers import ENTITIES

Address = IPv4Address | IPv6Address

_WITH_PORTS = (Protocol.TCP, Protocol.UDP, Protocol.SCTP)
_ICMP = (Protocol.ICMP, Protocol.ICMPV6)
_LAST_PORT = 65535


class Condition(enum.Enum):
    """What of a rule a packet can fail to meet; in the order in which it breaks ties."""

    PORT = "port"
    ICMP_TYPE = "ICMP type"
    PROTOCOL = "protocol"
    NAMED_PORT = "named port"
    EXCEPTION = "exception"
    LABEL = "label"
    NAMESPACE = "namespace"
    CLUSTER = "cluster"
    RANGE = "range"
    NAME = "DNS name"
    PEER = "kind of peer"
    DIRECTION = "direction"


_RANK = {condition: rank for rank, condition in enumerate(Condition)}


@dataclass(frozen=True, slots=True)
class Unmet:
    """A condition, what the rule wants there, and what the packet has."""

    condition: Condition
    wants: str
    has: str

    def __str__(self) -> str:
        return f"the {self.condition.value} ({self.wants}, {self.has})"


@dataclass(frozen=True, slots=True)
class Miss:
    """A rule that would allow the packet but for ``unmet``; ``mended`` is the rule that allows it."""

    ref: PolicyRef
    unmet: tuple[Unmet, ...]
    mended: Rule

    def __str__(self) -> str:
        *most, last = map(str, self.unmet)
        return (
            f"{self.ref} would allow it but for {' and '.join([', '.join(most), last] if most else [last])}"
        )


def nearest(
    engine: PolicyEngine,
    subject: int,
    direction: Direction,
    peer: int,
    protocol: int,
    port: int,
    address: Address | None = None,
) -> tuple[Miss, ...]:
    """The misses of a packet that is denied by default, nearest first; none for any other.

    ``address`` is the peer's, where it is outside the cluster and known: a mended rule then names just it.
    """
    if evaluate(engine.table, subject, direction, peer, protocol, port).outcome is not Outcome.DEFAULT_DENIED:
        return ()
    subject_identity, peer_identity = engine.identity(subject), engine.identity(peer)
    if subject_identity is None or peer_identity is None:
        return ()
    owner = subject_identity if direction is Direction.INGRESS else peer_identity
    misses = []
    for policy in engine.policies_selecting(subject):
        if policy.tier is not Tier.NORMAL or policy.audit:
            continue
        for rule in policy.rules:
            if rule.deny or rule.watch:
                continue
            way = () if rule.direction is direction else (_direction(rule.direction, direction),)
            peers = _peers(engine, rule, peer_identity, address)
            ports = _ports(rule, owner, protocol, port)
            mended = replace(rule, direction=direction, peers=peers.peers, ports=ports.ports)
            ref = replace(policy.ref, rule=rule.path)
            misses.append(Miss(ref, (*way, *peers.unmet, *ports.unmet), mended))
    return tuple(sorted(misses, key=lambda miss: _distance(miss.unmet)))


def _distance(unmet: Sequence[Unmet]) -> tuple[int, list[int]]:
    return _far([each.condition for each in unmet])


def _far(conditions: Sequence[Condition]) -> tuple[int, list[int]]:
    return len(conditions), [_RANK[each] for each in conditions]


def _direction(has: Direction, wanted: Direction) -> Unmet:
    names = {Direction.INGRESS: "into", Direction.EGRESS: "out of"}
    return Unmet(
        Condition.DIRECTION,
        f"it is about what goes {names[has]} the subject",
        f"this goes {names[wanted]} it",
    )


@dataclass(frozen=True, slots=True)
class _Peers:
    """What the rule's peers lack, and the peers that have it."""

    unmet: tuple[Unmet, ...]
    peers: tuple[Peer, ...]


@dataclass(frozen=True, slots=True)
class _Ports:
    """The same of its ports."""

    unmet: tuple[Unmet, ...]
    ports: tuple[Port, ...]


# ---- peers -------------------------------------------------------------------------------------


def _peers(engine: PolicyEngine, rule: Rule, identity: Identity, address: Address | None) -> _Peers:
    if any(selects(engine.meaning(peer), identity) for peer in rule.peers):
        return _Peers((), rule.peers)
    if not rule.peers:
        return _otherwise(rule, "it selects nobody", identity, address)
    each = (_one_peer(rule, peer, identity, address) for peer in rule.peers)
    return min(each, key=lambda found: _distance(found.unmet))


def _one_peer(rule: Rule, peer: Peer, identity: Identity, address: Address | None) -> _Peers:
    match peer:
        case LabelPeer(selector) if identity.labels.values(K8S, NAMESPACE):
            unmet = [r for r in selector.requirements if not r.holds(identity.labels)]
            return _Peers(
                tuple(_label(requirement, identity) for requirement in unmet),
                _instead(rule, peer, LabelPeer(_relaxed(selector, identity))),
            )
        case CIDRPeer(cidr, excepts) if identity.spans:
            inside = tuple(each for each in excepts if not _holds(each, identity))
            if inside != excepts and _holds(cidr, identity):
                without = ", ".join(str(each) for each in excepts if each not in inside)
                unmet_range = Unmet(Condition.EXCEPTION, f"it leaves out {without}", _who(identity, address))
                return _Peers((unmet_range,), _instead(rule, peer, CIDRPeer(cidr, inside)))
            return _otherwise(rule, f"it wants {cidr}", identity, address, Condition.RANGE)
        case LabelPeer(selector):
            return _otherwise(rule, f"it wants pods with {selector}", identity, address)
        case CIDRPeer(cidr):
            return _otherwise(rule, f"{cidr} means what is outside the cluster", identity, address)
        case EntityPeer(name):
            return _otherwise(rule, f"it wants the entity {name}", identity, address)
        case CIDRGroupPeer(name, selector):
            group = name or f"with {selector}"
            return _otherwise(rule, f"it wants the CIDR group {group}", identity, address, Condition.RANGE)
        case ServicePeer(namespace, name, selector):
            where = f"{namespace}/" if namespace else ""
            service = f"the service {where}{name}" if name else f"services with {selector}"
            return _otherwise(rule, f"it wants what is behind {service}", identity, address)
        case NamePeer(match):
            name = f"names like {match.text}" if match.pattern else match.text
            return _otherwise(rule, f"it wants addresses of {name}", identity, address, Condition.NAME)
        case NodePeer(selector) if identity.labels.values(RESERVED, "remote-node"):
            unmet = [r for r in selector.requirements if not r.holds(identity.labels)]
            return _Peers(
                tuple(_label(requirement, identity) for requirement in unmet),
                _instead(rule, peer, NodePeer(_relaxed(selector, identity))),
            )
        case NodePeer(selector):
            return _otherwise(rule, f"it wants other nodes with {selector}", identity, address)
    raise AssertionError(f"{peer} selects everybody")


def _label(requirement: Requirement, identity: Identity) -> Unmet:
    key = requirement.key
    condition = Condition.LABEL
    if key == NAMESPACE or key.startswith(NAMESPACE_LABELS):
        condition = Condition.NAMESPACE
    elif key == CLUSTER:
        condition = Condition.CLUSTER
    values = identity.labels.values(requirement.source, key)
    has = ", ".join(f"{key}={value}" for value in values)
    return Unmet(
        condition, f"it wants {requirement}", f"the peer has {has}" if has else f"the peer has no {key}"
    )


def _relaxed(selector: Selector, identity: Identity) -> Selector:
    """The selector with just so much changed that it selects the peer too."""
    kept = []
    for requirement in selector.requirements:
        has = identity.labels.values(requirement.source, requirement.key)
        if requirement.holds(identity.labels):
            kept.append(requirement)
        elif requirement.operator is Operator.IN and has:
            kept.append(replace(requirement, values=tuple(sorted({*requirement.values, *has}))))
        elif requirement.operator is Operator.NOT_IN and (rest := set(requirement.values) - set(has)):
            kept.append(replace(requirement, values=tuple(sorted(rest))))
    return Selector().and_(*kept)


def _instead(rule: Rule, peer: Peer, other: Peer) -> tuple[Peer, ...]:
    return tuple(other if each is peer else each for each in rule.peers)


def _otherwise(
    rule: Rule,
    wants: str,
    identity: Identity,
    address: Address | None,
    condition: Condition = Condition.PEER,
) -> _Peers:
    """The peer is of another kind than what the rule names: it can only be named besides."""
    return _Peers(
        (Unmet(condition, wants, _who(identity, address)),),
        (*rule.peers, exactly(identity, address)),
    )


def exactly(identity: Identity, address: Address | None = None) -> Peer:
    """A peer that names somebody: a pod by all its labels, what is outside by address, others as entities."""
    if identity.outside:
        return CIDRPeer(ip_network(address) if address else _network(identity.spans[0]))
    names = [label.key for label in identity.labels if label.source == RESERVED and label.key in ENTITIES]
    if names:
        return EntityPeer(names[0])
    return LabelPeer(
        Selector().and_(*(equals(each.source, each.key, each.value) for each in identity.labels))
    )


def _who(identity: Identity, address: Address | None) -> str:
    if identity.outside:
        network = _network(identity.spans[0])
        who = f"{address or network}, " if address or network.prefixlen else ""
        return f"the peer is {who}outside the cluster"
    names = [label.key for label in identity.labels if label.source == RESERVED]
    return f"the peer is {', '.join(names)}" if names else "the peer is a pod"


def _holds(network: Network, identity: Identity) -> bool:
    return any(Span.of(network).holds(span) for span in identity.spans)


def _network(span: Span) -> Network:
    bits = (span.last - span.first).bit_length()
    if span.version == 4:
        return IPv4Network((span.first, 32 - bits))
    return IPv6Network((span.first, 128 - bits))


# ---- ports -------------------------------------------------------------------------------------


def _ports(rule: Rule, owner: Identity, protocol: int, port: int) -> _Ports:
    if any(covers(item, owner, protocol, port) for item in rule.ports):
        return _Ports((), rule.ports)
    has = f"this is {_packet(protocol, port)}"
    ports = ALL_PORTS  # no rule with ports can mean any other protocol
    if protocol in _WITH_PORTS or protocol in _ICMP:
        ports = (*rule.ports, PortRange(Protocol(protocol), port, port))
    if not rule.ports:
        return _Ports((Unmet(Condition.PORT, "it lists no port", has),), ports)
    lacks = {item: _one_port(item, owner, protocol, port) for item in rule.ports}
    least = min(lacks.values(), key=_far)
    wants = f"it allows {_or(_text(item, owner) for item, lack in lacks.items() if lack == least)}"
    return _Ports(tuple(Unmet(condition, wants, has) for condition in least), ports)


def _one_port(item: Port, owner: Identity, protocol: int, port: int) -> tuple[Condition, ...]:
    """What of it the packet does not meet."""
    if isinstance(item, NamedPort):
        meaning = owner.ports(item)
        if not meaning:
            return (Condition.NAMED_PORT,)
        same = protocol in {has for has, _ in meaning}
        return (Condition.PORT,) if same else (Condition.PROTOCOL,)
    if item.protocol in _ICMP or protocol not in _WITH_PORTS:
        return (Condition.ICMP_TYPE,) if item.protocol == protocol else (Condition.PROTOCOL,)
    fits = item.first <= port <= item.last
    if item.protocol in (Protocol.ANY, protocol):
        return (Condition.PORT,)
    return (Condition.PROTOCOL,) if fits else (Condition.PORT, Condition.PROTOCOL)


def _text(item: Port, owner: Identity) -> str:
    if isinstance(item, NamedPort):
        meaning = sorted(owner.ports(item))
        means = ", ".join(f"{port}/{protocol.name}" for protocol, port in meaning)
        return f"the port {item.name} ({means or 'which is nobody here'})"
    name = item.protocol.name
    if (item.first, item.last) == (0, _LAST_PORT):
        return name
    numbers = str(item.first) if item.first == item.last else f"{item.first}-{item.last}"
    return f"{name} type {numbers}" if item.protocol in _ICMP else f"{numbers}/{name}"


def _packet(protocol: int, port: int) -> str:
    if protocol in _WITH_PORTS:
        return f"{port}/{Protocol(protocol).name}"
    return f"{Protocol(protocol).name} type {port}" if protocol in _ICMP else f"protocol {protocol}"


def _or(texts: Iterable[str]) -> str:
    *most, last = dict.fromkeys(texts)
    return f"{', '.join(most)} or {last}" if most else last
