"""One order of time for what many nodes send, each in its own order.

Something leaves when nothing earlier can come: when every node that is listened to has sent something later.
A quiet node sends nothing, so in a stream that is followed nothing waits longer than the ``window``: what
an earlier flow has to say after that, it says late. Nothing is left out for being late.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import inf
from operator import itemgetter
from typing import NamedTuple


class _Item(NamedTuple):
    time: int
    arrived: float
    data: bytes


class Sorter:
    """Times are ns of the wall clock; ``now`` and ``window`` are seconds of any steady clock. Without a
    window everything waits for every node."""

    def __init__(self, window: float | None = None) -> None:
        self._window = window
        self._waiting: dict[str, deque[_Item]] = {}
        #: Of each node that is listened to, the time of what it sent last.
        self._reached: dict[str, float] = {}
        #: Bytes that wait.
        self.size = 0

    def open(self, node: str) -> None:
        """It is going to send something."""
        self._waiting.setdefault(node, deque())
        self._reached[node] = -inf

    def close(self, node: str) -> None:
        """Nobody waits for it any longer; what it has sent is kept."""
        self._reached.pop(node, None)

    def add(self, node: str, items: Sequence[tuple[int, bytes]], now: float) -> None:
        """What has no time (0), as news of losses, stays behind what came before it; so does what is earlier
        than that, for a node knows its order best."""
        waiting, reached = self._waiting[node], self._reached.get(node, -inf)
        for time, data in items:
            reached = max(reached, time)
            waiting.append(_Item(int(reached), now, data))
            self.size += len(data)
        if node in self._reached:
            self._reached[node] = reached

    def waiting(self, node: str) -> int:
        """How many of its items wait."""
        return len(self._waiting[node])

    def __bool__(self) -> bool:
        return any(self._waiting.values())

    def ripe(self, now: float) -> list[bytes]:
        """What can leave, in order of time."""
        limit: float = min(self._reached.values(), default=inf)
        if self._window is not None:
            for waiting in self._waiting.values():
                for item in waiting:
                    if item.arrived > now - self._window:
                        break
                    limit = max(limit, item.time)
        chosen: list[_Item] = []
        for waiting in self._waiting.values():
            while waiting and waiting[0].time <= limit:
                chosen.append(waiting.popleft())
        chosen.sort(key=itemgetter(0))  # by time alone: of equals each node's order stays
        self.size -= sum(len(item.data) for item in chosen)
        return [item.data for item in chosen]
