"""Maglev's lookup tables: which backend has which place (Eisenbud et al., "Maglev: A Fast and Reliable
Software Network Load Balancer", NSDI 2016, section 3.4).

Each backend has an order of preference of its own over all places, made from its name alone. Backends take
turns; whose turn it is takes the first place of its order that is still free. So shares are even, and when a
backend leaves, others take its places while few of theirs change hands. With weights, a backend of a lower
one has fewer turns. Nothing depends on the order in which backends are given, so all machines have the same
table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

#: How many places a table has: a prime, as the orders of preference demand.
PLACES = 16_381

Places = npt.NDArray[np.uint32]


class Shares(NamedTuple):
    """What a service's table is made from: names, weights and numbers of its backends, in order of names."""

    backends: tuple[tuple[str, int, int], ...]

    def digest(self, count: int = PLACES) -> str:
        """14 letters that say which table `places` makes, before it has made it."""
        text = f"{count} {self.backends}"
        return hashlib.blake2b(text.encode(), digest_size=7).hexdigest()

    def places(self, count: int = PLACES) -> Places:
        """The number of the owner of each place."""
        names, weights, numbers = zip(*self.backends, strict=True)
        places: Places = np.array(numbers, np.uint32)[fill(names, weights, count)]
        return places


def fill(names: Sequence[str], weights: Sequence[int], places: int = PLACES) -> Places:
    """The owner of each place, as an index of ``names``; shape ``(places,)``.

    ``names`` are different, ``weights`` positive; ``places`` is a prime.
    """
    if not names:
        raise ValueError("a table without backends has no places")
    digests = [digest(name) for name in names]
    order = sorted(range(len(names)), key=digests.__getitem__)
    preferences = [preference(digests[at], places) for at in order]
    following = [offset for offset, _ in preferences]
    skips = [skip for _, skip in preferences]
    owner = [-1] * places
    for backend in _turns(np.array([weights[at] for at in order]), places).tolist():
        place, skip = following[backend], skips[backend]
        while owner[place] >= 0:
            place += skip
            if place >= places:
                place -= places
        owner[place] = backend
        following[backend] = place
    return np.array(order, np.uint32)[owner]


def digest(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=16).digest()


def preference(digest: bytes, places: int) -> tuple[int, int]:
    """Offset and skip: a backend likes best place ``offset``, then ``offset + skip``, and so on round the
    table."""
    offset, skip = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")
    return offset % places, skip % (places - 1) + 1


def _turns(weights: npt.NDArray[np.int64], places: int) -> npt.NDArray[np.int64]:
    """Whose turn it is, for so many turns: in each round everybody of the highest weight has one."""
    count = len(weights)
    if (weights == weights[0]).all():
        return np.resize(np.arange(count), places)
    # The n-th turn of a backend is in the round in which its share has come to n.
    rounds = -(-places * int(weights.max()) // int(weights.sum())) + 1
    share = np.outer(np.arange(rounds + 1), weights) // int(weights.max())
    due = np.diff(share, axis=0)
    return np.tile(np.arange(count), (rounds, 1))[due > 0][:places]
