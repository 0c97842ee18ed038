"""Numbers of services and backends.

A number that was given back is not given out again before all others have been: flows and sockets that name
it are gone by then.
"""

from __future__ import annotations

from collections.abc import Collection

#: The highest number; 0 stands for none.
LAST = (1 << 32) - 1


class Numbers:
    """Gives out numbers that are not in ``used``, which is the caller's and may change."""

    def __init__(self, used: Collection[int], after: int = 0, last: int = LAST) -> None:
        """``after``: the highest number of which anything may still remember what it stood for."""
        self._used = used
        self._last = last
        self._next = max(after, max(used, default=0)) + 1

    def take(self) -> int:
        """The next number upwards from the one given last, round the end. The caller adds it to ``used``."""
        if len(self._used) >= self._last:
            raise OverflowError(f"all {self._last} numbers are in use")
        while True:
            if self._next > self._last:
                self._next = 1
            number, self._next = self._next, self._next + 1
            if number not in self._used:
                return number
