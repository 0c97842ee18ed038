"""The policy compiler: policies and identities come in as events, differences of the table go out.

    policies ──> subjects they select ──┐
    identities ──> peer sets they join ─┴─> dirty cells ──> flattened ──> TableDiff

Events only mark what they touch; `PolicyEngine.changes` works the dirty cells out anew and says what
differs from what was said before. The outcome is a function of what has been put in, not of the
order: an engine fed event by event has the table of one fed at once.

**What the agent does with a batch of events.** Policies, services and CIDR groups wait until
`changes`; `needed_prefixes` counts them at once. That leaves room to split prefixes off before they
mean anything, so that no packet meets an identity whose entries are not there yet:

1. give an identity to each needed prefix that has none (`upsert_cidr_identity`);
2. write what `prepare` says: new identities get the entries of the policies in force, by which they
   are as good as those that their addresses had before; then point the addresses at them;
3. write what `changes` says: now the new policies are in force;
4. point the addresses of prefixes that are not needed any more elsewhere, then `remove_identity`
   and once more `changes`: their entries go when nobody has them any longer.

To write means: register ``rules``, write the four phases in order, raise the epochs of ``changed``.
An identity of the cluster is treated alike: its entries before its addresses, and the other way round
when it goes.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import TypeVar

from axoneme.model.l7 import NameMatch
from axoneme.model.labels import RESERVED, Label, Labels
from axoneme.model.policy import (
    Authentication,
    CIDRGroup,
    Direction,
    Enforcement,
    EntityPeer,
    Network,
    Policy,
)
from axoneme.policy import identities
from axoneme.policy.cells import EMPTY, CellCompiler, Compiled
from axoneme.policy.grants import Grant
from axoneme.policy.identities import Identity, NamedPorts, Span
from axoneme.policy.loaded import LoadedPolicy
from axoneme.policy.needs import LabelNeeds, PrefixNeeds
from axoneme.policy.peers import AnyKindOfPeer, Catalog, Match, Service
from axoneme.policy.peersets import PeerSets
from axoneme.policy.ports import Prefix, wider
from axoneme.policy.rulenumbers import Refs, RuleNumbers
from axoneme.policy.rulesets import NO_LISTENER, RuleSet
from axoneme.policy.sides import CompiledTable, Side
from axoneme.policy.subjects import Subjects
from axoneme.policy.table import (
    EVERY_PEER,
    CellChange,
    TableDiff,
    cell_change,
    every_cell_change,
    longest,
    own_cell_change,
)

_K = TypeVar("_K")
_V = TypeVar("_V")


@dataclass(frozen=True, slots=True)
class PolicyKey:
    """Which object a policy stands in; ``namespace`` is empty for cluster-wide kinds."""

    kind: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Options:
    """What holds for a node as long as its agent runs.

    ``cluster`` is the local cluster's name. ``host_reaches_pods`` lets the node into its own pods
    (health probes) unless a deny forbids it. ``cidr_matches_nodes`` lets CIDR peers select nodes too.
    """

    ipv4: bool = True
    ipv6: bool = True
    cluster: str = "default"
    host_reaches_pods: bool = True
    cidr_matches_nodes: bool = False


class PolicyEngine:
    """All policy of one node. In memory, no I/O, not thread-safe.

    ``rule_bits`` narrows rule numbers, for tests of what happens when they meet.
    """

    def __init__(
        self,
        options: Options = Options(),
        enforcement: Enforcement = Enforcement.DEFAULT,
        *,
        rule_bits: int = 32,
    ) -> None:
        self.options = options
        versions = frozenset(v for v, on in ((4, options.ipv4), (6, options.ipv6)) if on)
        # As told, and as in force. They differ between an event and the next `changes`.
        self._told = Catalog(options.cluster)
        self._catalog = Catalog(options.cluster)
        self._told_policies: dict[PolicyKey, tuple[Policy, ...]] = {}
        self._policies: dict[PolicyKey, list[LoadedPolicy]] = {}
        self._waiting_policies: dict[PolicyKey, None] = {}
        self._waiting_services: dict[tuple[str, str], None] = {}
        self._waiting_groups: dict[str, None] = {}
        self._needs = PrefixNeeds(self._told, versions)
        self._label_needs = LabelNeeds()
        self._peer_sets = PeerSets(self._catalog)
        self._subjects = Subjects(self._peer_sets, self._catalog, enforcement, options.host_reaches_pods)
        self._cells = CellCompiler(RuleNumbers(rule_bits))
        self._named_ports: dict[int, NamedPorts] = {}
        self._authenticating: set[PolicyKey] = set()
        self._builtin = {i.number: i for i in identities.reserved(options.ipv4, options.ipv6)}
        #: Since the last `changes`: identities and subjects that were not there before it, and
        #: identities that were.
        self._new_identities: set[int] = set()
        self._gone_identities: set[int] = set()
        self._new_subjects: set[int] = set()
        for identity in self._builtin.values():
            self._put_identity(identity)

    # ---- events: policies, and what they refer to ----------------------------------------------

    def upsert_policy(self, key: PolicyKey, policies: Sequence[Policy]) -> None:
        """Puts the policies of an object in place of those that it had.

        Raises ValueError if one names an entity that does not exist; then nothing has changed.
        """
        for policy in policies:
            self._check(policy)
        former = self._told_policies.pop(key, ())
        if policies:
            self._told_policies[key] = tuple(policies)
        for policy in policies:
            self._needs.add(policy)
        for policy in former:
            self._needs.remove(policy)
        self._label_needs.exchange(former, policies)
        if any(
            rule.authentication is Authentication.REQUIRED for policy in policies for rule in policy.rules
        ):
            self._authenticating.add(key)
        else:
            self._authenticating.discard(key)
        self._waiting_policies[key] = None

    def remove_policy(self, key: PolicyKey) -> None:
        self.upsert_policy(key, ())

    def upsert_service(self, service: Service) -> None:
        if service.selector and service.addresses:
            service = replace(service, addresses=frozenset())  # they mean nothing then, and change often
        self._tell_service((service.namespace, service.name), service)

    def remove_service(self, namespace: str, name: str) -> None:
        self._tell_service((namespace, name), None)

    def upsert_cidr_group(self, group: CIDRGroup) -> None:
        self._tell_group(group.name, group)

    def remove_cidr_group(self, name: str) -> None:
        self._tell_group(name, None)

    def _tell_service(self, key: tuple[str, str], service: Service | None) -> None:
        before = _replace(self._told.services, key, service)
        if before != service:
            self._needs.catalog_changed([item for item in (before, service) if item])
            self._waiting_services[key] = None

    def _tell_group(self, name: str, group: CIDRGroup | None) -> None:
        before = _replace(self._told.groups, name, group)
        if before != group:
            self._needs.catalog_changed([item for item in (before, group) if item])
            self._waiting_groups[name] = None

    def _check(self, policy: Policy) -> None:
        for rule in policy.rules:
            for peer in rule.peers:
                if isinstance(peer, EntityPeer):
                    try:
                        self._told.resolve(peer)
                    except ValueError as error:
                        raise ValueError(f"{policy.ref}: {rule.path}: {error}") from None

    def _adopt(self) -> None:
        """Puts in force what waits."""
        things: list[Service | CIDRGroup | None] = []
        for key in self._waiting_services:
            service = self._told.services.get(key)
            things += service, _replace(self._catalog.services, key, service)
        for name in self._waiting_groups:
            group = self._told.groups.get(name)
            things += group, _replace(self._catalog.groups, name, group)
        self._peer_sets.catalog_changed([thing for thing in things if thing])
        for policy_key in self._waiting_policies:
            self._load(policy_key, self._told_policies.get(policy_key, ()))
        self._waiting_policies, self._waiting_services, self._waiting_groups = {}, {}, {}

    def _load(self, key: PolicyKey, policies: Sequence[Policy]) -> None:
        loaded: list[LoadedPolicy] = []
        for former, policy in zip_longest(self._policies.get(key, ()), policies):
            if former is not None and former.policy == policy:
                loaded.append(former)
            elif policy is None:
                self._subjects.exchange(former, None)
            else:
                loaded.append(LoadedPolicy(policy))
                self._subjects.exchange(former, loaded[-1])
        if loaded:
            self._policies[key] = loaded
        else:
            self._policies.pop(key, None)

    @contextmanager
    def tried(
        self, policies: Mapping[PolicyKey, Sequence[Policy]], things: Iterable[Service | CIDRGroup] = ()
    ) -> Iterator[None]:
        """Told these, for as long as the context lasts, in place of what it has been told.

        Nothing may wait for `changes` when it begins. Nothing does when it has ended, and then the table is
        what it was. ValueError as from `upsert_policy`.
        """
        former = {key: self._told_policies.get(key, ()) for key in policies}
        services, groups = dict(self._told.services), dict(self._told.groups)
        things = tuple(things)
        try:
            for thing in things:
                if isinstance(thing, Service):
                    self.upsert_service(thing)
                else:
                    self.upsert_cidr_group(thing)
            for key, wanted in policies.items():
                self.upsert_policy(key, wanted)
            yield
        finally:
            for key, was in former.items():
                self.upsert_policy(key, was)
            for thing in things:
                if isinstance(thing, Service):
                    self._tell_service(at := (thing.namespace, thing.name), services.get(at))
                else:
                    self._tell_group(thing.name, groups.get(thing.name))
            self.changes()

    # ---- events: identities --------------------------------------------------------------------

    def upsert_identity(self, number: int, labels: Labels, addresses: Iterable[Network] = ()) -> None:
        """An identity of the cluster. ``addresses`` are a node's, for `Options.cidr_matches_nodes`.

        Labels given for a reserved number add to those that it always has.
        """
        builtin = self._builtin.get(number)
        spans = builtin.spans if builtin else ()
        if builtin:
            labels = Labels((*builtin.labels, *labels))
        if self.options.cidr_matches_nodes and _is_node(labels):
            spans = (*spans, *sorted(map(Span.of, addresses)))
        self._put_identity(Identity(number, labels, spans))

    def upsert_cidr_identity(self, number: int, network: Network, labels: Iterable[Label] = ()) -> None:
        """The identity of a prefix outside the cluster; ``labels`` besides those of every such one."""
        self._put_identity(identities.outside(number, network, labels))

    def remove_identity(self, number: int) -> None:
        """Forgets an identity of either kind; a reserved one gets back the labels of its own."""
        if builtin := self._builtin.get(number):
            self._put_identity(builtin)
        elif number in self._peer_sets.identities:
            self._peer_sets.remove_identity(number)
            if number in self._new_identities:
                self._new_identities.discard(number)
            else:
                self._gone_identities.add(number)
            self._refresh(number)

    def set_named_ports(self, number: int, ports: NamedPorts) -> None:
        """What the endpoints of an identity call their ports; empty: nothing (any more)."""
        ports = {name: frozenset(values) for name, values in ports.items() if values}
        if ports == self._named_ports.get(number, {}):
            return
        if ports:
            self._named_ports[number] = ports
        else:
            del self._named_ports[number]
        if identity := self._peer_sets.identities.get(number):
            self._put_identity(identity)
        for peers in self._peer_sets.containing(number):
            peers.touch(number)
        if sides := self._subjects.sides.get(number):
            sides[Direction.INGRESS].touch_named_ports()

    def _put_identity(self, identity: Identity) -> None:
        number = identity.number
        known = self._peer_sets.identities.get(number)
        ports = self._named_ports.get(number)
        identity = Identity(number, identity.labels, identity.spans, ports)
        if identity == known:
            return
        if known is None and number not in self._gone_identities:
            self._new_identities.add(number)
        self._gone_identities.discard(number)
        self._peer_sets.put_identity(identity)
        self._refresh(number)

    def _refresh(self, number: int) -> None:
        if number in self._subjects:
            self._subjects.refresh(number)

    # ---- events: this node ---------------------------------------------------------------------

    def add_subject(self, number: int) -> None:
        """From now on some endpoint with this identity is on this node.

        It has no entries, so nothing may pass, until its identity is known too.
        """
        if number not in self._subjects and self._subjects.add(number):
            self._new_subjects.add(number)

    def remove_subject(self, number: int) -> None:
        if number in self._subjects:
            self._subjects.remove(number)

    def set_audited(self, number: int, audited: bool) -> None:
        """Whether policies are only tried on a subject: what they deny passes, and is said to."""
        self._subjects.set_audited(number, audited)

    def set_enforcement(self, enforcement: Enforcement) -> None:
        self._subjects.set_enforcement(enforcement)

    # ---- outcome -------------------------------------------------------------------------------

    def needed_prefixes(self) -> frozenset[Network]:
        """The prefixes that need a CIDR identity, by all that has been told.

        The same object until the answer changes.
        """
        return self._needs()

    def needs_prefix(self, prefix: Network) -> bool:
        """Whether it is among `needed_prefixes`."""
        return prefix in self._needs

    def touched_prefixes(self) -> set[Network]:
        """Those that have become needed since the last call, or are no longer: of thousands, a few."""
        return self._needs.touched()

    def needed_names(self) -> frozenset[NameMatch]:
        """The DNS names that policies select by, by all that has been told.

        The same object until they change.
        """
        return self._label_needs.names

    def needed_node_keys(self) -> frozenset[str]:
        """The same of the keys of nodes' labels."""
        return self._label_needs.node_keys

    def prepare(self) -> TableDiff:
        """What has changed in the table since the last call, under the policies in force.

        Policies, services and CIDR groups that have been told of meanwhile wait for `changes`.
        """
        return self._compile()

    def changes(self) -> TableDiff:
        """What has changed in the table since the last call, all told."""
        self._adopt()
        return self._compile()

    def _compile(self) -> TableDiff:
        before: dict[tuple[Side, int], Compiled] = {}
        complete = {side for sides in self._subjects.sides.values() for side in sides if side.was[0]}
        while dirty := [side for sides in self._subjects.sides.values() for side in sides if side.dirty]:
            for side in dirty:
                for peer in side.touched():
                    cell = self._cell(side, peer)
                    former = side.cells.get(peer, EMPTY)
                    if cell is former:
                        continue
                    before.setdefault((side, peer), former)
                    self._cells.exchange(former, cell)
                    if cell is EMPTY:
                        del side.cells[peer]
                    else:
                        side.cells[peer] = cell
            self._cells.sweep()
            self._renumber()
        diff = TableDiff()
        #: Most cells change as many others do: a policy that comes adds the same to all of its peers.
        alike: dict[tuple[object, ...], CellChange] = {}
        for (side, peer), former in before.items():
            cell = side.cells.get(peer, EMPTY)
            every = side.cells.get(EVERY_PEER, EMPTY) if side in complete or side.complete else None
            as_others = (former, cell, every, side.complete, peer == EVERY_PEER)
            change = alike.get(as_others)
            if change is None:
                change = alike[as_others] = _change(former, cell, every, side.complete, peer)
            if change:
                diff.add(side.subject, side.direction, peer, change)
                if self._disturbs(side, peer, cell):
                    diff.changed.add(side.subject)
        diff.rules, diff.released = self._cells.numbers.publish()
        if gone := self._cells.rule_sets.publish():
            diff.moves = _moves(gone, before)
        for number in [n for n in self._subjects.sides if n not in self._subjects]:
            del self._subjects.sides[number]
        self._new_identities, self._gone_identities, self._new_subjects = set(), set(), set()
        return diff

    def _cell(self, side: Side, peer: int) -> Compiled:
        """The content of a cell as of now."""
        grants = side.applying(self._peer_sets.containing(peer))
        if not grants:
            return EMPTY
        if side.complete and peer != EVERY_PEER:
            grants |= side.applying(self._peer_sets.containing(EVERY_PEER))
        content: Hashable = grants
        extra: dict[Grant, frozenset[Prefix]] = {}
        if any(grant.names for grant in grants):
            owner = self._peer_sets.identities.get(
                side.subject if side.direction is Direction.INGRESS else peer
            )
            extra = {grant: grant.named(owner) for grant in grants}
            content = frozenset(extra.items())
        content = (content, side.complete, side.audited)
        contributions = ((grant.prefixes | extra.get(grant, frozenset()), grant) for grant in grants)
        return self._cells.find(content) or self._cells.compile(
            content, contributions, side.direction, side.complete, side.audited
        )

    def _renumber(self) -> None:
        """Marks the cells that name a rule set which has had to give its number to another."""
        stale = self._cells.stale()
        if stale:
            for sides in self._subjects.sides.values():
                for side in sides:
                    side.dirty.update(peer for peer, cell in side.cells.items() if cell in stale)

    def _disturbs(self, side: Side, peer: int, cell: Compiled) -> bool:
        """Whether a cell that has changed can alter a decision already taken: see `table`."""
        if side.subject in self._new_subjects:
            return False
        return peer not in self._new_identities or cell.restricts

    # ---- questions -----------------------------------------------------------------------------

    @property
    def table(self) -> CompiledTable:
        """The whole table as of the last `changes`: a view."""
        return CompiledTable(self._subjects.sides)

    @property
    def policies(self) -> int:
        """How many objects with policies there are."""
        return len(self._told_policies)

    def identity(self, number: int) -> Identity | None:
        return self._peer_sets.identities.get(number)

    def policies_selecting(self, subject: int) -> list[Policy]:
        """The policies that act on a local subject, in the order of their refs."""
        return sorted(self._subjects.acting(subject), key=lambda policy: policy.ref)

    def enforced(self, subject: int, direction: Direction) -> bool:
        """Whether what no rule allows is dropped."""
        return self._subjects.enforced(subject, direction)

    @property
    def authenticates(self) -> bool:
        """Whether any policy of the cluster asks that pods prove who they are."""
        return bool(self._authenticating)

    def asks_proof(self, subject: int, peer: int) -> bool:
        """Whether something between a local subject and a peer passes only once both have proved who they
        are."""
        return any(
            cell.authenticates
            for side in self._subjects.sides.get(subject, ())
            if (cell := side.cells.get(peer) or side.cells.get(EVERY_PEER))
        )

    def audited(self, subject: int) -> bool:
        """Whether all policies are only tried on a subject."""
        return self._subjects.audited(subject)

    def rules(self, number: int) -> Refs:
        """The rules that a number in use stands for; none for 0."""
        return self._cells.numbers.refs(number)

    @property
    def rule_sets(self) -> Mapping[int, RuleSet]:
        """What listeners in use hold to, by number: a view."""
        return self._cells.rule_sets.held

    def conflicts(self) -> set[Refs]:
        """Rules that meet, and to which no proxy could hold together: nothing passes by them."""
        return self._cells.conflicts()

    def meaning(self, peer: AnyKindOfPeer) -> Match:
        """Whom a peer of a rule means, as of the last `changes`."""
        return self._catalog.resolve(peer)


def _replace(table: dict[_K, _V], key: _K, value: _V | None) -> _V | None:
    """Puts ``value`` (None: nothing) under ``key``; what was there."""
    before = table.pop(key, None)
    if value is not None:
        table[key] = value
    return before


def _change(
    former: Compiled, cell: Compiled, every: Compiled | None, complete: bool, peer: int
) -> CellChange:
    """``every`` is None where a deny wins in either of two cells, before and after: see `table`."""
    if every is None:
        return cell_change(former.entries, cell.entries)
    if peer == EVERY_PEER:
        return every_cell_change(former.entries, cell.entries)
    return own_cell_change(former.entries, cell.entries, every.entries, complete)


def _moves(gone: Set[int], before: Mapping[tuple[Side, int], Compiled]) -> dict[int, set[int]]:
    """To which listeners the packets go that went to those which are ``gone``; ``before``: cells that have
    changed."""
    moves: dict[int, set[int]] = {listener: set() for listener in gone}
    seen: set[tuple[Compiled, Compiled]] = set()
    for (side, peer), former in before.items():
        every = side.cells.get(EVERY_PEER, EMPTY)
        was = before.get((side, EVERY_PEER), every) if former is EMPTY else former
        now = side.cells.get(peer, every)
        if not gone & was.listeners or (was, now) in seen:  # most change as many others do
            continue
        seen.add((was, now))
        for prefix, value in was.entries.items():
            if value.listener in gone:
                within = {v.listener for p, v in now.entries.items() if prefix in wider(p)}
                around = longest(prefix, now.entries)
                moves[value.listener] |= {*within, around.listener if around else NO_LISTENER}
    return moves


def _is_node(labels: Labels) -> bool:
    return any(labels.values(RESERVED, name) for name in ("host", "remote-node"))
