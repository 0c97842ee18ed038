"""Whose address is this? What every node, pod and policy says about addresses, made into one table.

Several sources speak of the same prefix: a policy's CIDR may be a node's address, a pod range of a node
holds its pods. The longest prefix decides (in the kernel), and for one prefix the source that knows more:
a pod or a node, then a pod range, then a DNS name, then a CIDR that a policy names.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import NamedTuple

from axoneme.identity.prefixes import WHOLE, Prefix

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

HOST, UNMANAGED, HEALTH, REMOTE_NODE = 1, 3, 4, 6


class Flag(enum.IntFlag):
    """``enum address_flag`` of the datapath."""

    NONE = 0
    NODE = 1
    RANGE = 2
    ROUTED = 4


class Source(enum.IntEnum):
    """Who says it; a lower one is believed before a higher one."""

    NODE = 0
    HEALTH = 1
    POD = 2
    RANGE = 3
    NAME = 4
    POLICY = 5


class Record(NamedTuple):
    """What the kernel shall know of a prefix: ``node`` is the underlay address behind which it lives."""

    identity: int
    node: bytes = b""
    flags: Flag = Flag.NONE


class _Statement(NamedTuple):
    source: Source
    subject: str
    prefixes: tuple[Prefix, ...]
    record: Record


class AddressBook:
    """Statements by source and subject, and the table that they make together. Pure.

    A subject is whatever makes a statement: a node's name, an endpoint's key, a prefix. There may be a
    hundred thousand of them, most about one or two prefixes, and most prefixes have one statement: so what
    is kept of each is little, and the second opinions stand apart.
    """

    def __init__(self) -> None:
        self._said: Mapping[Source, dict[str, _Statement]] = {source: {} for source in Source}
        #: For each prefix the statement that is believed; the others, if there are any.
        self._believed: dict[Prefix, _Statement] = {}
        self._others: dict[Prefix, list[_Statement]] = {}
        #: What stood in the table, or did not, before a prefix was spoken of anew.
        self._dirty: dict[Prefix, Record | None] = {}

    def say(self, source: Source, subject: str, prefixes: tuple[Prefix, ...], record: Record) -> None:
        """Replaces what the subject has said; no prefixes: it is silent."""
        if len(prefixes) > 1:
            prefixes = tuple(dict.fromkeys(prefixes))
        said = self._said[source]
        before, after = said.get(subject), _Statement(source, subject, prefixes, record)
        if before == after:
            return
        if before is not None:
            for prefix in before.prefixes:
                self._remove(prefix, before)
        if prefixes:
            said[subject] = after
            for prefix in prefixes:
                self._add(prefix, after)
        else:
            said.pop(subject, None)

    def silence(self, source: Source, subject: str) -> None:
        """Takes back all that the subject has said."""
        before = self._said[source].pop(subject, None)
        for prefix in before.prefixes if before else ():
            self._remove(prefix, before)

    def _add(self, prefix: Prefix, statement: _Statement) -> None:
        self._mark(prefix)
        best = self._believed.get(prefix)
        if best is None:
            self._believed[prefix] = statement
        else:
            self._settle(prefix, [best, statement, *self._others.get(prefix, ())])

    def _remove(self, prefix: Prefix, statement: _Statement | None) -> None:
        self._mark(prefix)
        rest = [s for s in (self._believed.pop(prefix), *self._others.get(prefix, ())) if s is not statement]
        self._settle(prefix, rest)

    def _settle(self, prefix: Prefix, statements: list[_Statement]) -> None:
        statements.sort(key=_speaker)
        if statements:
            self._believed[prefix] = statements[0]
        if len(statements) > 1:
            self._others[prefix] = statements[1:]
        else:
            self._others.pop(prefix, None)

    def _mark(self, prefix: Prefix) -> None:
        if prefix not in self._dirty:
            self._dirty[prefix] = self._record(prefix)

    def _record(self, prefix: Prefix) -> Record | None:
        statement = self._believed.get(prefix)
        return statement.record if statement else None

    def changes(self) -> tuple[dict[Prefix, Record], set[Prefix]]:
        """What to write and what to delete since the last call."""
        puts: dict[Prefix, Record] = {}
        deletes: set[Prefix] = set()
        dirty, self._dirty = self._dirty, {}
        for prefix, stands in dirty.items():
            wanted = self._record(prefix)
            if wanted == stands:
                continue
            if wanted is None:
                deletes.add(prefix)
            else:
                puts[prefix] = wanted
        return puts, deletes

    def adopt(self, table: Mapping[Prefix, Record]) -> None:
        """What the kernel holds; `changes` then says what makes it right."""
        self._dirty = {prefix: table.get(prefix) for prefix in (*table, *self._believed)}

    def lookup(self, address: bytes) -> Record | None:
        """The longest match, as the kernel finds it once it has all `changes`."""
        number = int.from_bytes(address)
        for bits in range(WHOLE, -1, -1):
            mask = (1 << WHOLE) - (1 << WHOLE - bits)
            if found := self._record(Prefix((number & mask).to_bytes(16) + bytes((bits,)))):
                return found
        return None

    def __len__(self) -> int:
        return len(self._believed)

    def items(self) -> Iterable[tuple[Prefix, Record]]:
        """The table."""
        return ((prefix, statement.record) for prefix, statement in self._believed.items())


def _speaker(statement: _Statement) -> tuple[Source, str]:
    return statement.source, statement.subject
