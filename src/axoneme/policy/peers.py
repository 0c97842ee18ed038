"""Whom a peer of a rule means, in three kinds of terms: labels, address ranges, named ports.

A policy says "entity cluster", "service shop/cart", "CIDR group partners". `resolve` turns each into a
`Match`, a list of terms of which any may hold: a `Selector` over labels, a `CIDRPeer` over the
prefixes of identities outside the cluster, a `NamedPort` that the peer must own. Only `everyone` is
no term: it is the kernel's "every peer" and needs no identity at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_network

from axoneme.model.labels import (
    ANY,
    CLUSTER,
    K8S,
    NAME,
    NAMESPACE,
    RESERVED,
    Label,
    Labels,
    Operator,
    Requirement,
    Selector,
    equals,
    exists,
)
from axoneme.model.policy import (
    AnyPeer,
    CIDRGroup,
    CIDRGroupPeer,
    CIDRPeer,
    EntityPeer,
    LabelPeer,
    NamedPort,
    NamePeer,
    Network,
    NodePeer,
    Peer,
    ServicePeer,
)

#: The source of a CiliumCIDRGroup's labels.
CIDR_GROUP = "cidrgroup"


@dataclass(frozen=True, slots=True)
class PortOwner:
    """Peers that have a named port: whom an egress rule with named ports and no L3 part means."""

    ports: frozenset[NamedPort]


AnyKindOfPeer = Peer | PortOwner


@dataclass(frozen=True, slots=True)
class Service:
    """What a policy can name of a Service. Without ``selector``, ``addresses`` are its endpoints'."""

    namespace: str
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    selector: Mapping[str, str] = field(default_factory=dict)
    addresses: frozenset[IPv4Address | IPv6Address] = frozenset()


Term = Selector | CIDRPeer | NamedPort


@dataclass(frozen=True, slots=True)
class Match:
    """Whom a peer means: everybody, or who fulfils one of ``terms`` (nobody, if there are none)."""

    everyone: bool = False
    terms: tuple[Term, ...] = ()

    def networks(self) -> Iterable[Network]:
        """The prefixes that need identities so that this match can be told in identities."""
        for term in self.terms:
            if isinstance(term, CIDRPeer):
                yield term.cidr
                yield from term.excepts


EVERYONE_PEER = AnyPeer()
HOST_PEER = EntityPeer("host")
EVERYONE = Match(everyone=True)
NOBODY = Match()


def _reserved(*names: str) -> tuple[Selector, ...]:
    return tuple(Selector((exists(RESERVED, name),)) for name in names)


_ENTITIES: dict[str, Match] = {
    "all": EVERYONE,
    "none": NOBODY,
    "world": Match(terms=_reserved("world", "world-ipv4", "world-ipv6")),
    **{
        name: Match(terms=_reserved(name))
        for name in (
            "world-ipv4",
            "world-ipv6",
            "host",
            "remote-node",
            "kube-apiserver",
            "ingress",
            "init",
            "health",
            "unmanaged",
        )
    },
}
_CLUSTER_PARTS = _reserved("host", "remote-node", "kube-apiserver", "ingress", "init", "health", "unmanaged")

#: The names that an `EntityPeer` may have.
ENTITIES = frozenset({*_ENTITIES, "cluster"})


class Catalog:
    """The named things that peers refer to: services, CIDR groups, the local cluster.

    Services by (namespace, name), groups by name.
    """

    def __init__(self, cluster: str) -> None:
        self.services: dict[tuple[str, str], Service] = {}
        self.groups: dict[str, CIDRGroup] = {}
        pod = exists(K8S, NAMESPACE)
        self._cluster = Match(
            terms=(
                *_CLUSTER_PARTS,
                Selector((pod, equals(K8S, CLUSTER, cluster))),
                Selector((pod, Requirement(K8S, CLUSTER, Operator.DOES_NOT_EXIST))),
            )
        )

    def resolve(self, peer: AnyKindOfPeer) -> Match:
        """Whom ``peer`` means at present.

        Raises ValueError for an entity that does not exist.
        """
        match peer:
            case AnyPeer():
                return EVERYONE
            case LabelPeer(selector):
                return Match(terms=(selector,))
            case CIDRPeer():
                return Match(terms=(peer,))
            case EntityPeer("cluster"):
                return self._cluster
            case EntityPeer(name) if name in _ENTITIES:
                return _ENTITIES[name]
            case EntityPeer(name):
                raise ValueError(f"no entity has the name {name!r}; there are {', '.join(sorted(ENTITIES))}")
            case CIDRGroupPeer():
                named = (group for group in self.groups.values() if group_matches(peer, group))
                return Match(terms=tuple(t for g in named for t in _group_terms(g, peer.excepts)))
            case ServicePeer(namespace, name) if namespace is not None and name is not None:
                service = self.services.get((namespace, name))
                return Match(terms=tuple(_service_terms(service)) if service else ())
            case ServicePeer():
                meant = (service for service in self.services.values() if service_matches(peer, service))
                return Match(terms=tuple(t for service in meant for t in _service_terms(service)))
            case NamePeer(match):
                return Match(terms=(Selector((exists(NAME, match.text),)),))
            case NodePeer(selector):
                return Match(terms=(selector.and_(exists(RESERVED, "remote-node")),))
            case PortOwner(ports):
                return Match(terms=tuple(sorted(ports)))


def refers(peer: AnyKindOfPeer, things: Iterable[Service | CIDRGroup]) -> bool:
    """Whether ``peer`` means one of these services or groups."""
    match peer:
        case CIDRGroupPeer():
            return any(isinstance(thing, CIDRGroup) and group_matches(peer, thing) for thing in things)
        case ServicePeer():
            return any(isinstance(thing, Service) and service_matches(peer, thing) for thing in things)
    return False


def group_matches(peer: CIDRGroupPeer, group: CIDRGroup) -> bool:
    if peer.name is not None:
        return peer.name == group.name
    labels = Labels(Label(CIDR_GROUP, key, value) for key, value in group.labels)
    return peer.selector is not None and peer.selector.matches(labels)


def service_matches(peer: ServicePeer, service: Service) -> bool:
    if peer.namespace not in (None, service.namespace):
        return False
    if peer.name is not None:
        return peer.name == service.name
    labels = Labels(Label(K8S, key, value) for key, value in service.labels.items())
    return peer.selector is not None and peer.selector.matches(labels)


def _group_terms(group: CIDRGroup, excepts: tuple[Network, ...]) -> Iterable[Term]:
    for cidr in group.cidrs:
        yield CIDRPeer(cidr, excepts)


def _service_terms(service: Service) -> Iterable[Term]:
    if service.selector:
        wanted = (equals(ANY, key, value) for key, value in sorted(service.selector.items()))
        yield Selector((equals(K8S, NAMESPACE, service.namespace), *wanted))
        return
    for address in sorted(map(str, service.addresses)):
        yield CIDRPeer(ip_network(address))
