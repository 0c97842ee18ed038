"""Who serves a frontend that several want: an address, port and protocol can lead to one place only.

The order of the claimants decides, which is the same on every node, whoever came first. Who loses a
frontend gets it as soon as nobody before him wants it any more.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Generic, NamedTuple, TypeVar

from axoneme.model.policy import Protocol
from axoneme.services.balanced import Address, Frontend

#: Claimants are ordered: the lowest is served.
C = TypeVar("C", bound=tuple[object, ...])


class Spot(NamedTuple):
    address: Address
    port: int
    protocol: Protocol

    def __str__(self) -> str:
        address = f"[{self.address}]" if self.address.version == 6 else f"{self.address}"
        return f"{address}:{self.port}/{self.protocol.name}"


def spot(frontend: Frontend) -> Spot:
    return Spot(frontend.address, frontend.port, frontend.protocol)


class Claims(Generic[C]):
    """Of claimants on spots."""

    def __init__(self) -> None:
        self._wanted: dict[C, frozenset[Spot]] = {}
        self._holder: dict[Spot, C] = {}
        #: Those who do not get a spot that they want.
        self._waiting: dict[Spot, set[C]] = {}

    def claim(self, claimant: C, spots: Collection[Spot]) -> set[C]:
        """``claimant`` wants these from now on, and no others. The claimants whom that gives or takes one."""
        wanted = frozenset(spots)
        former = self._wanted.pop(claimant, frozenset())
        if wanted:
            self._wanted[claimant] = wanted
        if wanted == former:
            return set()
        disturbed: set[C] = set()
        for each in former - wanted:
            disturbed |= self._release(claimant, each)
        for each in wanted - former:
            holder = self._holder.get(each)
            if holder is None:
                self._holder[each] = claimant
            elif claimant < holder:
                self._holder[each] = claimant
                self._waiting.setdefault(each, set()).add(holder)
                disturbed.add(holder)
            else:
                self._waiting.setdefault(each, set()).add(claimant)
        return disturbed

    def holder(self, each: Spot) -> C | None:
        """Who is served."""
        return self._holder.get(each)

    def _release(self, claimant: C, each: Spot) -> set[C]:
        waiting = self._waiting.get(each, set())
        waiting.discard(claimant)
        disturbed = set()
        if self._holder[each] == claimant:
            del self._holder[each]
            if waiting:
                next_ = min(waiting)
                self._holder[each] = next_
                waiting.discard(next_)
                disturbed.add(next_)
        if not waiting:
            self._waiting.pop(each, None)
        return disturbed
