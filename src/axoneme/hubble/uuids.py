"""Identifiers of flows: from what a record says, so every reader sees the same, and nothing is kept.

They have the form of version 8 (RFC 9562: "custom"), and 122 bits of a hash over when, from where to where,
and what, with the node's name; made by numpy for many records at once.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final
from uuid import UUID

import numpy as np
import numpy.typing as npt

from axoneme.flows.events import Records, words

Words = npt.NDArray[np.uint64]

#: Odd numbers with bits everywhere (of the golden ratio, and MurmurHash3's finalizer).
_FACTORS: Final = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xFF51AFD7ED558CCD))
_SHIFT: Final = np.uint64(29)
_HEX: Final = np.frombuffer("".join(f"{each:02x}" for each in range(256)).encode(), np.uint16)


class Uuids:
    def __init__(self, node: str) -> None:
        self._seeds = np.frombuffer(blake2b(node.encode(), digest_size=16).digest(), np.uint64)

    def words(self, records: Records) -> Words:
        """The two halves of each identifier, shape (n, 2), big-endian bytes in native words."""
        tuple_, flags = records["source_port"].astype(np.uint64), records["flags"].astype(np.uint64)
        for column, bits in (("destination_port", 16), ("protocol", 8), ("kind", 8), ("reason", 8)):
            tuple_ = tuple_ << np.uint64(bits) | records[column].astype(np.uint64)
        flags = flags << np.uint64(8) | records["zone"].astype(np.uint64)
        said = [
            records["time"],
            *words(records, "source").T,
            *words(records, "destination").T,
            tuple_,
            flags,
            records["request"],
        ]
        halves = np.empty((len(records), 2), np.uint64)
        for half, factor in enumerate(_FACTORS):
            mixed = np.full(len(records), self._seeds[half])
            for word in said:
                mixed = (mixed ^ word) * factor
                mixed ^= mixed >> _SHIFT
            halves[:, half] = mixed
        raw = halves.view(np.uint8)
        raw[:, 6] = raw[:, 6] & 0x0F | 0x80
        raw[:, 8] = raw[:, 8] & 0x3F | 0x80
        return halves

    def texts(self, records: Records) -> npt.NDArray[np.uint8]:
        """As text, shape (n, 36)."""
        digits = _HEX[self.words(records).view(np.uint8)].view(np.uint8).reshape(len(records), 32)
        made = np.full((len(records), 36), ord("-"), np.uint8)
        for dashes, (start, end) in enumerate(((0, 8), (8, 12), (12, 16), (16, 20), (20, 32))):
            made[:, start + dashes : end + dashes] = digits[:, start:end]
        return made


def parse(text: str) -> tuple[int, int]:
    """The two words of an identifier; ValueError for what is none."""
    high, low = np.frombuffer(UUID(text).bytes, np.uint64).tolist()
    return high, low
