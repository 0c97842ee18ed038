"""Numbers for what labels say of an end of flows, for whole columns at once.

What a pod's labels, workload or namespace say stands in a table by the row of `axoneme.flows.names`, and is
found out once for each row. Only where an address decides is it looked at record by record, each address
once a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from axoneme.flows.events import Mask, Records, words
from axoneme.flows.names import Names
from axoneme.identity.prefixes import address_text
from axoneme.metrics.contexts import Party, Side

Ids = npt.NDArray[np.uint64]
#: Whose pod: namespace and name.
Pod = tuple[str, str]

#: In the table: not found out yet; it depends on the address.
_OPEN: Final = -2
_BY_ADDRESS: Final = -1
#: Numbers have so many bits.
BITS: Final = 20
#: What is said where there are too many: all who come then share it.
OVERFLOW: Final = 0


@dataclass(slots=True)
class _Known:
    values: tuple[str, ...]
    pods: set[Pod] = field(default_factory=set)  # whose values these are: where it is of pods, mostly one
    missed: float = 0.0  # since when there is none of them any more; 0: there is


class Parties:
    """Of all metrics with the same `Side`. Number `OVERFLOW` stands for those that there was no room for."""

    def __init__(self, side: Side, names: Names, dns: Callable[[bytes], str], most: int) -> None:
        """``dns``: names of an address, of 16 bytes. ``most``: how many numbers there are."""
        self.side = side
        self._names = names
        self._dns = dns
        self._seen = -1
        self._table = np.full((2, 0), _OPEN, np.int64)
        self._known: dict[int, _Known] = {OVERFLOW: _Known(("overflow",) * len(side.names))}
        self._ids: dict[tuple[str, ...], int] = {}
        self._most = min(most, 1 << BITS)
        self._free: list[int] = []
        self._next = OVERFLOW + 1

    def ids(self, records: Records, field: str, ingress: Mask) -> Ids:
        """Of the ends in ``field``, which is not this side where a flow is turned round."""
        if not self.side.names:  # nothing is said: there is one number, also where there is room
            return np.zeros(len(records), np.uint64)
        self._follow()
        way = ingress.astype(np.intp) if self.side.by_direction else np.zeros(len(records), np.intp)
        rows = records[f"{field}_row"]
        found = self._table[way, rows]
        if (found == _OPEN).any():
            for at in np.unique(way[found == _OPEN] << 32 | rows[found == _OPEN].astype(np.intp)).tolist():
                self._find_out(at >> 32, at & 0xFFFFFFFF)
            found = self._table[way, rows]
        places = np.flatnonzero(found == _BY_ADDRESS)
        if places.size:
            found[places] = self._by_address(records[places], field, way[places])
        return np.asarray(found, np.uint64)

    def values(self, number: int) -> tuple[str, ...]:
        return self._known[number].values

    # ---- those that go ---------------------------------------------------------------------------

    def gone(self, alive: Callable[[Pod], bool], now: float, grace: float) -> list[int]:
        """Those of pods that have not been there for ``grace`` seconds. Their series have to go before
        `forget` is told."""
        found = []
        for number, known in self._known.items():
            if not known.pods:
                continue
            if living := {pod for pod in known.pods if alive(pod)}:
                known.pods, known.missed = living, 0.0
            elif not known.missed:
                known.missed = now
            elif now - known.missed >= grace:
                found.append(number)
        return found

    def forget(self, numbers: list[int]) -> None:
        self._table[np.isin(self._table, [OVERFLOW, *numbers])] = _OPEN  # now there is room
        for number in numbers:
            known = self._known.pop(number)
            del self._ids[known.values]
            self._free.append(number)

    def unused(self, used: set[int]) -> list[int]:
        """All but these: those of series that were given up."""
        return [number for number in self._known.keys() - used if number != OVERFLOW]

    @property
    def crowded(self) -> bool:
        return len(self._known) > self._most // 2

    # ---- what they are called --------------------------------------------------------------------

    def _follow(self) -> None:
        names = self._names
        if self._seen == names.version and self._table.shape[1] >= len(names):
            return
        if self._table.shape[1] < len(names):
            grown = np.full((2, 2 * len(names)), _OPEN, np.int64)
            grown[:, : self._table.shape[1]] = self._table
            self._table = grown
        for row, _ in names.since(self._seen):
            self._table[:, row] = _OPEN
        self._seen = names.version

    def _find_out(self, ingress: int, row: int) -> None:
        end = self._names[row]
        if self.side.by_address and self.side.depends_on_address(end, bool(ingress)):
            self._table[ingress, row] = _BY_ADDRESS
        else:
            self._table[ingress, row] = self._number(Party(end), bool(ingress))

    def _by_address(self, records: Records, field: str, way: npt.NDArray[np.intp]) -> npt.NDArray[np.int64]:
        keys = np.empty((len(records), 3), np.uint64)
        keys[:, :2] = words(records, field)
        keys[:, 2] = records[f"{field}_row"].astype(np.uint64) << np.uint64(1) | way.astype(np.uint64)
        distinct, inverse = np.unique(keys, axis=0, return_inverse=True)
        numbers = np.empty(len(distinct), np.int64)
        for place, key in enumerate(distinct):
            address, rest = key[:2].tobytes(), int(key[2])
            party = Party(self._names[rest >> 1], address_text(address), self._dns(address))
            numbers[place] = self._number(party, bool(rest & 1))
        return numbers[inverse.reshape(-1)]

    def _number(self, party: Party, ingress: bool) -> int:
        values = self.side.values(party, ingress)
        number = self._ids.get(values)
        if number is None:
            if len(self._known) >= self._most:
                return OVERFLOW
            if self._free:
                number = self._free.pop()
            else:
                number, self._next = self._next, self._next + 1
            self._ids[values] = number
            self._known[number] = _Known(values)
        end = party.end
        if self.side.by_pod and end.pod:
            self._known[number].pods.add((end.namespace, end.pod))
        return number
