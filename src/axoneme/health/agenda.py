"""Whose turn it is: every node again after an interval that grows with the cluster.

With ``n`` nodes each is measured every ``base * ln(1 + n)`` seconds, so the whole cluster is not busy with
itself, and at most `NODES_PER_SECOND` of them in any second, so no agent is. A node that did not answer is
asked again soon; one that is new comes next.

    nodes       2     10    100    500   1000        (base 10 s)
    every      11 s   24 s   46 s  100 s  200 s
"""

from __future__ import annotations

from math import log1p

#: Each is some 8 probes and 2 ms of CPU.
NODES_PER_SECOND = 5.0
#: Seconds until a node that did not answer is asked again, the first time and later.
FIRST_AGAIN, LATER_AGAIN = 0.5, 5.0


def interval(nodes: int, base: float) -> float:
    """Seconds between two measurements of the same node."""
    return max(base * log1p(nodes), nodes / NODES_PER_SECOND)


class Agenda:
    """Due times by name. Pure: the caller has the clock, and the dice (0 to 1) that keep nodes that start
    together from measuring together for ever."""

    def __init__(self, base: float) -> None:
        self._base = base
        self._due: dict[str, float] = {}
        self._earliest = 0.0

    def __len__(self) -> int:
        return len(self._due)

    @property
    def interval(self) -> float:
        return interval(len(self._due), self._base)

    def add(self, name: str, now: float) -> None:
        """Does nothing when the name is there."""
        self._due.setdefault(name, now)

    def remove(self, name: str) -> None:
        self._due.pop(name, None)

    def wait(self, now: float) -> float | None:
        """Seconds until somebody's turn; None when there is nobody."""
        if not self._due:
            return None
        return max(0.0, min(self._due.values()) - now, self._earliest - now)

    def take(self, now: float, dice: float) -> str | None:
        """Whose turn it is now, if it is anybody's: his next one is an interval later."""
        if self.wait(now) != 0:
            return None
        name = min(self._due, key=self._due.__getitem__)
        self._due[name] = now + self.interval * (0.9 + 0.2 * dice)
        self._earliest = now + 1 / NODES_PER_SECOND
        return name

    def hurry(self, name: str, now: float, failures: int) -> None:
        """The node has not answered so many times in a row."""
        if name in self._due:
            again = min(FIRST_AGAIN * 2.0 ** min(failures - 1, 16), LATER_AGAIN)
            self._due[name] = min(self._due[name], now + again)
