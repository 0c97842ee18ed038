"""The control loop's heart: what has been heard goes into the compilers, differences go to the kernel.

Everything that arrives (policies, identities, endpoints, nodes) is told to a `Control`, which only notes
it; `settle` then brings the kernel up to date. The order in which it writes makes sure that no packet
meets an identity whose policy is not there yet:

    identities for the prefixes that policies name
    -> policy entries of new identities    -> addresses that carry them
    -> the new policies                    -> addresses and identities that nobody needs any more
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

import numpy as np

from axoneme.datapath.plane import Datapath, packed, prefix_bits
from axoneme.identity.addressbook import (
    HOST,
    REMOTE_NODE,
    UNMANAGED,
    Address,
    AddressBook,
    Flag,
    Network,
    Record,
    Source,
)
from axoneme.model.labels import Labels
from axoneme.model.policy import Direction, Protocol
from axoneme.model.state import EndpointState, NodeState
from axoneme.policy.arrays import entry_arrays, key_array, read_arrays
from axoneme.policy.engine import PolicyEngine
from axoneme.policy.table import Entry, Key, TableDiff, difference

FIRST_LOCAL = 1 << 24

#: Writes down what rule numbers mean, for whoever reads flows.
RuleSink = Callable[[Mapping[int, Any]], None]


class Control:
    """One node's tables. ``node`` is its name; ``underlay_version`` the family of the overlay's outside."""

    def __init__(
        self, node: str, engine: PolicyEngine, plane: Datapath, rules: RuleSink, underlay_version: int = 4
    ) -> None:
        self.engine = engine
        self.book = AddressBook()
        self._node = node
        self._plane = plane
        self._rules = rules
        self._underlay_version = underlay_version
        self._prefixes: dict[Network, int] = {}
        self._free: list[int] = []
        self._next_local = FIRST_LOCAL
        self._identity_users: dict[int, set[str]] = {}
        self._endpoint_identity: dict[str, int] = {}
        self._known: dict[int, Labels] = {}
        self._local_identity: dict[int, int] = {}
        self._ports: dict[int, dict[str, tuple[tuple[str, Protocol, int], ...]]] = {}
        self._retired_identities: set[int] = set()
        #: Writes to kernel tables since the start, by table.
        self.writes = {"policies": 0, "addresses": 0}
        self._adopt()

    # ---- what is heard -------------------------------------------------------------------------

    def node_changed(self, name: str, state: NodeState | None) -> None:
        """A node says where it is, or is gone (None)."""
        addresses: list[tuple[Network, Record]] = []
        ranges: list[tuple[Network, Record]] = []
        if state is not None:
            own = name == self._node
            behind = self._underlay(state)
            identity = HOST if own else REMOTE_NODE
            for text in {*state.addresses, *state.internal_addresses}:
                addresses.append((ip_network(text), Record(identity, behind, Flag.NODE)))
            if not own:
                for text in state.pod_cidrs:
                    ranges.append((ip_network(text), Record(UNMANAGED, behind, Flag.RANGE)))
        self.book.say(Source.NODE, name, addresses)
        self.book.say(Source.RANGE, name, ranges)

    def _underlay(self, state: NodeState) -> Address | None:
        for text in state.internal_addresses:
            address = ip_address(text)
            if address.version == self._underlay_version:
                return address
        return None

    def endpoint_changed(self, key: str, state: EndpointState | None, behind: Address | None) -> None:
        """A pod of any node, or it is gone. ``behind``: its node's underlay address, None for this node."""
        self._use_identity(key, state.identity if state else None, state.labels if state else ())
        ports = tuple((p.name, Protocol[p.protocol], p.port) for p in state.named_ports) if state else ()
        self._name_ports(key, state.identity if state else None, ports)
        records: list[tuple[Network, Record]] = []
        if state is not None and state.node != self._node:
            records = [(ip_network(text), Record(state.identity, behind)) for text in state.addresses]
        self.book.say(Source.POD, key, records)

    def local_subject(self, identity: int, present: bool) -> None:
        """An endpoint with this identity came to this node, or one left."""
        count = self._local_identity.get(identity, 0) + (1 if present else -1)
        if count > 0:
            self._local_identity[identity] = count
            self.engine.add_subject(identity)
        else:
            self._local_identity.pop(identity, None)
            self.engine.remove_subject(identity)

    def identity_known(self, number: int, labels: Labels) -> None:
        if self._known.get(number) != labels:
            self._known[number] = labels
            self.engine.upsert_identity(number, labels)

    def identity_gone(self, number: int) -> None:
        if not self._identity_users.get(number) and self._known.pop(number, None) is not None:
            self._retired_identities.add(number)

    def _use_identity(self, key: str, number: int | None, labels: Iterable[str]) -> None:
        before = self._endpoint_identity.pop(key, None)
        if number is not None:
            self._endpoint_identity[key] = number
            self._identity_users.setdefault(number, set()).add(key)
            self._retired_identities.discard(number)
            self.identity_known(number, Labels.parse(labels))
        if before is not None and before != number:
            users = self._identity_users[before]
            users.discard(key)
            if not users:
                del self._identity_users[before]

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

    # ---- to the kernel -------------------------------------------------------------------------

    def settle(self) -> int:
        """Brings the kernel up to date with all that was heard; how many entries were written."""
        before = sum(self.writes.values())
        needed = self.engine.needed_prefixes()
        for prefix in sorted(needed - self._prefixes.keys(), key=str):
            number = self._new_local()
            self._prefixes[prefix] = number
            self.engine.upsert_cidr_identity(number, prefix)
            self.book.say(Source.POLICY, str(prefix), [(prefix, Record(number))])
        self._write(self.engine.prepare())
        self._write_addresses()
        self._write(self.engine.changes())
        stale = self._prefixes.keys() - needed
        for prefix in stale:
            self.book.say(Source.POLICY, str(prefix), [])
        if stale or self._retired_identities:
            self._write_addresses()
            for prefix in stale:
                number = self._prefixes.pop(prefix)
                self.engine.remove_identity(number)
                self._free.append(number)
            for number in self._retired_identities:
                self.engine.remove_identity(number)
            self._retired_identities.clear()
            self._write(self.engine.changes())
        return sum(self.writes.values()) - before

    def start(self) -> int:
        """The first `settle`, once everything that the store holds has been heard.

        Writes the difference to what an earlier agent left, so that what is right stays untouched.
        """
        needed = self.engine.needed_prefixes()
        for prefix in sorted(needed - self._prefixes.keys(), key=str):
            self._prefixes[prefix] = self._new_local()
            self.engine.upsert_cidr_identity(self._prefixes[prefix], prefix)
            self.book.say(Source.POLICY, str(prefix), [(prefix, Record(self._prefixes[prefix]))])
        self._rules(self.engine.changes().rules)
        before = sum(self.writes.values())
        self.reconcile()
        self.settle()
        return sum(self.writes.values()) - before

    def reconcile(self) -> int:
        """Compares the kernel's policy table with what it should be and mends it; how many entries."""
        held = self._held_policies()
        wanted = dict(self.engine.table)
        diff = difference(held, wanted.items())
        diff.changed = {key.subject for key, _ in diff.writes()}
        self._write(diff)
        return len(diff)

    def _new_local(self) -> int:
        if self._free:
            return self._free.pop(0)
        self._next_local += 1
        return self._next_local - 1

    def _write(self, diff: TableDiff) -> None:
        if diff.rules:
            self._rules(diff.rules)
        table = self._plane.policies
        for entries in (diff.put_denies, diff.put_allows):
            if entries:
                table.write(*entry_arrays(entries, table.key, table.value))
        for keys in (diff.delete_allows, diff.delete_denies):
            if keys:
                table.delete(key_array(keys, table.key))
        self.writes["policies"] += len(diff)
        if diff.changed:
            self._plane.raise_subjects(diff.changed)

    def _write_addresses(self) -> None:
        puts, deletes = self.book.changes()
        table = self._plane.addresses
        if puts:
            keys = np.zeros(len(puts), table.key)
            values = np.zeros(len(puts), table.value)
            for row, (prefix, record) in enumerate(puts.items()):
                _fill_key(keys[row], prefix)
                values[row]["identity"], values[row]["flags"] = record.identity, int(record.flags)
                if record.node is not None:
                    values[row]["node"] = np.frombuffer(packed(record.node), "u1")
            table.write(keys, values)
        if deletes:
            keys = np.zeros(len(deletes), table.key)
            for row, prefix in enumerate(deletes):
                _fill_key(keys[row], prefix)
            table.delete(keys)
        self.writes["addresses"] += len(puts) + len(deletes)
        touched = [*puts, *deletes]
        if any(prefix.prefixlen < prefix.max_prefixlen for prefix in touched):
            self._plane.raise_all()
        else:
            self._plane.raise_addresses(packed(prefix.network_address) for prefix in touched)

    # ---- after a restart -----------------------------------------------------------------------

    def _adopt(self) -> None:
        """Takes over what an earlier agent left in the address table, so that CIDRs keep their numbers."""
        keys, values = self._plane.addresses.read_all()
        held: dict[Network, Record] = {}
        for key, value in zip(keys, values, strict=True):
            prefix = _network(bytes(key["address"]), int(key["prefix_length"]))
            node = bytes(value["node"])
            record = Record(
                int(value["identity"]), _address(node) if any(node) else None, Flag(int(value["flags"]))
            )
            held[prefix] = record
            if record.identity >= FIRST_LOCAL:
                self._prefixes[prefix] = record.identity
                self._next_local = max(self._next_local, record.identity + 1)
                self.engine.upsert_cidr_identity(record.identity, prefix)
                self.book.say(Source.POLICY, str(prefix), [(prefix, Record(record.identity))])
        self.book.adopt(held)

    def _held_policies(self) -> dict[Key, Any]:
        keys, values = self._plane.policies.read_all()
        return read_arrays(keys, values)

    def entries(self, subject: int, direction: Direction) -> list[Entry]:
        return [
            (key, value)
            for key, value in dict(self.engine.table).items()
            if key.subject == subject and key.direction == direction
        ]


def _fill_key(row: Any, prefix: Network) -> None:
    row["prefix_length"] = prefix_bits(prefix)
    row["address"] = np.frombuffer(packed(prefix.network_address), "u1")


def _address(raw: bytes) -> Address:
    full = IPv6Address(raw)
    return full.ipv4_mapped or full


def _network(raw: bytes, bits: int) -> Network:
    address = _address(raw)
    return ip_network(f"{address}/{bits - 96 if address.version == 4 else bits}")
