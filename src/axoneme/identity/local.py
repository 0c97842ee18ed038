"""Numbers that one node gives to prefixes outside the cluster.

A number stays with its prefix as long as the prefix is in use, over restarts too: begin with what the
kernel's address table holds. A number that was given back is not given out again before all others
have been, so that nothing still written somewhere under the old meaning is taken for the new one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network

from axoneme.identity.numbers import FIRST_NODE_LOCAL, LAST_NODE_LOCAL

Network = IPv4Network | IPv6Network


class LocalNumbersExhausted(Exception):
    """Every number has a prefix."""


class LocalNumbers:
    """Prefixes and their numbers. ``held`` is what they were before a restart."""

    def __init__(
        self,
        held: Mapping[Network, int] | None = None,
        first: int = FIRST_NODE_LOCAL,
        last: int = LAST_NODE_LOCAL,
    ) -> None:
        self._first, self._last = first, last
        self._numbers: dict[Network, int] = {}
        self._prefixes: dict[int, Network] = {}
        self._next = first
        for prefix, number in (held or {}).items():
            if not first <= number <= last:
                raise ValueError(f"{prefix}: number {number}: expected {first} to {last}")
            if number in self._prefixes:
                raise ValueError(f"number {number} is held by {self._prefixes[number]} and by {prefix}")
            self._numbers[prefix], self._prefixes[number] = number, prefix
            self._next = max(self._next, number + 1)

    def acquire(self, prefix: Network) -> int:
        """The number of ``prefix``, a new one if it has none yet."""
        number = self._numbers.get(prefix)
        if number is None:
            number = self._free()
            self._numbers[prefix], self._prefixes[number] = number, prefix
            self._next = number + 1
        return number

    def release(self, prefix: Network) -> int | None:
        """Takes the number from ``prefix``; which it was."""
        number = self._numbers.pop(prefix, None)
        if number is not None:
            del self._prefixes[number]
        return number

    def get(self, prefix: Network) -> int | None:
        return self._numbers.get(prefix)

    def prefix(self, number: int) -> Network | None:
        return self._prefixes.get(number)

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[Network]:
        return iter(self._numbers)

    def _free(self) -> int:
        """The next number upwards from the one given last, round the end."""
        size = self._last - self._first + 1
        if len(self._numbers) >= size:
            raise LocalNumbersExhausted(
                f"all {size} numbers of this node for prefixes outside the cluster are in use;"
                " policies name too many CIDRs"
            )
        number = self._next
        while True:
            if number > self._last:
                number = self._first
            if number not in self._prefixes:
                return number
            number += 1
