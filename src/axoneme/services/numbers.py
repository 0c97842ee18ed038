"""Numbers of services and backends.

A number that was given back is not given out again before all others have been: flows and sockets that name
it are gone by then.
"""

from __future__ import annotations

from collections.abc import Container

#: The highest number; 0 stands for none.
LAST = (1 << 32) - 1


class Numbers:
    """Gives out numbers, upwards from the one after ``after``: the highest of which anything may still
    remember what it stood for."""

    def __init__(self, after: int = 0, last: int = LAST) -> None:
        self._last = last
        self._next = after + 1

    @property
    def highest(self) -> int:
        """No number above it has been given out since the last turn round the end."""
        return self._next - 1

    def take(self, used: Container[int]) -> int:
        """The next number that is not in ``used``, round the end."""
        first = self._next
        while True:
            if self._next > self._last:
                self._next = 1
            number, self._next = self._next, self._next + 1
            if number not in used:
                return number
            if self._next == first:
                raise OverflowError(f"all {self._last} numbers are in use")
