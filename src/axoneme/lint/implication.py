"""What follows from what: whether one selector, peer or port list says all that another says.

Sound, not complete: a yes is always right, a no may only mean that it is not obvious. Tests hold a yes
against the policy engine.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from axoneme.model.checks import inside
from axoneme.model.labels import ANY, K8S, NAMESPACE, Operator, Requirement, Selector
from axoneme.model.policy import (
    AnyPeer,
    CIDRPeer,
    EntityPeer,
    LabelPeer,
    NamedPort,
    Peer,
    Port,
    PortRange,
    Protocol,
)
from axoneme.model.selectors import positive
from axoneme.policy.ports import EVERYTHING, Prefix, prefixes, wider


@dataclass(frozen=True, slots=True)
class _Facts:
    """All that requirements say about one label: ``values`` are those that it may have, None for any."""

    values: frozenset[str] | None
    without: frozenset[str]
    there: bool
    absent: bool

    @classmethod
    def of(cls, requirements: Iterable[Requirement]) -> _Facts:
        values: frozenset[str] | None = None
        without: frozenset[str] = frozenset()
        there = absent = False
        for each in requirements:
            match each.operator:
                case Operator.IN:
                    values = frozenset(each.values) & (
                        values if values is not None else frozenset(each.values)
                    )
                    there = True
                case Operator.NOT_IN:
                    without |= frozenset(each.values)
                case Operator.EXISTS:
                    there = True
                case Operator.DOES_NOT_EXIST:
                    absent = True
        return cls(None if values is None else values - without, without, there, absent)

    @property
    def impossible(self) -> bool:
        return (self.there and self.absent) or self.values == frozenset()

    def implies(self, wanted: Requirement) -> bool:
        values = frozenset(wanted.values)
        match wanted.operator:
            case Operator.IN:
                return self.values is not None and self.values <= values
            case Operator.EXISTS:
                return self.there
            case Operator.NOT_IN:
                chosen = self.values is not None and not self.values & values
                return self.absent or chosen or values <= self.without
            case Operator.DOES_NOT_EXIST:
                return self.absent


def _about(selector: Selector, source: str, key: str) -> list[Requirement]:
    """The requirements on a label; without a source, and from Kubernetes, is the same: pods have no other."""
    return [
        each
        for each in selector.requirements
        if each.key == key and (each.source == source or {each.source, source} == {ANY, K8S})
    ]


def contradiction(selector: Selector) -> str:
    """The requirements that cannot hold together; empty when all can."""
    for each in selector.requirements:
        about = _about(selector, each.source, each.key)
        if _Facts.of(about).impossible:
            return " and ".join(map(str, about))
    return ""


def selector_implies(narrow: Selector, wide: Selector) -> bool:
    """Whether whoever fulfils ``narrow`` fulfils ``wide``."""
    if not any(map(positive, wide.requirements)):
        # Without asking for anything a selector is about the cluster; one that asks may be about the world.
        asks = any(map(positive, narrow.requirements))
        pods = any(map(positive, (*_about(narrow, K8S, NAMESPACE),)))
        if asks and not pods:
            return False
    return all(_Facts.of(_about(narrow, r.source, r.key)).implies(r) for r in wide.requirements)


def peer_implies(narrow: Peer, wide: Peer) -> bool:
    """Whether ``wide`` means everybody whom ``narrow`` means (where ranges do not mean nodes)."""
    match narrow, wide:
        case _, AnyPeer() | EntityPeer("all"):
            return True
        case LabelPeer(one), LabelPeer(other):
            return selector_implies(one, other)
        case (CIDRPeer(), EntityPeer("world")) | (
            EntityPeer("world-ipv4" | "world-ipv6"),
            EntityPeer("world"),
        ):
            return True
        case CIDRPeer(cidr, excepts), CIDRPeer(around, holes):
            covered = (hole for hole in holes if inside(hole, cidr) or inside(cidr, hole))
            return inside(cidr, around) and all(
                any(inside(hole, each) for each in excepts) for hole in covered
            )
    return narrow == wide


def ports_imply(narrow: Iterable[Port], wide: Iterable[Port]) -> bool:
    """Whether ``wide`` covers every packet that ``narrow`` covers."""
    wide = tuple(wide)
    covered = prefixes(port for port in wide if isinstance(port, PortRange))
    return all(_port_within(port, wide, covered) for port in narrow)


def _port_within(port: Port, wide: tuple[Port, ...], covered: frozenset[Prefix]) -> bool:
    if isinstance(port, NamedPort):
        return EVERYTHING in covered or port in wide or NamedPort(Protocol.ANY, port.name) in wide
    return all(
        prefix in covered or any(around in covered for around in wider(prefix)) for prefix in prefixes([port])
    )
