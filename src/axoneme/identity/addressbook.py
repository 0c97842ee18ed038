"""Whose address is this? What every node, pod and policy says about addresses, made into one table.

Several sources speak of the same prefix: a policy's CIDR may be a node's address, a pod range of a node
holds its pods. The longest prefix decides (in the kernel), and for one prefix the source that knows more:
a pod or a node, then a pod range, then a CIDR that a policy names.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

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
    POD = 1
    RANGE = 2
    POLICY = 3


@dataclass(frozen=True, slots=True)
class Record:
    """What the kernel shall know of a prefix: ``node`` is the underlay address behind which it lives."""

    identity: int
    node: Address | None = None
    flags: Flag = Flag.NONE


Subject = tuple[Source, str]


class AddressBook:
    """Statements by (source, subject), and the table that they make together. Pure.

    A subject is whatever makes statements as a whole: a node's name, an endpoint's key, a prefix. There
    may be a hundred thousand of them, most with one or two statements, and most prefixes with one: so
    these are kept in tuples.
    """

    def __init__(self) -> None:
        self._said: dict[Subject, tuple[tuple[Network, Record], ...]] = {}
        self._by_prefix: dict[Network, tuple[tuple[Subject, Record], ...]] = {}
        self._dirty: set[Network] = set()
        self._written: dict[Network, Record] = {}

    def say(self, source: Source, subject: str, records: Iterable[tuple[Network, Record]]) -> None:
        """Replaces all that the subject has said; nothing: it is silent."""
        key = (source, subject)
        before, after = self._said.pop(key, ()), tuple(dict(records).items())
        if after:
            self._said[key] = after
        for prefix, record in before:
            if (prefix, record) not in after:
                self._unsay(prefix, key)
        for prefix, record in after:
            if (prefix, record) not in before:
                self._by_prefix[prefix] = (*self._by_prefix.get(prefix, ()), (key, record))
                self._dirty.add(prefix)

    def _unsay(self, prefix: Network, key: Subject) -> None:
        rest = tuple(each for each in self._by_prefix.pop(prefix) if each[0] != key)
        if rest:
            self._by_prefix[prefix] = rest
        self._dirty.add(prefix)

    def changes(self) -> tuple[dict[Network, Record], set[Network]]:
        """What to write and what to delete since the last call."""
        puts: dict[Network, Record] = {}
        deletes: set[Network] = set()
        for prefix in self._dirty:
            said = self._by_prefix.get(prefix)
            wanted = min(said, key=_speaker)[1] if said else None
            if wanted == self._written.get(prefix):
                continue
            if wanted is None:
                del self._written[prefix]
                deletes.add(prefix)
            else:
                self._written[prefix] = puts[prefix] = wanted
        self._dirty.clear()
        return puts, deletes

    def adopt(self, table: dict[Network, Record]) -> None:
        """What the kernel holds; `changes` then says what makes it right."""
        self._written = dict(table)
        self._dirty.update(table, self._by_prefix)

    def lookup(self, address: Address) -> Record | None:
        """The longest match, as the kernel finds it."""
        for bits in range(address.max_prefixlen, -1, -1):
            network: Network = (
                IPv4Network((address, bits), strict=False)
                if address.version == 4
                else IPv6Network((address, bits), strict=False)
            )
            if found := self._written.get(network):
                return found
        return None

    def __len__(self) -> int:
        return len(self._written)

    @property
    def table(self) -> dict[Network, Record]:
        return dict(self._written)


def _speaker(statement: tuple[Subject, Record]) -> Subject:
    return statement[0]
