"""The control loop's heart: what has been heard goes into the compilers, differences go to the kernel.

Everything that arrives (policies, identities, endpoints, nodes) is told to a `Control`, which only notes
it; `settle` then brings the kernel up to date. The order in which it writes makes sure that no packet
meets an identity whose policy is not there yet:

    identities for the prefixes, DNS names and nodes that policies name
    -> policy entries of new identities    -> addresses that carry them
    -> the new policies                    -> addresses and identities that nobody needs any more
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from ipaddress import ip_address
from sys import intern
from typing import Any, NamedTuple
from typing import Protocol as Interface

from axoneme.agent.capacity import Need, Room
from axoneme.agent.localidentities import IdentityJournal
from axoneme.agent.outside import Outside
from axoneme.datapath.bpf import BpfError, MapFull
from axoneme.datapath.plane import Datapath, packed
from axoneme.identity import arrays
from axoneme.identity.addressbook import (
    HEALTH,
    HOST,
    UNMANAGED,
    AddressBook,
    Flag,
    Record,
    Source,
)
from axoneme.identity.names import NameCache
from axoneme.identity.prefixes import Prefix, is_address, parse_address, parse_prefix
from axoneme.model.labels import NODE, RESERVED, Label, Labels
from axoneme.model.policy import CIDRGroup, Direction, Policy, PolicyRef, Protocol
from axoneme.model.state import EndpointState, NodeState
from axoneme.model.wishes import KIND as WATCHING
from axoneme.policy.arrays import entry_arrays, key_array, read_arrays
from axoneme.policy.engine import PolicyEngine, PolicyKey
from axoneme.policy.identities import HOST_TRIED
from axoneme.policy.listenerports import ListenerPorts, Moves, NoPort
from axoneme.policy.peers import Service
from axoneme.policy.rulenumbers import RuleNumbers
from axoneme.policy.rulesets import RuleSet
from axoneme.policy.table import Key, TableDiff, difference


class Journal(IdentityJournal, Interface):
    """Writes down what numbers in flows mean, before they get into the kernel."""

    def rules(self, rules: Mapping[int, Sequence[PolicyRef]]) -> None: ...

    def default(self, subject: int, direction: Direction, rule: int) -> None:
        """The number for the policies by which what no rule allows is denied; 0 for none."""


class ProxyPorts(Interface):
    """Has listeners made for rule sets: see `axoneme.policy.listenerports`."""

    def use(self, wanted: Mapping[int, RuleSet], moves: Moves) -> None: ...

    def keep(self, wanted: Mapping[int, RuleSet]) -> None: ...

    @property
    def ports(self) -> Mapping[int, int]: ...

    @property
    def numbers(self) -> Mapping[int, int]: ...

    @property
    def waiting(self) -> bool:
        """Whether listeners that are asked for are about to come."""


class Versions(Interface):
    """Told what became of versions of policies, by their objects' keys in the shared state."""

    def accepted(self, key: str) -> None: ...

    def refused(self, key: str) -> None: ...


#: Seconds between two looks whether entries still wait.
_POLL = 0.005

#: By object: its policies before, and those that it is to have.
_Changes = dict[PolicyKey, tuple[Sequence[Policy], Sequence[Policy]]]


class _Place(NamedTuple):
    """Where an endpoint is, and who: of the many that are elsewhere no more is kept than is needed."""

    node: str
    identity: int
    addresses: tuple[Prefix, ...]


class Counts(NamedTuple):
    """How many of each the node has heard of; addresses as they stand in the kernel."""

    nodes: int
    identities: int
    addresses: int


class Control:
    """One node's tables. ``node`` is its name; ``underlay_version`` the family of the overlay's outside."""

    def __init__(
        self,
        node: str,
        engine: PolicyEngine,
        plane: Datapath,
        journal: Journal,
        underlay_version: int = 4,
        limits: Mapping[str, int] | None = None,
        versions: Versions | None = None,
        names: NameCache | None = None,
        proxies: ProxyPorts | None = None,
        tell: Callable[[PolicyKey, int], None] = lambda _key, _policies: None,
    ) -> None:
        """``limits``: how many entries tables may grow to. ``names``: what is known of DNS names.
        ``proxies``: who gives listeners their ports; nobody makes them where it is absent. ``tell``: is told
        of each object whose policies have come into force, and how many these are; 0: it is gone."""
        self.engine = engine
        self.book = AddressBook()
        self._node = node
        self._plane = plane
        self._journal = journal
        self._underlay_version = underlay_version
        self._versions = versions
        self._tell = tell
        self._proxies: ProxyPorts = ListenerPorts(11000, 19999) if proxies is None else proxies
        #: What is written when the listeners that it names are ready, or have taken too long.
        self._held: TableDiff | None = None
        self._room = Room(plane, limits or {})
        #: Of policies that have changed since the last `settle`: what they were, and what they are to be.
        self._changed: _Changes = {}
        self._in_force: dict[PolicyKey, Sequence[Policy]] = {}
        self._refused: dict[PolicyKey, tuple[Sequence[Policy], str]] = {}
        #: By name, the address of the underlay at which the overlay reaches it; empty: at none.
        self._nodes: dict[str, bytes] = {}
        self._node_addresses: dict[str, tuple[Prefix, ...]] = {}
        self._endpoints: dict[str, _Place] = {}
        self._on_node: dict[str, list[str]] = {}
        self._identity_users: Counter[int] = Counter()
        self._known: dict[int, Labels] = {}
        #: Numbers that stand in the shared state.
        self._published: set[int] = set()
        self._subjects: dict[int, set[str]] = {}
        self._ports: dict[int, dict[str, tuple[tuple[str, Protocol, int], ...]]] = {}
        self._retired_identities: set[int] = set()
        self._watched: set[PolicyKey] = set()
        self._own_labels: tuple[Label, ...] = ()
        self._host_subjects: set[int] = set()
        self._defaults = RuleNumbers()
        self._default_rules: dict[tuple[int, Direction], tuple[PolicyRef, ...]] = {}
        self._defaults_stale = False
        #: Of these, by which nothing is denied: the policies are only tried.
        self._tried: set[tuple[int, Direction]] = set()
        #: When the first was heard of the policies that are not in force yet (monotonic), and how many.
        self._heard: tuple[float, int] | None = None
        #: Told how many changes of policies have come into force, and in how many seconds; and, of the
        #: others, that one was refused.
        self.on_implemented: Callable[[int, float], None] = lambda *_: None
        self.on_refused: Callable[[], None] = lambda: None
        #: Whether a write has failed, so that the kernel lacks something until `reconcile`.
        self.broken = False
        #: Writes to kernel tables since the start, by table.
        self.writes = {"policies": 0, "addresses": 0}
        held = self._held_addresses()
        self.outside = Outside(
            engine,
            self.book,
            journal,
            self._room,
            NameCache() if names is None else names,
            held,
            self._say_node,
        )
        self.book.adopt(held)

    # ---- what is heard -------------------------------------------------------------------------

    def policy_was(self, key: PolicyKey, policies: Sequence[Policy]) -> None:
        """Before `start`: what was in force under an earlier agent, unlike the version that is told next."""
        self._in_force[key] = policies

    def policy_changed(self, key: PolicyKey, policies: Sequence[Policy]) -> None:
        """The policies of an object; none: it is gone. ValueError when they name what does not exist."""
        self.engine.upsert_policy(key, policies)
        self._changed.setdefault(key, (self._in_force.get(key, ()), ()))
        self._changed[key] = (self._changed[key][0], policies)
        self._refused.pop(key, None)
        self._defaults_stale = True
        since, count = self._heard or (time.monotonic(), 0)
        self._heard = since, count + 1

    def watched(self, key: PolicyKey, policies: Sequence[Policy]) -> None:
        """Rules of no object: what is only looked at for an identity; none: nothing any more."""
        if policies or key in self._watched:
            heard = self._heard
            self.policy_changed(key, policies)
            self._heard = heard  # nobody's policy has changed
            (self._watched.add if policies else self._watched.discard)(key)

    @property
    def policies(self) -> int:
        """How many objects with policies there are."""
        return self.engine.policies - len(self._watched)

    @property
    def refused(self) -> dict[str, str]:
        """Policies that do not fit the tables, by their objects' keys in the shared state, and why. What they
        were before is in force."""
        return {_object_key(key): why for key, (_, why) in self._refused.items()}

    @property
    def conflicts(self) -> dict[str, str]:
        """Policies that cannot hold together where they meet, by their objects' keys, and what becomes of
        that."""
        return {
            _object_key(PolicyKey(ref.kind, ref.namespace, ref.name)): _conflict(refs)
            for refs in self.engine.conflicts()
            for ref in refs
        }

    def node_changed(self, name: str, state: NodeState | None) -> None:
        """A node says where it is, or is gone (None). ValueError, and no change, for what is no address."""
        addresses: tuple[Prefix, ...] = ()
        health: tuple[Prefix, ...] = ()
        ranges: tuple[Prefix, ...] = ()
        behind, own = b"", name == self._node
        if state is not None:
            addresses = tuple({parse_address(text) for text in (*state.addresses, *state.internal_addresses)})
            ranges = () if own else tuple(map(parse_prefix, state.pod_cidrs))
            health = () if own else tuple(map(parse_address, state.health_addresses))
            behind = self._underlay(state)
            self._nodes[name] = behind
        else:
            self._nodes.pop(name, None)
        self._node_addresses[name] = addresses
        self._say_node(name)
        self.book.say(Source.HEALTH, name, health if behind else (), Record(HEALTH, behind))
        self.book.say(Source.RANGE, name, ranges, Record(UNMANAGED, behind, Flag.RANGE))
        self.outside.cluster_ranges(name, tuple(map(parse_prefix, state.pod_cidrs)) if state else ())
        for key in self._on_node.get(name, ()):
            self._say_endpoint(key)

    def node_labels(self, name: str, labels: Mapping[str, str] | None) -> None:
        """Those of a node's object; None: there is none."""
        if name != self._node:
            self.outside.node_labels(name, labels)
        else:
            self._own_labels = tuple(Label(NODE, key, value) for key, value in (labels or {}).items())
            self._say_host()

    def host_subject(self, identity: int, present: bool) -> None:
        """Policies for the node itself act on this identity of it, or do so no longer."""
        if present == (identity in self._host_subjects):
            return
        if present:
            self._host_subjects.add(identity)
            self._say_host()
        else:
            self._host_subjects.discard(identity)
        self.local_subject(identity, "host", present)
        if not present and identity == HOST_TRIED:
            self.engine.remove_identity(identity)

    @property
    def host_labels(self) -> Labels:
        """By which policies select this node."""
        return Labels((*self._own_labels, Label(RESERVED, "host")))

    def _say_host(self) -> None:
        self.engine.upsert_identity(HOST, Labels((*self._own_labels, Label("host", "confirmed"))))
        if HOST_TRIED in self._host_subjects:
            own = (Label(RESERVED, "host"), Label("host", "tried"))
            self.engine.upsert_identity(HOST_TRIED, Labels((*self._own_labels, *own)))

    def _say_node(self, name: str) -> None:
        addresses = self._node_addresses.get(name, ())
        if name == self._node:
            record = Record(HOST, b"", Flag.NODE)
        else:
            record = Record(self.outside.node_identity(name), self._nodes.get(name, b""), Flag.NODE)
        self.book.say(Source.NODE, name, addresses, record)

    def _underlay(self, state: NodeState) -> bytes:
        """Where a node is reached; nothing when it has no address of the overlay's family."""
        addresses = map(ip_address, state.internal_addresses)
        return next((packed(each) for each in addresses if each.version == self._underlay_version), b"")

    def endpoint_changed(self, key: str, state: EndpointState | None) -> None:
        """A pod of any node, or it is gone (None). ValueError, and no change, for what is no address."""
        after = None
        ports: tuple[tuple[str, Protocol, int], ...] = ()
        if state is not None:
            addresses = tuple(map(parse_address, state.addresses))
            after = _Place(intern(state.node), state.identity, addresses)
            ports = tuple((p.name, Protocol[p.protocol], p.port) for p in state.named_ports)
        before = self._endpoints.get(key)
        if before is not None and (after is None or after.node != before.node):
            self._on_node[before.node].remove(key)
        if after is not None:
            if before is None or after.node != before.node:
                self._on_node.setdefault(after.node, []).append(key)
            self._endpoints[key] = after
        else:
            self._endpoints.pop(key, None)
        self._use_identity(before, after, tuple(state.labels) if state else ())
        self._name_ports(key, state.identity if state else None, ports)
        self._say_endpoint(key)

    def _say_endpoint(self, key: str) -> None:
        """Pods of this node are in another table; those of a node that is nowhere yet have to wait."""
        place = self._endpoints.get(key)
        if place is not None and place.node != self._node and (behind := self._nodes.get(place.node)):
            self.book.say(Source.POD, key, place.addresses, Record(place.identity, behind))
        else:
            self.book.silence(Source.POD, key)

    def local_subject(self, identity: int, key: str, present: bool) -> None:
        """The endpoint ``key`` of this node has this identity, or has it no longer."""
        users = self._subjects.setdefault(identity, set())
        if present:
            users.add(key)
            self.engine.add_subject(identity)
        else:
            users.discard(key)
        if not users:
            del self._subjects[identity]
            self.engine.remove_subject(identity)
        self._defaults_stale = True

    def identity_known(self, number: int, labels: Labels) -> None:
        """The shared state says what a number stands for."""
        self._published.add(number)
        self._learn(number, labels)

    def identity_gone(self, number: int) -> None:
        """The shared state has the number no more; whoever still uses it keeps it known."""
        self._published.discard(number)
        self._retire_unused(number)

    def _learn(self, number: int, labels: Labels) -> None:
        self._retired_identities.discard(number)
        if self._known.get(number) != labels:
            self._known[number] = labels
            self.engine.upsert_identity(number, labels)

    def _retire_unused(self, number: int) -> None:
        used = number in self._published or number in self._identity_users
        if not used and self._known.pop(number, None) is not None:
            self._retired_identities.add(number)

    def _use_identity(self, before: _Place | None, after: _Place | None, labels: tuple[str, ...]) -> None:
        if before is not None and after is not None and before.identity == after.identity:
            return
        if after is not None:
            self._identity_users[after.identity] += 1
            self._learn(after.identity, _labels(labels))
        if before is not None:
            self._identity_users[before.identity] -= 1
            if not self._identity_users[before.identity]:
                del self._identity_users[before.identity]
                self._retire_unused(before.identity)

    def _name_ports(self, key: str, number: int | None, ports: tuple[tuple[str, Protocol, int], ...]) -> None:
        touched = {n for n, by_key in self._ports.items() if key in by_key}
        for n in touched - {number}:
            del self._ports[n][key]
        if number is not None and (ports or key in self._ports.get(number, {})):
            self._ports.setdefault(number, {})[key] = ports
            touched.add(number)
        for n in touched:
            merged: dict[tuple[str, Protocol], frozenset[int]] = {}
            for name, protocol, port in (p for items in self._ports[n].values() for p in items):
                merged[name, protocol] = merged.get((name, protocol), frozenset()) | {port}
            self.engine.set_named_ports(n, merged)
            if not self._ports[n]:
                del self._ports[n]

    @property
    def identities(self) -> Mapping[int, Labels]:
        """The identities of the cluster that were heard of, and those of what is outside and of nodes."""
        return {**self._known, **self.outside.identities}

    def closed(self, subject: int) -> tuple[frozenset[Direction], frozenset[Direction]]:
        """In which directions policies deny what none allows; and in which they are only tried."""
        found = {direction for direction in Direction if (subject, direction) in self._default_rules}
        tried = frozenset(direction for direction in found if (subject, direction) in self._tried)
        return frozenset(found - tried), tried

    def nodes(self) -> Iterable[tuple[str, bytes]]:
        """Names, and the addresses (16 bytes; none: empty) behind which their pods are in `addresses`."""
        return self._nodes.items()

    def node_at(self, address: bytes) -> str | None:
        """The node whose pods are behind it."""
        return next((name for name, behind in self._nodes.items() if behind == address), None)

    def is_on(self, identity: int, address: bytes) -> bool:
        """Whether a pod of the identity is behind a node's address."""
        keys = self._on_node.get(self.node_at(address) or "", ())
        return any(self._endpoints[key].identity == identity for key in keys)

    @property
    def counts(self) -> Counts:
        return Counts(len(self._nodes), len(self._known) + len(self.outside), len(self.book))

    # ---- to the kernel -------------------------------------------------------------------------

    @property
    def holds(self) -> bool:
        """Whether entries wait for listeners."""
        return self._held is not None

    async def released(self) -> None:
        """Returns when none wait any more: after some tenths of a second, or as long as a proxy may start."""
        while self.holds:
            await asyncio.sleep(_POLL)

    def settle(self, hold: bool = False) -> int:
        """Brings the kernel up to date with all that was heard; how many entries were written.

        With ``hold`` new policies may wait for their proxies (`holds`), until the next `settle` without.
        BpfError when the kernel refuses; then only `reconcile` makes it whole again.
        """
        if hold and self.holds:
            return 0
        before = sum(self.writes.values())
        self.broken, broken = True, self.broken
        if (held := self._held) is not None:
            self._held = None
            self._write(held)
        self._adopt_policies(hold)
        if not self.holds:
            self._clear_away()
        self._note_defaults()
        self.broken = broken
        if self._heard and not self.holds:
            (since, count), self._heard = self._heard, None
            self.on_implemented(count, time.monotonic() - since)
        return sum(self.writes.values()) - before

    def _clear_away(self) -> None:
        """What nobody needs any more, now that the policies that needed it are not in force."""
        withdrawn = self.outside.withdraw()
        if withdrawn or self._retired_identities:
            self._write(self.engine.prepare())
            self._write_addresses()
            for number in (*self.outside.release(), *self._retired_identities):
                self.engine.remove_identity(number)
            self._retired_identities.clear()
            self._write(self.engine.changes())
        self._proxies.keep(self.engine.rule_sets)

    def _adopt_policies(self, hold: bool = False) -> None:
        """Puts in force what is told, as far as the tables have room for it."""
        changed, self._changed = self._changed, {}
        try:
            self.outside.introduce()
            self._write(self.engine.prepare())
            self._write_addresses()
            diff = self.engine.changes()
            self._listen(diff)
            if hold and diff and self._proxies.waiting:
                self._room.make([key for key, value in diff.writes() if value is not None])
                self._held = diff
            else:
                self._write(diff)
        except MapFull:
            if not changed:
                raise
            self._select(changed)
            self._mend_policies()
            self._write_addresses()
        except BpfError:
            self._changed = changed
            raise
        else:
            self._accept(changed)
        if self._refused and not self.holds and any(not policies for _, policies in changed.values()):
            self._try_refused()
            self._adopt_policies()

    def _try_refused(self) -> None:
        """Perhaps they fit now."""
        for key, (policies, _) in list(self._refused.items()):
            self.policy_changed(key, policies)

    def _select(self, changed: _Changes) -> None:
        """Of policies that do not fit together those that do, one after the other; the others stay as they
        were. The kernel is not touched."""
        for key, (former, _) in changed.items():
            self.engine.upsert_policy(key, former)
        for key, (former, policies) in changed.items():
            self.engine.upsert_policy(key, policies)
            try:
                self._compile()
            except MapFull as error:
                self.engine.upsert_policy(key, former)
                self._refused[key] = policies, f"refused, what was before stays in force: {error.strerror}"
                self.on_refused()
                if self._versions:
                    self._versions.refused(_object_key(key))
            else:
                self._accept({key: (former, policies)})
        self._compile()

    def _accept(self, changed: _Changes) -> None:
        for key, (former, policies) in changed.items():
            self._in_force[key] = policies
            if not policies:
                del self._in_force[key]
            if key.kind != WATCHING and former != policies:  # the former is no object's
                self._tell(key, len(policies))
            if self._versions:
                self._versions.accepted(_object_key(key))

    def _compile(self) -> None:
        """All that has been told, in memory. `MapFull` when it is too much."""
        self.outside.introduce()
        diff = self.engine.changes()
        self._journal.rules(diff.rules)
        self._listen(diff)
        self._room.make(self.engine.table)

    def start(self) -> int:
        """The first `settle`, once everything that the store holds has been heard.

        Writes the difference to what an earlier agent left, so that what is right stays untouched.
        """
        before = sum(self.writes.values())
        changed, self._changed = self._changed, {}
        try:
            self._compile()
        except MapFull:
            self._select(changed)
        else:
            self._accept(changed)
        self._mend_policies()
        self._try_refused()  # what an earlier agent had left is gone now
        self.settle()
        self.outside.started()
        return sum(self.writes.values()) - before

    def reconcile(self) -> int:
        """Compares the kernel's tables with what they should be and mends them; how many entries."""
        before = sum(self.writes.values())
        # What these changes are is part of the whole that is compared now.
        self._held = None
        diff = self.engine.changes()
        self._journal.rules(diff.rules)
        self._listen(diff)
        self.book.adopt(self._held_addresses())
        self._mend_policies()
        self.settle()
        self.broken = False
        return sum(self.writes.values()) - before

    def tried(
        self, policies: Mapping[PolicyKey, Sequence[Policy]], things: Iterable[Service | CIDRGroup] = ()
    ) -> list[Need]:
        """What tables would need with these in place of what they say now; nothing changes. They are compiled
        there and back, which takes twice as long as to apply them. Not while entries wait (`released`).

        ValueError when they name what does not exist.
        """
        self.settle(hold=True)
        known = self.engine.conflicts()
        with self.engine.tried(policies, things), self.outside.tried() as addresses:
            self.engine.changes()
            return [
                *(Need("policies", 0, 0, _conflict(refs)) for refs in self.engine.conflicts() - known),
                self._room.need("addresses", self._room.entries("addresses") + addresses),
                self._room.need("policies", self._room.entries_with(self.engine.table)),
            ]

    def _mend_policies(self) -> None:
        diff = difference(self._held_policies(), dict(self.engine.table).items())
        diff.changed = {key.subject for key, _ in diff.writes()}
        self._write(diff)

    def _note_defaults(self) -> None:
        """Which policies deny by default to whom: no entry says it, for it is the lack of one."""
        if not self._defaults_stale:
            return
        self._defaults_stale = False
        wanted: dict[tuple[int, Direction], tuple[PolicyRef, ...]] = {}
        self._tried.clear()
        for subject in self._subjects:
            policies = self.engine.policies_selecting(subject)
            for direction in Direction:
                closing = [policy for policy in policies if direction in policy.default_deny]
                in_force = [policy for policy in closing if not policy.audit]
                if refs := tuple(policy.ref for policy in in_force or closing):
                    wanted[subject, direction] = refs
                    if not in_force:
                        self._tried.add((subject, direction))
        before, self._default_rules = self._default_rules, wanted
        for place, refs in wanted.items():
            if refs != before.get(place):
                number = self._defaults.acquire(refs)
                self._journal.rules({number: refs})
                self._journal.default(*place, number)
        for place, refs in before.items():
            if refs != wanted.get(place):
                self._defaults.release(refs)
                if place not in wanted:
                    self._journal.default(*place, 0)

    def _write(self, diff: TableDiff) -> None:
        if diff.rules:
            self._journal.rules(diff.rules)
        self._listen(diff)
        self._room.make([key for key, value in diff.writes() if value is not None])
        table = self._plane.policies
        for puts, deletes in (
            (diff.put_first, []),
            (diff.put, diff.delete),
            (diff.put_last, diff.delete_last),
        ):
            if puts:
                table.write(*entry_arrays(puts, table.key, table.value, self._proxies.ports))
            if deletes:
                table.delete(key_array(deletes, table.key))
        self.writes["policies"] += len(diff)
        if diff.changed:
            self._plane.raise_subjects(diff.changed)

    def _listen(self, diff: TableDiff) -> None:
        """Has listeners for all that entries are going to name. `MapFull` when they are too many."""
        try:
            self._proxies.use(self.engine.rule_sets, diff.moves)
        except NoPort as error:
            raise MapFull(errno.E2BIG, str(error)) from error

    def _write_addresses(self) -> None:
        puts, deletes = self.book.changes()
        table = self._plane.addresses
        if puts:
            table.write(*arrays.entry_arrays(puts, table.key, table.value))
        if deletes:
            table.delete(arrays.key_array(deletes, table.key))
        self.writes["addresses"] += len(puts) + len(deletes)
        touched = [*puts, *deletes]
        if all(map(is_address, touched)):
            self._plane.raise_addresses(prefix[:16] for prefix in touched)
        else:
            self._plane.raise_all()

    # ---- what the kernel holds -----------------------------------------------------------------

    def _held_addresses(self) -> dict[Prefix, Record]:
        return arrays.read_arrays(*self._plane.addresses.adopt())

    def _held_policies(self) -> dict[Key, Any]:
        keys, values = self._plane.policies.adopt()
        return read_arrays(keys, values, self._proxies.numbers)


def _conflict(refs: Sequence[PolicyRef]) -> str:
    return (
        f"{' and '.join(map(str, refs))} want different proxies, or TLS opened in different ways, for the "
        "same traffic, which is denied; give them other ports or other peers"
    )


def _object_key(key: PolicyKey) -> str:
    return f"objects/{key.kind}/{key.namespace or '_'}/{key.name}"


@lru_cache(maxsize=4096)
def _labels(texts: tuple[str, ...]) -> Labels:
    """The pods of an identity say the same."""
    return Labels.parse(texts)
