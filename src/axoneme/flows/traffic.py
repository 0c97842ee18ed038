"""What flowed to the backends of services, by the numbers that services and backends have in the kernel.

`Tally` adds up connections, packets and bytes of records that say which service was called, and which backend
was chosen: of ends of connections as they come in, or of the flow table's entries on a walk through it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from axoneme.flows.addresses import AddressTable

_PAIR = struct.Struct("=QQ")
#: Backends of services that are told apart; of more, the half that was idle for longest is forgotten.
_MOST = 1 << 17
#: Connections that are counted at once.
_BATCH = 4096


class Counts(msgspec.Struct, frozen=True, gc=False):
    """``packets`` and ``bytes``: from the clients; ``reply_…``: to them."""

    connections: int = 0
    packets: int = 0
    bytes: int = 0
    reply_packets: int = 0
    reply_bytes: int = 0


class BackendTraffic(msgspec.Struct, frozen=True, gc=False):
    """Of one backend of one service, by their numbers.

    ``open``: the connections that the flow table held when it was last walked through, a few seconds ago,
    those apart of which only one end has spoken; ``ended``: those that had ended when that walk began,
    counted since the flow server runs. What a full flow table displaced is in neither.
    """

    service: int
    backend: int
    open: Counts
    ended: Counts


@dataclass(frozen=True, slots=True)
class Sums:
    """What a `Tally` had added up at a time: ``keys``, of shape (n, 2), service and backend; ``counts``, of
    shape (n, 5), in the order of `Counts`."""

    keys: npt.NDArray[np.uint64]
    counts: npt.NDArray[np.uint64]

    def by_backend(self) -> dict[tuple[int, int], Counts]:
        keys = ((service, backend) for service, backend in self.keys.tolist())
        return dict(zip(keys, (Counts(*row) for row in self.counts.tolist()), strict=True))


class _Connections(NamedTuple):
    backends: npt.NDArray[np.uint32]  # (n, 2): service and backend
    packets: npt.NDArray[np.unsignedinteger[Any]]  # (n, 2): from and to the initiator, as are bytes
    bytes: npt.NDArray[np.uint64]


class Tally:
    """Collects before it counts: a few records at a time would cost as much as a thousand."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._waiting: list[_Connections] = []
        self._make(64)
        self._clock = 0

    def _make(self, size: int) -> None:
        self._table = AddressTable()
        self._keys = np.zeros((size, 2), np.uint64)
        self._counts = np.zeros((size, 5), np.uint64)
        self._touched = np.zeros(size, np.int64)
        self._used = 0

    def add(self, connections: npt.NDArray[np.void], which: npt.NDArray[np.bool_], moved: str = "") -> None:
        """``which`` of the connections; they have ``service`` and ``backend``, and ``packets`` and ``bytes``
        of shape (n, 2), from and to the initiator, in themselves or in their field ``moved``."""
        places = np.flatnonzero(which)
        if not len(places):
            return
        legs = connections[moved] if moved else connections
        self._waiting.append(
            _Connections(
                np.column_stack((connections["service"][places], connections["backend"][places])),
                legs["packets"][places],
                legs["bytes"][places],
            )
        )
        if sum(len(each.backends) for each in self._waiting) >= _BATCH:
            self._count()

    def _count(self) -> None:
        if not self._waiting:
            return
        backends, packets, octets = map(np.concatenate, zip(*self._waiting, strict=True))
        self._waiting.clear()
        rows = self._rows(backends.astype(np.uint64))
        width = self._used
        counts = [np.bincount(rows, minlength=width)]
        for column in (packets[:, 0], octets[:, 0], packets[:, 1], octets[:, 1]):
            # Weights are floats: exact as long as a batch has less than 2^53 bytes.
            counts.append(np.bincount(rows, column, width))
        self._counts[:width] += np.column_stack(counts).astype(np.uint64)
        self._clock += 1
        self._touched[rows] = self._clock

    def sums(self) -> Sums:
        self._count()
        return Sums(self._keys[: self._used].copy(), self._counts[: self._used].copy())

    def _rows(self, keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        rows = self._table.look_up(keys)
        unknown = np.flatnonzero(rows == 0)
        if unknown.size:
            self._enter(np.unique(keys[unknown], axis=0))
            rows = self._table.look_up(keys)
        return rows.astype(np.int64) - 1

    def _enter(self, keys: npt.NDArray[np.uint64]) -> None:
        if self._used + len(keys) > self._most:
            self._forget()
        while self._used + len(keys) > len(self._keys):
            self._keys = np.concatenate((self._keys, np.zeros_like(self._keys)))
            self._counts = np.concatenate((self._counts, np.zeros_like(self._counts)))
            self._touched = np.concatenate((self._touched, np.zeros_like(self._touched)))
        self._keys[self._used : self._used + len(keys)] = keys
        for key in keys.tolist():
            self._used += 1
            self._table.put(_PAIR.pack(*key), self._used, 0)

    def _forget(self) -> None:
        kept = np.argsort(self._touched[: self._used])[self._used // 2 :]
        keys, counts, touched = self._keys[kept], self._counts[kept], self._touched[kept]
        self._make(len(self._keys))
        self._enter(keys)
        self._counts[: len(kept)], self._touched[: len(kept)] = counts, touched


def traffic(opened: Sums, ended: Sums) -> list[BackendTraffic]:
    """Of all backends that either knows, in order of their numbers."""
    live, over = opened.by_backend(), ended.by_backend()
    none = Counts()
    return [
        BackendTraffic(*key, live.get(key, none), over.get(key, none)) for key in sorted(live.keys() | over)
    ]
