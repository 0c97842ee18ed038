"""What is known of DNS names: which addresses they have, by what the node's workloads were told.

An address counts for a name as long as the answer holds, and no less than a floor; then as long as a
connection to it lives, which is asked of whoever knows (`NameCache.sweep`). An address may have many names.
Endpoints cannot fill the node's memory: each has a limit of addresses for one name, beyond which those told
longest ago are due at once, and one for all its names together, beyond which names go.

Times are seconds of one clock that goes on over restarts: the wall clock's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Set
from dataclasses import dataclass
from math import inf
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class NameLimits:
    """``floor``: seconds that an answer holds at least. The others are addresses of one endpoint."""

    floor: float = 60.0
    of_a_name: int = 1000
    in_all: int = 50_000


class Known(NamedTuple):
    """That ``endpoint`` was told this address of this name."""

    name: str
    address: bytes
    expires: float
    endpoint: str


#: By address, until when: of one name, as told to one endpoint. Those told last stand last.
_Addresses = dict[bytes, float]


class NameCache:
    def __init__(self, limits: NameLimits = NameLimits()) -> None:
        self._limits = limits
        self._heard: dict[str, dict[str, _Addresses]] = {}
        self._sizes: dict[str, int] = {}
        #: By address: its names, each with how many endpoints have been told.
        self._names: dict[bytes, dict[str, int]] = {}
        #: Nothing is due before.
        self._soonest = inf
        #: What an earlier agent gave addresses, by selectors: names may be forgotten, connections live on.
        self._inherited: dict[bytes, tuple[frozenset[str], float]] = {}

    def learn(self, endpoint: str, name: str, addresses: Mapping[bytes, float], time: float) -> set[bytes]:
        """An answer, with the TTL of each address. The addresses that have other names now."""
        changed: set[bytes] = set()
        names = self._heard.setdefault(endpoint, {})
        known = names[name] = names.pop(name, {})
        for address, ttl in addresses.items():
            until = time + max(ttl, self._limits.floor)
            if (before := known.pop(address, None)) is None:
                self._count(endpoint, name, address, changed)
            known[address] = until if before is None else max(before, until)
            self._soonest = min(self._soonest, known[address])
        self._bound(endpoint, name, time, changed)
        return changed

    def inherit(self, address: bytes, selectors: frozenset[str], until: float) -> None:
        """An address that selectors had; `selectors` says so until the address is due and nobody uses it."""
        self._inherited[address] = selectors, until
        self._soonest = min(self._soonest, until)

    def _bound(self, endpoint: str, name: str, time: float, changed: set[bytes]) -> None:
        known, names = self._heard[endpoint][name], self._heard[endpoint]
        surplus = len(known) - self._limits.of_a_name
        for position, address in enumerate(list(known)[: max(0, surplus)]):
            if position < surplus - self._limits.of_a_name:
                self._forget(endpoint, name, address, changed)
            else:
                known[address] = min(known[address], time)
                self._soonest = min(self._soonest, time)
        while self._sizes.get(endpoint, 0) > self._limits.in_all and (oldest := next(iter(names))) != name:
            for address in list(names[oldest]):
                self._forget(endpoint, oldest, address, changed)
        if not known:
            self._drop_name(endpoint, name)

    def _count(self, endpoint: str, name: str, address: bytes, changed: set[bytes]) -> None:
        self._sizes[endpoint] = self._sizes.get(endpoint, 0) + 1
        names = self._names.setdefault(address, {})
        if name not in names:
            changed.add(address)
        names[name] = names.get(name, 0) + 1

    def _forget(self, endpoint: str, name: str, address: bytes, changed: set[bytes]) -> None:
        del self._heard[endpoint][name][address]
        if not self._heard[endpoint][name]:
            self._drop_name(endpoint, name)
        self._sizes[endpoint] -= 1
        if not self._sizes[endpoint]:
            del self._sizes[endpoint]
        names = self._names[address]
        names[name] -= 1
        if not names[name]:
            changed.add(address)
            del names[name]
        if not names:
            del self._names[address]

    def _drop_name(self, endpoint: str, name: str) -> None:
        del self._heard[endpoint][name]
        if not self._heard[endpoint]:
            del self._heard[endpoint]

    # ---- time passes ---------------------------------------------------------------------------

    def due(self, now: float) -> set[bytes]:
        """Addresses of answers that hold no longer."""
        if now < self._soonest:
            return set()
        due: set[bytes] = set()
        self._soonest = inf
        for names in self._heard.values():
            for addresses in names.values():
                self._soonest = min(self._soonest, *addresses.values())
                due.update(address for address, until in addresses.items() if until <= now)
        for address, (_, until) in self._inherited.items():
            self._soonest = min(self._soonest, until)
            if until <= now:
                due.add(address)
        return due

    def sweep(self, now: float, used: Collection[bytes], until: float) -> set[bytes]:
        """Forgets what is due, but for addresses that are ``used``, which count on to ``until``. The
        addresses that have other names, or selectors of an earlier agent, than before."""
        changed: set[bytes] = set()
        for endpoint, names in list(self._heard.items()):
            for name, addresses in list(names.items()):
                for address in [address for address, expires in addresses.items() if expires <= now]:
                    if address in used:
                        addresses[address] = until
                    else:
                        self._forget(endpoint, name, address, changed)
        for address, (selectors, expires) in list(self._inherited.items()):
            if expires <= now and address in used:
                self._inherited[address] = selectors, until
            elif expires <= now:
                changed.add(address)
                del self._inherited[address]
        return changed

    # ---- questions -----------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Known]:
        for endpoint, names in self._heard.items():
            for name, addresses in names.items():
                for address, until in addresses.items():
                    yield Known(name, address, until, endpoint)

    def __len__(self) -> int:
        """How many addresses there are."""
        return len(self._names.keys() | self._inherited.keys())

    @property
    def addresses(self) -> Set[bytes]:
        return self._names.keys() | self._inherited.keys()

    def names(self, address: bytes) -> Collection[str]:
        return self._names.get(address, {}).keys()

    def selectors(self, address: bytes) -> frozenset[str]:
        """What it has inherited."""
        return self._inherited[address][0] if address in self._inherited else frozenset()

    def having(self, wanted: Callable[[str], bool]) -> set[bytes]:
        """The addresses with a name that is wanted."""
        names = {name for known in self._heard.values() for name in known if wanted(name)}
        return {
            address
            for known in self._heard.values()
            for name in known.keys() & names
            for address in known[name]
        }
