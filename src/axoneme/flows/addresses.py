"""Address to number, for whole columns of addresses at once.

An open-addressing hash table in numpy arrays: a look-up of n addresses takes a few rounds of array
operations, one for each step of the longest probe, however many addresses the table has. A Python
dict would cost more than everything else that is done to an event.

An address that has lost its number stays in its slot with number 0, so probes pass over it; the
table is built anew without such slots when it fills up.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]  # shape (n, 2): addresses as `axoneme.flows.events.words` gives them

_SPREAD_HIGH, _SPREAD_LOW = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
_HIGH, _LOW = int(_SPREAD_HIGH), int(_SPREAD_LOW)
_WORD = (1 << 64) - 1
_PAIR = struct.Struct("=QQ")


class AddressTable:
    """Two numbers an address: its value (not 0), and the owner who set it."""

    def __init__(self) -> None:
        self._clear(64)

    def __len__(self) -> int:
        return int(np.count_nonzero(self._values))

    def look_up(self, addresses: Words) -> npt.NDArray[np.uint32]:
        """The value of each address, 0 for unknown ones."""
        high, low = np.ascontiguousarray(addresses[:, 0]), np.ascontiguousarray(addresses[:, 1])
        slots = self._home(high, low)
        found = self._values[slots]
        differs = (self._high[slots] != high) | (self._low[slots] != low)
        if not differs.any():
            return found
        found[differs] = 0
        left = np.flatnonzero(differs & self._taken[slots])
        while left.size:
            slots[left] = (slots[left] + 1) & self._mask
            at = slots[left]
            same = (self._high[at] == high[left]) & (self._low[at] == low[left])
            found[left[same]] = self._values[at[same]]
            left = left[~same & self._taken[at]]
        return found

    def put(self, address: bytes, value: int, owner: int) -> None:
        slot = self._slot(address)
        if not self._taken[slot]:
            if self._used * 3 >= len(self._taken):
                self._rebuild()
                slot = self._slot(address)
            self._high[slot], self._low[slot] = _PAIR.unpack(address)
            self._taken[slot] = True
            self._used += 1
        self._values[slot], self._owners[slot] = value, owner

    def remove(self, address: bytes, owner: int) -> None:
        """Forgets the value, unless another owner has set it since."""
        slot = self._slot(address)
        if self._taken[slot] and self._owners[slot] == owner:
            self._values[slot] = 0

    def _home(self, high: npt.NDArray[np.uint64], low: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        mixed = high * _SPREAD_HIGH ^ low * _SPREAD_LOW
        mixed ^= mixed >> np.uint64(32)
        mixed *= _SPREAD_HIGH
        return (mixed >> self._shift).astype(np.int64)

    def _slot(self, address: bytes) -> int:
        """Where the address is, or the empty slot where it would go."""
        high, low = _PAIR.unpack(address)
        # As `_home` does it, in numbers of Python: arrays of one element would take thirty times as long.
        mixed = (high * _HIGH ^ low * _LOW) & _WORD
        mixed ^= mixed >> 32
        slot: int = (mixed * _HIGH & _WORD) >> int(self._shift)
        while self._taken[slot] and (self._high[slot] != high or self._low[slot] != low):
            slot = (slot + 1) & self._mask
        return slot

    def _clear(self, size: int) -> None:
        self._high, self._low = np.zeros(size, np.uint64), np.zeros(size, np.uint64)
        self._values, self._owners = np.zeros(size, np.uint32), np.zeros(size, np.uint64)
        self._taken = np.zeros(size, np.bool_)
        self._used = 0
        self._mask = size - 1
        self._shift = np.uint64(64 - self._mask.bit_length())

    def _rebuild(self) -> None:
        live = list(self._live())
        size = 64
        while size < 6 * (len(live) + 1):
            size *= 2
        self._clear(size)
        for address, value, owner in live:
            self.put(address, value, owner)

    def _live(self) -> Iterator[tuple[bytes, int, int]]:
        for slot in np.flatnonzero(self._values).tolist():
            address = self._high[slot].tobytes() + self._low[slot].tobytes()
            yield address, int(self._values[slot]), int(self._owners[slot])
