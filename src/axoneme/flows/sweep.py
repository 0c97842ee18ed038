"""Walks the kernel's flow table a little at a time and takes out what is over.

The datapath ignores expired entries, so nothing waits for this but memory, and the report of the end.
Between reading an entry and deleting it a packet may arrive that begins the same tuple anew; its entry
is then lost, and the next packet is decided once more. Small steps keep that gap below a millisecond.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from axoneme.datapath.maps import Table
from axoneme.flows.events import Events, Vocabulary
from axoneme.flows.expiry import FlowTable

#: Entries that are looked at at once.
_CHUNK = 512


class Sweep:
    """One walk after the other over ``table``; ``clock`` is CLOCK_MONOTONIC in ns."""

    def __init__(
        self,
        table: Table,
        meaning: FlowTable,
        vocabulary: Vocabulary,
        clock: Callable[[], int],
        rest: float = 2.0,
    ) -> None:
        """``rest``: seconds from the beginning of one walk to that of the next, if it ends earlier."""
        self._table = table
        self._meaning = meaning
        self._vocabulary = vocabulary
        self._clock = clock
        self._rest = round(rest * 1e9)
        self._next = clock()
        self._walk: Iterator[tuple[npt.NDArray[np.void], npt.NDArray[np.void]]] | None = None
        self._seen = 0
        #: Entries in the table when the last walk ended; entries removed since the start.
        self.entries = 0
        self.removed = 0

    def step(self, budget: float = 0.001) -> list[Events]:
        """Goes on for about ``budget`` seconds; the ends of connections that it found."""
        ends: list[Events] = []
        began = now = self._clock()
        while now - began < budget * 1e9:
            if self._walk is None:
                if now < self._next:
                    break
                self._walk, self._seen, self._next = self._table.batches(_CHUNK), 0, now + self._rest
            chunk = next(self._walk, None)
            if chunk is None:
                self._walk, self.entries = None, self._seen
                continue
            ends += self._look(*chunk)
            now = self._clock()
        return ends

    def _look(self, keys: npt.NDArray[np.void], flows: npt.NDArray[np.void]) -> Iterator[Events]:
        now = self._clock()
        due = self._meaning.due(flows, now)
        self._seen += len(keys)
        if due.any():
            keys, flows = keys[due], flows[due]
            gone = self._table.delete(keys)
            self._seen -= gone
            self.removed += gone
            yield self._meaning.ends(keys, flows, now, self._vocabulary)
