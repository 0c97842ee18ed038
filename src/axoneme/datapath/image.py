"""What a table of the control plane should hold: the writes of this process, remembered.

A row is a key and a value as the kernel has them, so a chunk of the kernel's table is compared with the image
in a few numpy operations, without making an object of any entry.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from axoneme.datapath.btf import AnyDtype
from axoneme.datapath.elements import Array

Mask = npt.NDArray[np.bool_]
_Hashes = npt.NDArray[np.uint64]

#: So many changes, or such a part of the rows, wait before they are put in order: a table that grows step by
#: step is put in order a few times, not at every step.
_WAITING: Final = 2048
_PART: Final = 8


class Image:
    """Rows by key. A walk over the kernel's table begins with `begin`, asks `compare` about every chunk, and
    ends with `unseen`; rows that are written meanwhile are not judged until the next walk."""

    def __init__(self, key: AnyDtype, value: AnyDtype) -> None:
        self._key, self._value = key, value
        self._multipliers = np.random.default_rng().integers(1, 1 << 63, key.itemsize, np.uint64) | 1
        self._order: _Hashes = np.zeros(0, np.uint64)
        self._keys: Array = np.zeros((0, key.itemsize), np.uint8)
        self._values: Array = np.zeros((0, value.itemsize), np.uint8)
        #: Written (None: deleted) since the rows were put in order.
        self._recent: dict[bytes, bytes | None] = {}
        self._seen: Mask = np.zeros(0, np.bool_)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def reset(self, keys: Array, values: Array) -> None:
        """These rows and no others."""
        self._recent = {}
        self._arrange(_bytes(keys), _bytes(values))

    def put(self, keys: Array, values: Array) -> None:
        raw, contents = _bytes(keys), _bytes(values)
        if len(raw) > _WAITING and len(np.unique(self._hash(raw))) == len(raw):
            self._put_many(raw, contents)
            return
        self._count += self._absent(raw)
        self._recent.update(
            zip((row.tobytes() for row in raw), (row.tobytes() for row in contents), strict=True)
        )
        self._tidy()

    def _put_many(self, keys: Array, values: Array) -> None:
        """Of different keys, at once."""
        self._merge()
        at, known = self._find(keys)
        stays = np.ones(len(self._order), np.bool_)
        stays[at[known]] = False
        self._arrange(
            np.concatenate([self._keys[stays], keys]), np.concatenate([self._values[stays], values])
        )

    def drop(self, keys: Array) -> None:
        raw = _bytes(keys)
        self._count -= len(raw) - self._absent(raw)
        self._recent.update((row.tobytes(), None) for row in raw)
        self._tidy()

    def absent(self, keys: Array) -> int:
        """How many of these (different) keys are not there."""
        return self._absent(_bytes(keys))

    # ---- comparing -----------------------------------------------------------------------------

    def begin(self) -> None:
        self._merge()
        self._seen = np.zeros(len(self._order), np.bool_)

    def compare(self, keys: Array, values: Array) -> tuple[Array, Array, Array]:
        """Of rows that the kernel has: keys with the values that they should have, and keys that should not
        be there."""
        raw = _bytes(keys)
        at, known = self._find(raw)
        right = known & (self._values[at] == _bytes(values)).all(axis=1) if len(self._order) else known
        if len(self._seen) == len(self._order):
            self._seen[at[known]] = True
        doubtful = np.flatnonzero(~right)
        judged = np.array([row for row in doubtful if raw[row].tobytes() not in self._recent], np.int64)
        wrong, strange = judged[known[judged]], judged[~known[judged]]
        return keys[wrong], self._values[at[wrong]].view(self._value).reshape(-1), keys[strange]

    def unseen(self) -> tuple[Array, Array]:
        """Keys and values that no chunk since `begin` has had."""
        rows = np.flatnonzero(~self._seen) if len(self._seen) == len(self._order) else np.zeros(0, np.int64)
        rows = np.array([row for row in rows if self._keys[row].tobytes() not in self._recent], np.int64)
        return (
            self._keys[rows].view(self._key).reshape(-1),
            self._values[rows].view(self._value).reshape(-1),
        )

    # ---- order ---------------------------------------------------------------------------------

    def _hash(self, raw: Array) -> _Hashes:
        with np.errstate(over="ignore"):
            mixed: _Hashes = (raw.astype(np.uint64) * self._multipliers).sum(axis=1, dtype=np.uint64)
        return mixed

    def _find(self, raw: Array) -> tuple[npt.NDArray[np.int64], Mask]:
        """Where the keys are among those in order, and whether they are there."""
        if not len(self._order):
            return np.zeros(len(raw), np.int64), np.zeros(len(raw), np.bool_)
        at = np.minimum(np.searchsorted(self._order, self._hash(raw)), len(self._order) - 1)
        return at, (self._keys[at] == raw).all(axis=1)

    def _absent(self, raw: Array) -> int:
        _, known = self._find(raw)
        if not self._recent:
            return int((~known).sum())
        present = (
            self._recent[name] is not None if (name := row.tobytes()) in self._recent else bool(there)
            for row, there in zip(raw, known, strict=True)
        )
        return len(raw) - sum(present)

    def _tidy(self) -> None:
        if len(self._recent) > max(_WAITING, len(self._order) // _PART):
            self._merge()

    def _merge(self) -> None:
        if not self._recent:
            return
        names = np.frombuffer(b"".join(self._recent), np.uint8).reshape(-1, self._key.itemsize)
        at, known = self._find(names)
        stays = np.ones(len(self._order), np.bool_)
        stays[at[known]] = False
        alive = np.array([value is not None for value in self._recent.values()], np.bool_)
        contents = b"".join(value for value in self._recent.values() if value is not None)
        values = np.frombuffer(contents, np.uint8).reshape(-1, self._value.itemsize)
        self._recent = {}
        self._arrange(
            np.concatenate([self._keys[stays], names[alive]]), np.concatenate([self._values[stays], values])
        )

    def _arrange(self, keys: Array, values: Array) -> None:
        hashes = self._hash(keys)
        order = np.argsort(hashes, kind="stable")
        self._order, self._keys, self._values = hashes[order], keys[order], values[order]
        self._count = len(keys)
        self._seen = np.zeros(0, np.bool_)  # a walk that is under way judges no more


def _bytes(rows: Array) -> Array:
    flat = np.ascontiguousarray(rows)
    return flat.view(np.uint8).reshape(len(flat), flat.dtype.itemsize)
