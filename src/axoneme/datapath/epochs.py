"""Epochs: counters by which flows see that a decision may not hold any more (flow.h)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from axoneme.datapath.libbpf import Object
from axoneme.datapath.maps import MappedArray
from axoneme.datapath.schema import Schema

_NAME = "epochs"


class Epochs:
    """The array, in this process's memory too."""

    def __init__(self, array: MappedArray, schema: Schema) -> None:
        ranges = schema.enum("epoch_range")
        self._subjects, self._addresses = ranges["EPOCH_SUBJECTS"], ranges["EPOCH_ADDRESSES"]
        self._slot = array.array[0]["slot"]

    @classmethod
    def of(cls, source: Object, schema: Schema) -> Self:
        return cls(MappedArray.of(source, _NAME), schema)

    @classmethod
    def pinned(cls, maps: Path, schema: Schema) -> Self:
        """Raises `axoneme.datapath.bpf.NotFound`."""
        return cls(MappedArray.pinned(maps / _NAME, schema.struct(_NAME)), schema)

    def raise_subjects(self, identities: Iterable[int]) -> None:
        """Has the flows of these subjects decided anew on their next packet."""
        slots = np.unique(np.fromiter((i % self._subjects for i in identities), np.int64))
        self._slot[slots] += 1

    def raise_addresses(self, addresses: Iterable[bytes]) -> None:
        """The same for flows with these 16-byte addresses."""
        packed = list(addresses)
        if packed:
            words = np.frombuffer(b"".join(packed), "<u4").reshape(-1, 4)
            self._slot[np.unique(self._slots(words))] += 1

    def raise_all(self) -> None:
        self._slot += 1

    def _slots(self, words: npt.NDArray[np.uint32]) -> npt.NDArray[Any]:
        """``address_slot`` of flow.h."""
        folded = words[:, 0] ^ words[:, 1] ^ words[:, 2] ^ words[:, 3]
        mixed = (folded.astype(np.uint64) * 0x9E3779B1) & 0xFFFFFFFF
        return self._subjects + (mixed >> np.uint64(16)).astype(np.int64) % self._addresses
