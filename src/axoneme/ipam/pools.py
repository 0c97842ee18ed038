"""One address of each family for a pod: all of them, or none."""

from __future__ import annotations

from collections.abc import Iterable

from axoneme.ipam.pool import Address, Network, NotInPool, Pool


class AddressPools:
    """The pools of a node: one for each family of its ``ranges``."""

    def __init__(self, ranges: Iterable[Network], excluded: Iterable[Address] = ()) -> None:
        found, never = list(ranges), list(excluded)
        self.pools: dict[int, Pool] = {}
        for version in (4, 6):
            if own := [prefix for prefix in found if prefix.version == version]:
                self.pools[version] = Pool(own, [a for a in never if a.version == version])
        if not self.pools:
            raise ValueError("a node needs at least one pod range")

    def allocate(self, requested: Iterable[Address] = ()) -> tuple[Address, ...]:
        """One address of each family, IPv4 first; ``requested`` where it names one of the family."""
        wanted: dict[int, Address] = {}
        for address in requested:
            if address.version not in self.pools or address.version in wanted:
                raise NotInPool(f"{address}: a pod gets one address of each family in {self._families()}")
            wanted[address.version] = address
        taken: list[Address] = []
        try:
            for version, pool in self.pools.items():
                taken.append(pool.allocate(wanted.get(version)))
        except BaseException:
            self.release(taken)
            raise
        return tuple(taken)

    def reserve(self, addresses: Iterable[Address]) -> None:
        """Notes what a pod from before a restart uses. A family without pool needs no note."""
        for address in addresses:
            if pool := self.pools.get(address.version):
                pool.reserve(address)

    def release(self, addresses: Iterable[Address]) -> None:
        for address in addresses:
            if pool := self.pools.get(address.version):
                pool.release(address)

    def _families(self) -> str:
        return " and ".join(f"IPv{version}" for version in self.pools)
