"""The identities that are known, and quick answers to "which of them does this term select?".

An identity is a number for labels. Those outside the cluster stand for a prefix as well: the CIDR
identities for theirs, the world for the whole address space of its family. A CIDR term selects an
identity whose whole prefix lies inside its range and outside its excepts, which is right because
every range and except that a policy names has an identity, and an address belongs to the longest.

A label term is about the cluster. It selects an identity outside only if it asks for something that
this identity has (``reserved:world``), not by asking for nothing or for the absence of something.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from axoneme.model.labels import RESERVED, Label, Labels, Operator, Requirement, Selector
from axoneme.model.policy import CIDRPeer, NamedPort, Network, Protocol
from axoneme.policy.peers import Match, Term

_K = TypeVar("_K")

HOST = 1
#: The node itself again, as subject of policies that are only tried; nobody is a peer under this number.
HOST_TRIED = 255
WORLD = 2
WORLD_IPV4 = 9
WORLD_IPV6 = 10

_WORLD = ("world", "world-ipv4", "world-ipv6")
_ALL_IPV4 = (4, 0, 2**32 - 1)
_ALL_IPV6 = (6, 0, 2**128 - 1)

#: A container port's name and protocol -> the port numbers that it has on endpoints of an identity.
NamedPorts = Mapping[tuple[str, Protocol], frozenset[int]]


class Span(NamedTuple):
    """A prefix as numbers: IP version, first and last address."""

    version: int
    first: int
    last: int

    @classmethod
    def of(cls, network: Network) -> Span:
        return cls(network.version, int(network.network_address), int(network.broadcast_address))

    def holds(self, other: Span) -> bool:
        return self.version == other.version and self.first <= other.first and other.last <= self.last


@dataclass(frozen=True, slots=True)
class Identity:
    """``spans`` are what CIDR terms look at: none for a pod, which no CIDR term ever selects."""

    number: int
    labels: Labels
    spans: tuple[Span, ...] = ()
    named_ports: NamedPorts | None = None

    @property
    def outside(self) -> bool:
        return any(self.labels.values(RESERVED, name) for name in _WORLD)

    def ports(self, wanted: NamedPort) -> frozenset[tuple[Protocol, int]]:
        """What the port name means on endpoints of this identity."""
        return frozenset(
            (protocol, port)
            for (name, protocol), ports in (self.named_ports or {}).items()
            if name == wanted.name and wanted.protocol in (Protocol.ANY, protocol)
            for port in ports
        )

    def fulfils(self, term: Term) -> bool:
        if isinstance(term, Selector):
            return term.matches(self.labels) and (any(map(positive, term.requirements)) or not self.outside)
        if isinstance(term, CIDRPeer):
            cidr, excepts = Span.of(term.cidr), [Span.of(network) for network in term.excepts]
            return any(cidr.holds(s) and not any(e.holds(s) for e in excepts) for s in self.spans)
        return bool(self.ports(term))


def reserved(ipv4: bool, ipv6: bool) -> list[Identity]:
    """The identities that every node knows from the start.

    A node with one family calls everything outside 2, a node with both 9 and 10.
    """
    names = {
        HOST: ("host",),
        3: ("unmanaged",),
        4: ("health",),
        5: ("init",),
        6: ("remote-node",),
        7: ("kube-apiserver", "remote-node"),
        8: ("ingress",),
    }
    found = [Identity(number, _labels(*labels)) for number, labels in names.items()]
    if ipv4:
        number = WORLD_IPV4 if ipv6 else WORLD
        found.append(Identity(number, _labels("world", "world-ipv4"), (Span(*_ALL_IPV4),)))
    if ipv6:
        number = WORLD_IPV6 if ipv4 else WORLD
        found.append(Identity(number, _labels("world", "world-ipv6"), (Span(*_ALL_IPV6),)))
    return found


def outside(number: int, network: Network, extra: Iterable[Label]) -> Identity:
    """A CIDR identity. That of all addresses is no more than the world's."""
    own = [Label(RESERVED, "world"), Label(RESERVED, f"world-ipv{network.version}")]
    if network.prefixlen:
        own.append(Label("cidr", str(network)))
    return Identity(number, Labels((*own, *extra)), (Span.of(network),))


def _labels(*names: str) -> Labels:
    return Labels(Label(RESERVED, name) for name in names)


class IdentityIndex:
    """Identities by number, by label and by prefix."""

    def __init__(self) -> None:
        self._by_number: dict[int, Identity] = {}
        self._by_label: dict[tuple[str, str], set[int]] = {}
        self._by_key: dict[str, set[int]] = {}
        self._spans: list[tuple[Span, int]] = []
        self._port_owners: set[int] = set()

    def __len__(self) -> int:
        return len(self._by_number)

    def __contains__(self, number: int) -> bool:
        return number in self._by_number

    def get(self, number: int) -> Identity | None:
        return self._by_number.get(number)

    def put(self, identity: Identity) -> None:
        self.remove(identity.number)
        number = identity.number
        self._by_number[number] = identity
        for label in identity.labels:
            self._by_label.setdefault((label.key, label.value), set()).add(number)
            self._by_key.setdefault(label.key, set()).add(number)
        for span in identity.spans:
            insort(self._spans, (span, number))
        if identity.named_ports:
            self._port_owners.add(number)

    def remove(self, number: int) -> None:
        identity = self._by_number.pop(number, None)
        if identity is None:
            return
        for label in identity.labels:
            _discard(self._by_label, (label.key, label.value), number)
            _discard(self._by_key, label.key, number)
        for span in identity.spans:
            del self._spans[bisect_left(self._spans, (span, number))]
        self._port_owners.discard(number)

    def select(self, match: Match) -> set[int]:
        """The numbers of the identities that fulfil one of the terms."""
        found: set[int] = set()
        for term in match.terms:
            found |= self.fulfilling(term)
        return found

    def fulfilling(self, term: Term, among: Set[int] | None = None) -> set[int]:
        """The numbers (of those in ``among``) of the identities that fulfil ``term``."""
        candidates = self._candidates(term)
        if among is not None:
            candidates = candidates & among
        return {number for number in candidates if self._by_number[number].fulfils(term)}

    def _candidates(self, term: Term) -> set[int]:
        """A small set which holds every identity that fulfils ``term``."""
        if isinstance(term, NamedPort):
            return self._port_owners
        if isinstance(term, CIDRPeer):
            version, first, last = Span.of(term.cidr)
            start = bisect_left(self._spans, (Span(version, first, 0), 0))
            end = bisect_left(self._spans, (Span(version, last + 1, 0), 0))
            return {number for _, number in self._spans[start:end]}
        options = [self._holders(r) for r in term.requirements if positive(r)]
        if not options:
            return set(self._by_number)
        best = min(options, key=lambda sets: sum(map(len, sets)))
        return set().union(*best)

    def _holders(self, requirement: Requirement) -> list[set[int]]:
        """Sets whose union holds every identity that fulfils a positive requirement."""
        if requirement.operator is Operator.EXISTS:
            return [self._by_key.get(requirement.key, set())]
        return [self._by_label.get((requirement.key, value), set()) for value in requirement.values]


def positive(requirement: Requirement) -> bool:
    """Whether it asks for something to be there."""
    return requirement.operator in (Operator.IN, Operator.EXISTS)


def _discard(index: dict[_K, set[int]], key: _K, number: int) -> None:
    numbers = index[key]
    numbers.discard(number)
    if not numbers:
        del index[key]
