"""Numbers that one node gives out itself: to prefixes outside the cluster, to what is there under DNS names,
to other nodes by their labels.

A number stays with its holder as long as that is in use, over restarts too: begin with what the
kernel's address table holds. A number that was given back is not given out again before all others
have been, so that nothing still written somewhere under the old meaning is taken for the new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

from axoneme.identity.numbers import FIRST_NODE_LOCAL, LAST_NODE_LOCAL
from axoneme.model.labels import NAME, NODE, RESERVED, Labels

Network = IPv4Network | IPv6Network

#: By IP version, all addresses: what has no longer prefix around it is in the world.
WORLDS: Mapping[int, Network] = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}


@dataclass(frozen=True, slots=True)
class Named:
    """Addresses outside which names have that these selectors of policies match, by their texts.

    ``around`` is the longest prefix around them that a policy names: what selects that, selects them too.
    """

    around: Network
    selectors: frozenset[str]


@dataclass(frozen=True, slots=True)
class Nodes:
    """Other nodes with these labels (source ``node``), of those that policies ask for."""

    labels: Labels


Holder = Network | Named | Nodes


def holder_of(texts: Iterable[str]) -> Holder | None:
    """Who has these labels; None for those of nobody that has a number of a node."""
    labels = Labels.parse(texts)
    nodes = Labels(label for label in labels if label.source == NODE)
    if nodes:
        return Nodes(nodes)
    selectors = frozenset(label.key for label in labels if label.source == NAME)
    ranges = [ip_network(label.key) for label in labels if label.source == "cidr"]
    if not selectors:
        return ranges[0] if ranges else None
    version = 6 if labels.values(RESERVED, "world-ipv6") else 4
    return Named(ranges[0] if ranges else WORLDS[version], selectors)


class LocalNumbersExhausted(Exception):
    """Every number has a holder."""


class LocalNumbers:
    """Holders and their numbers. ``held`` is what they were before a restart; those that are ``remembered``
    get their numbers back if they are acquired, until `forget_others`."""

    def __init__(
        self,
        held: Mapping[Holder, int] | None = None,
        remembered: Mapping[Holder, int] | None = None,
        *,
        first: int = FIRST_NODE_LOCAL,
        last: int = LAST_NODE_LOCAL,
    ) -> None:
        self._first, self._last = first, last
        self._numbers: dict[Holder, int] = {}
        self._holders: dict[int, Holder] = {}
        for holder, number in (held or {}).items():
            if not first <= number <= last:
                raise ValueError(f"{holder}: number {number}: expected {first} to {last}")
            if number in self._holders:
                raise ValueError(f"number {number} is held by {self._holders[number]} and by {holder}")
            self._numbers[holder], self._holders[number] = number, holder
        self._remembered = {
            holder: number
            for holder, number in (remembered or {}).items()
            if first <= number <= last and number not in self._holders
        }
        self._kept = set(self._remembered.values())
        self._next = max((*self._holders, *self._remembered.values(), first - 1)) + 1

    def acquire(self, holder: Holder) -> int:
        """The number of ``holder``, a new one if it has none yet."""
        number = self._numbers.get(holder)
        if number is None:
            number = self._remembered.pop(holder, None)
            if number is None:
                number = self._free()
                self._next = number + 1
            self._numbers[holder], self._holders[number] = number, holder
        return number

    def forget_others(self) -> None:
        """Nobody else will ask for the number of long ago."""
        self._remembered, self._kept = {}, set()

    def release(self, holder: Holder) -> int | None:
        """Takes the number from ``holder``; which it was."""
        number = self._numbers.pop(holder, None)
        if number is not None:
            del self._holders[number]
        return number

    def get(self, holder: Holder) -> int | None:
        return self._numbers.get(holder)

    def holder(self, number: int) -> Holder | None:
        return self._holders.get(number)

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[Holder]:
        return iter(self._numbers)

    def _free(self) -> int:
        """The next number upwards from the one given last, round the end."""
        size = self._last - self._first + 1
        if len(self._numbers) >= size:
            raise LocalNumbersExhausted(
                f"all {size} numbers of this node for what is outside the cluster are in use;"
                " policies name too many CIDRs and DNS names"
            )
        number = self._next
        while True:
            if number > self._last:
                number = self._first
            if number not in self._holders and number not in self._kept:
                return number
            number += 1
