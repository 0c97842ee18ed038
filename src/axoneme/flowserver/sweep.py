"""Walks the kernel's flow tables a little at a time and takes out what is over.

The datapath ignores expired entries, so nothing waits for this but room, and the report of the end. At the
end of each walk it is known how many entries every endpoint has, which is what its quota is measured by.
Between reading an entry and deleting it a packet may arrive that begins the same tuple anew; its entry
is then lost, and the next packet is decided once more. Small steps keep that gap below a millisecond.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from axoneme.datapath import elements
from axoneme.datapath.maps import Table
from axoneme.flows.edgecounts import EdgeCounts
from axoneme.flows.events import Events, Vocabulary
from axoneme.flows.expiry import FlowTable
from axoneme.flows.figures import KINDS, Walked
from axoneme.flows.kernel import Kernel
from axoneme.flows.traffic import BackendTraffic, Tally, traffic

#: Entries that are looked at at once.
_CHUNK = 512
_TCP = 6


class Sweep:
    """One walk after the other; ``clock`` is CLOCK_MONOTONIC in ns."""

    def __init__(
        self,
        kernel: Kernel,
        meaning: FlowTable,
        vocabulary: Vocabulary,
        clock: Callable[[], int],
        ended: Tally,
        rest: float = 2.0,
        edges: EdgeCounts | None = None,
    ) -> None:
        """``ended``: what connections to services have moved that are over. ``rest``: seconds from the
        beginning of one walk to that of the next, if it ends earlier."""
        self._kernel = kernel
        self._meaning = meaning
        self._vocabulary = vocabulary
        self._clock = clock
        self._ended = ended
        self._open, self._over = Tally().sums(), Tally().sums()
        self._rest = round(rest * 1e9)
        self._edges = edges
        self._next = clock()
        self._walk: Iterator[Events] | None = None
        #: Entries of ``flows`` and ``half_open`` when the last walk ended; entries removed since the start.
        self.entries = 0
        self.half_open = 0
        self.removed = 0
        #: For the agent's metrics.
        self.walked = Walked()
        self._alive, self._deleted = np.zeros(len(KINDS), np.int64), np.zeros(len(KINDS), np.int64)
        self._worked = 0

    def step(self, budget: float = 0.001) -> list[Events]:
        """Goes on for about ``budget`` seconds; the ends of connections that it found."""
        ends: list[Events] = []
        began = now = self._clock()
        busy = self._walk is not None
        while now - began < budget * 1e9:
            if self._walk is None:
                if now < self._next:
                    break
                self._walk, self._next = self._round(), now + self._rest
            found = next(self._walk, None)
            if found is None:
                self._walk = None
                continue
            ends.append(found)
            now = self._clock()
        if busy or ends:
            self._worked += self._clock() - began
        return [each for each in ends if len(each)]

    def traffic(self) -> list[BackendTraffic]:
        """What flows to the backends of services, as of the last walk."""
        return traffic(self._open, self._over)

    def _round(self) -> Iterator[Events]:
        """One walk over both tables; yields after each chunk."""
        kernel, usage = self._kernel, self._kernel.usage
        held, share = usage["held"].copy(), np.zeros(len(usage), np.uint32)
        over, opened = self._ended.sums(), Tally()
        count, self._worked = 0, 0
        self._alive[:] = self._deleted[:] = 0
        for keys, flows in kernel.flows.batches(_CHUNK):
            kept, left, ends = self._look(kernel.flows, keys, flows)
            if self._edges is not None:
                self._edges.walk(kept, left)
            endpoint = np.where(
                left["source_endpoint"], left["source_endpoint"], left["destination_endpoint"]
            )
            share += np.bincount(endpoint, minlength=len(usage)).astype(np.uint32)
            count += len(left)
            opened.add(left, (left["service"] != 0) & (left["state"] != self._meaning.closed), "leg")
            yield ends
        usage["collected"] = held - share
        if self._edges is not None:
            self._edges.walked()
        self._open, self._over = opened.sums(), over
        self.entries, count = count, 0
        for keys, flows in kernel.half_open.batches(_CHUNK):
            _, left, ends = self._look(kernel.half_open, keys, flows)
            count += len(left)
            yield ends
        self.half_open = count
        self.walked = Walked(
            self.walked.walks + 1,
            tuple(self._alive.tolist()),
            tuple(self._deleted.tolist()),
            self._worked / 1e9,
            self.entries,
            count,
        )

    def _look(
        self, table: Table, keys: npt.NDArray[np.void], flows: npt.NDArray[np.void]
    ) -> tuple[npt.NDArray[np.void], npt.NDArray[np.void], Events]:
        """What is left of these, keys and entries, and the ends of those that are not."""
        now = self._clock()
        due = self._meaning.due(flows, now)
        kinds = _kinds(keys)
        self._alive += np.bincount(kinds[~due], minlength=len(KINDS))
        self._deleted += np.bincount(kinds[due], minlength=len(KINDS))
        kept, left, keys, flows = keys[~due], flows[~due], keys[due], flows[due]
        if len(keys):
            # First: a packet that comes in between takes its port again, and keeps it.
            self._free_ports(keys, flows)
            self._forget_calls(keys, flows)
            self.removed += table.delete(keys)
        return kept, left, self._meaning.ends(keys, flows, now, self._vocabulary)

    def _free_ports(self, keys: npt.NDArray[np.void], flows: npt.NDArray[np.void]) -> None:
        """Ports that the other end may remember are kept among those that may be displaced, with the time."""
        settled, half_open = self._kernel.translations, self._kernel.half_open_translations
        left = self._meaning.masquerades(keys, flows, settled.value)
        kept, values = left.outside[left.remembered], left.behind[left.remembered]
        while len(kept):
            try:
                half_open.write(kept, values, elements.NO_EXIST)
                break
            except elements.BatchError as error:  # another connection has just got this port
                kept, values = kept[error.done + 1 :], values[error.done + 1 :]
        settled.delete(left.outside)
        half_open.delete(left.outside[~left.remembered])

    def _forget_calls(self, keys: npt.NDArray[np.void], flows: npt.NDArray[np.void]) -> None:
        """Which backend a client has got, where it still has that one."""
        kernel = self._kernel
        left = self._meaning.calls(keys, flows, kernel.translations.value)
        if not len(left.outside):
            return
        for table in (kernel.translations, kernel.half_open_translations):
            there, found = table.read(left.outside)
            same = there & (found["address"] == left.behind["address"]).all(axis=1)
            table.delete(left.outside[same & (found["port"] == left.behind["port"])])


def _kinds(keys: npt.NDArray[np.void]) -> npt.NDArray[np.intp]:
    """Their places in `axoneme.flows.figures.KINDS`. Both ends of a key are of one family: IPv4 is mapped."""
    high = keys["high"]
    six = high[:, :10].any(axis=1) | (high[:, 10:12] != 0xFF).any(axis=1)
    return np.asarray((six.astype(np.intp) << 1) | (keys["protocol"] != _TCP), np.intp)
