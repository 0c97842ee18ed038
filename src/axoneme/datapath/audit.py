"""Tables that notice when somebody else writes to them.

Anybody with the rights may edit a map, and the control plane, which writes differences, would never know. So
what it has written is compared with what the kernel holds again and again, in small steps, and put right.
(`axoneme.datapath.plane.Datapath.audit` does the same for programs at their places, and for pins.)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from axoneme.datapath import elements
from axoneme.datapath.btf import AnyDtype
from axoneme.datapath.elements import Array
from axoneme.datapath.image import Image
from axoneme.datapath.maps import Table
from axoneme.datapath.uapi import MapType

#: Entries that are compared in one step: some half a millisecond.
_CHUNK: Final = 256


class WatchedTable(Table):
    """A table that only this process writes, and that remembers what it has written."""

    def __init__(self, fd: int, key: AnyDtype, value: AnyDtype, image: Image) -> None:
        super().__init__(fd, key, value)
        self.image = image

    @property
    def room(self) -> int:
        return self.info.max_entries

    def __len__(self) -> int:
        """How many entries it should have."""
        return len(self.image)

    def absent(self, keys: npt.ArrayLike) -> int:
        """How many of these (different) keys it should not have yet."""
        return self.image.absent(self._rows(keys, self.key, "keys"))

    def adopt(self) -> tuple[Array, Array]:
        """All that the kernel holds, which from now on is what it should hold.

        Prefixes with bits behind their length are removed: they were not written by us, and stand in the
        place of one that was.
        """
        keys, values = self.read_all()
        if self.info.kind == MapType.LPM_TRIE and (strange := _bits_behind(keys)).any():
            super().delete(keys[strange])
            keys, values = keys[~strange], values[~strange]
        self.image.reset(keys, values)
        return keys, values

    # The intention is noted first: what fails is missing, and will be noticed.

    def write(self, keys: npt.ArrayLike, values: npt.ArrayLike, flags: int = elements.ANY) -> None:
        self.image.put(self._rows(keys, self.key, "keys"), self._rows(values, self.value, "values"))
        super().write(keys, values, flags)

    def delete(self, keys: npt.ArrayLike) -> int:
        self.image.drop(self._rows(keys, self.key, "keys"))
        return super().delete(keys)

    def put(self, key: npt.ArrayLike, value: npt.ArrayLike, flags: int = elements.ANY) -> None:
        self.image.put(self._row(key, self.key), self._row(value, self.value))
        super().put(key, value, flags)

    def discard(self, key: npt.ArrayLike) -> bool:
        self.image.drop(self._row(key, self.key))
        return super().discard(key)

    def pop(self, key: npt.ArrayLike) -> Any | None:
        self.image.drop(self._row(key, self.key))
        return super().pop(key)

    def audit(self) -> Iterator[int]:
        """One walk; yields after each step how many entries it has put right."""
        self.image.begin()
        for keys, values in self.batches(_CHUNK):
            wrong, wanted, strange = self.image.compare(keys, values)
            if len(wrong):
                super().write(wrong, wanted)
            if len(strange):
                super().delete(strange)
            yield len(wrong) + len(strange)
        keys, values = self.image.unseen()
        if len(keys):
            super().write(keys, values)
        yield len(keys)


def _bits_behind(keys: Array) -> npt.NDArray[np.bool_]:
    """Of keys of a trie (a length in bits, then the data): which have a bit set behind their length."""
    raw = np.ascontiguousarray(keys).view(np.uint8).reshape(len(keys), keys.dtype.itemsize)
    lengths = np.ascontiguousarray(raw[:, :4]).view(np.uint32)
    behind = np.arange(8 * (raw.shape[1] - 4)) >= lengths
    return np.asarray((np.unpackbits(raw[:, 4:], axis=1).astype(np.bool_) & behind).any(axis=1), np.bool_)
