"""The kernel's clock and the wall's, as one.

Events bear CLOCK_MONOTONIC, clients want the time of day. The difference of the two is read again and again,
never twice the same to the microsecond; used like that, flows would change their order with the clock by
which they are sorted. So it stays as it is until it is off by a millisecond: somebody has set the clock,
or NTP slews it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

_TOLERATED: Final = 1_000_000


class Clock:
    """``monotonic`` and ``wall`` give ns."""

    def __init__(
        self, monotonic: Callable[[], int] = time.monotonic_ns, wall: Callable[[], int] = time.time_ns
    ) -> None:
        self._monotonic, self._wall = monotonic, wall
        self._difference = wall() - monotonic()

    def __call__(self) -> tuple[int, int]:
        """CLOCK_MONOTONIC, and the wall clock to a millisecond."""
        now = self._monotonic()
        difference = self._wall() - now
        if abs(difference - self._difference) > _TOLERATED:
            self._difference = difference
        return now, now + self._difference
