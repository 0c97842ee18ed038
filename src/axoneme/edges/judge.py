"""What policies say of edges: worked out by the policy engine, as every agent works it out.

One engine stands for all nodes: each end of an edge is a subject of it. Who is outside the cluster gets the
identity of its address alone, which every range that holds it selects, and the names under which its callers
know it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network

from axoneme.edges import requests
from axoneme.edges.edge import Edge, Party, Whereabouts
from axoneme.identity.numbers import FIRST_CLUSTER, FIRST_NODE_LOCAL, Reserved
from axoneme.model.l7 import NameMatch
from axoneme.model.labels import NAME, Label, Labels
from axoneme.model.names import NameIndex
from axoneme.model.policy import (
    CIDRGroup,
    Direction,
    Enforcement,
    NamePeer,
    Policy,
    PolicyRef,
)
from axoneme.policy.engine import Options, PolicyEngine, PolicyKey
from axoneme.policy.identities import NamedPorts
from axoneme.policy.lookup import Outcome, evaluate
from axoneme.policy.peers import Service

#: Who has a role in the cluster, by its name.
_ROLES = {each.label.key: int(each) for each in Reserved if Reserved.WORLD.label not in each.labels}


class Verdict(enum.Enum):
    PASSES = "passes"
    REFUSED = "refused"
    #: A proxy looks at it, and the record does not say what it asks, or not enough of it.
    DEPENDS = "depends"


@dataclass(frozen=True, slots=True)
class Half:
    """What one end's policies say. ``refs``: the rules that do; of what none allows, the policies that
    close the direction."""

    direction: Direction
    verdict: Verdict
    refs: tuple[PolicyRef, ...]
    by_default: bool = False


@dataclass(frozen=True, slots=True)
class Judgement:
    halves: tuple[Half, ...]

    @property
    def verdict(self) -> Verdict:
        found = {half.verdict for half in self.halves}
        for worst in (Verdict.REFUSED, Verdict.DEPENDS):
            if worst in found:
                return worst
        return Verdict.PASSES


@dataclass(slots=True)
class World:
    """What edges are judged by. ``named_ports`` by the identity labels of their owners, as in
    `Party`; ``audited``: the labels of those who have all policies only tried."""

    policies: dict[PolicyKey, tuple[Policy, ...]] = field(default_factory=dict)
    services: list[Service] = field(default_factory=list)
    groups: dict[str, CIDRGroup] = field(default_factory=dict)
    named_ports: dict[tuple[str, ...], NamedPorts] = field(default_factory=dict)
    enforcement: Enforcement = Enforcement.DEFAULT
    cluster: str = "default"
    audited: set[tuple[str, ...]] = field(default_factory=set)


class Judge:
    """Under the policies of a `World`, which may be changed by `change`."""

    def __init__(
        self, world: World, edges: Iterable[Edge], names: Mapping[tuple[Party, str], Iterable[str]]
    ) -> None:
        """``names``: by client and address, the names for which the client was told this address."""
        self._engine = PolicyEngine(Options(cluster=world.cluster), world.enforcement)
        self._policies: dict[PolicyKey, tuple[Policy, ...]] = {}
        self._numbers: dict[Party, int] = {}
        self._names = _by_address(names)
        self._outside: set[Party] = set()
        self._index = NameIndex()
        for service in world.services:
            self._engine.upsert_service(service)
        for group in world.groups.values():
            self._engine.upsert_cidr_group(group)
        for edge in edges:
            for party in (edge.source, edge.destination):
                self._introduce(party, world)
        self.change(world.policies)

    def change(
        self,
        policies: Mapping[PolicyKey, Sequence[Policy]],
        groups: Iterable[CIDRGroup] = (),
    ) -> None:
        """These objects' policies from now on (none: it is gone). ValueError as from the engine."""
        for group in groups:
            self._engine.upsert_cidr_group(group)
        for key, now in policies.items():
            self._engine.upsert_policy(key, now)
            self._policies[key] = tuple(now)
        self._index = NameIndex(_name_matches(p for each in self._policies.values() for p in each))
        for party in self._outside:
            self._put_outside(party)
        self._engine.changes()

    def judge(self, edge: Edge) -> Judgement:
        """Of the ends that have policies: an edge between two that have none passes."""
        halves = (
            self._half(edge, direction)
            for direction in (Direction.EGRESS, Direction.INGRESS)
            if edge.subject(direction).whereabouts is Whereabouts.POD
        )
        return Judgement(tuple(halves))

    def _half(self, edge: Edge, direction: Direction) -> Half:
        engine = self._engine
        subject = self._numbers[edge.subject(direction)]
        peer = self._numbers[edge.peer(direction)]
        decision = evaluate(engine.table, subject, direction, peer, edge.protocol, edge.port)
        refs = tuple(sorted({ref for number in decision.rules for ref in engine.rules(number)}))
        if decision.outcome is Outcome.DEFAULT_DENIED:
            closing = (p.ref for p in engine.policies_selecting(subject) if direction in p.default_deny)
            return Half(direction, Verdict.REFUSED, tuple(sorted(set(closing))), by_default=True)
        if decision.outcome is Outcome.DENIED:
            return Half(direction, Verdict.REFUSED, refs)
        above = engine.rule_sets[decision.listener] if decision.listener else None
        if above is None or above.audit:
            return Half(direction, Verdict.PASSES, refs)
        found = requests.passes(above.rules, edge.request) if edge.request else None
        verdict = {True: Verdict.PASSES, False: Verdict.REFUSED, None: Verdict.DEPENDS}[found]
        return Half(direction, verdict, refs)

    # ---- who is who --------------------------------------------------------------------------------

    def _introduce(self, party: Party, world: World) -> None:
        if party in self._numbers:
            return
        match party.whereabouts:
            case Whereabouts.NODE:
                known = [_ROLES[name] for name in party.reserved if name in _ROLES]
                # An API server is one that is a remote node as well.
                self._numbers[party] = max(known, default=Reserved.UNMANAGED)
            case Whereabouts.OUTSIDE:
                self._numbers[party] = FIRST_NODE_LOCAL + len(self._outside)
                self._outside.add(party)
                self._put_outside(party)
            case Whereabouts.POD:
                number = self._numbers[party] = FIRST_CLUSTER + len(self._numbers)
                self._engine.upsert_identity(number, Labels.parse(party.labels))
                self._engine.set_named_ports(number, world.named_ports.get(party.labels, {}))
                self._engine.set_audited(number, party.labels in world.audited)
                self._engine.add_subject(number)

    def _put_outside(self, party: Party) -> None:
        labels = {
            Label(NAME, match.text)
            for name in self._names.get(party.address, ())
            for match in self._index.matching(name)
        }
        self._engine.upsert_cidr_identity(self._numbers[party], ip_network(party.address), labels)


def _by_address(names: Mapping[tuple[Party, str], Iterable[str]]) -> dict[str, set[str]]:
    """As nodes keep them: what one workload was told of an address holds for all of the node."""
    found: dict[str, set[str]] = {}
    for (_, address), told in names.items():
        found.setdefault(address, set()).update(told)
    return found


def _name_matches(policies: Iterable[Policy]) -> Iterable[NameMatch]:
    return (
        peer.match
        for policy in policies
        for rule in policy.rules
        for peer in rule.peers
        if isinstance(peer, NamePeer)
    )
