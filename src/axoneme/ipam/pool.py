"""A pool of pod addresses of one family.

The lowest address that has not been in use lately is given out. Addresses that were given back wait
until no other is left, the longest waiting first, so that a late packet, a peer's connection or another
node's outdated table rarely meets a new pod under an old address. Only the newest few thousand wait,
which for IPv4 is all of them.

The network's own address, its broadcast address and the gateway are never given out. In IPv6 the first
address belongs to the routers of the link (RFC 4291, 2.6.1), and there is no broadcast.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

#: Addresses given back that wait for their turn.
_WAITING = 4096


class AddressError(Exception):
    """An address cannot be had."""


class PoolExhausted(AddressError):
    """No address is left."""


class AddressInUse(AddressError):
    """The address has been given out already."""


class NotInPool(AddressError):
    """The address is outside the pool's ranges, or one that is never given out."""


def gateway(prefix: Network) -> Address:
    """The address that the pods of a range send to: the first after the network's own."""
    return prefix.network_address + 1


class Pool:
    """The addresses of ``prefixes``, which are of one family, do not overlap, and are used in order.

    ``excluded`` are never given out. ValueError for prefixes that cannot make a pool.
    """

    def __init__(self, prefixes: Sequence[Network], excluded: Iterable[Address] = ()) -> None:
        self._ranges = _check(prefixes)
        self._never = {gateway(prefix) for prefix in self._ranges} | set(excluded)
        self._used: set[Address] = set()
        self._waiting: OrderedDict[Address, None] = OrderedDict()
        #: For each range, the lowest address that may be free and not waiting.
        self._lowest = [_first(prefix) for prefix in self._ranges]

    @property
    def prefixes(self) -> tuple[Network, ...]:
        return tuple(self._ranges)

    @property
    def used(self) -> frozenset[Address]:
        return frozenset(self._used)

    @property
    def capacity(self) -> int:
        """How many addresses can be in use at once."""
        spans = sum(_last(prefix) - _first(prefix) + 1 for prefix in self._ranges)
        return spans - sum(self._is_ordinary(address) for address in self._never)

    def allocate(self, requested: Address | None = None) -> Address:
        """``requested``, or the next free address. PoolExhausted, AddressInUse or NotInPool."""
        if requested is None:
            address = self._next()
        else:
            if not self._is_ordinary(requested) or requested in self._never:
                raise NotInPool(f"{requested} cannot be given to a pod of {self._text()}")
            address = requested
        self.reserve(address)
        return address

    def reserve(self, address: Address) -> None:
        """Notes that ``address`` is in use, as a pod told from before a restart. AddressInUse.

        It may lie outside the pool, which then was another when the pod came.
        """
        if address in self._used:
            raise AddressInUse(f"{address} is in use already")
        self._used.add(address)
        self._waiting.pop(address, None)

    def release(self, address: Address) -> bool:
        """Whether it was in use."""
        if address not in self._used:
            return False
        self._used.remove(address)
        if self._is_ordinary(address):
            self._waiting[address] = None
            if len(self._waiting) > _WAITING:
                free, _ = self._waiting.popitem(last=False)
                at = next(at for at, prefix in enumerate(self._ranges) if free in prefix)
                self._lowest[at] = min(self._lowest[at], int(free))
        return True

    def _next(self) -> Address:
        for at, prefix in enumerate(self._ranges):
            kind = type(prefix.network_address)
            while self._lowest[at] <= _last(prefix):
                address = kind(self._lowest[at])
                if not (address in self._used or address in self._waiting or address in self._never):
                    return address
                self._lowest[at] += 1
        for address in self._waiting:
            if address not in self._never:
                return address
        used = sum(map(self._is_ordinary, self._used))
        raise PoolExhausted(
            f"no IPv{self._ranges[0].version} address is left: {used} of {self.capacity} in {self._text()}"
            " are in use; delete pods, or give nodes longer ranges"
        )

    def _is_ordinary(self, address: Address) -> bool:
        """Whether it lies in a range and is neither its network's own address nor its broadcast one."""
        return any(
            address.version == prefix.version and _first(prefix) <= int(address) <= _last(prefix)
            for prefix in self._ranges
        )

    def _text(self) -> str:
        return ", ".join(map(str, self._ranges))


def _first(prefix: Network) -> int:
    return int(prefix.network_address) + 1


def _last(prefix: Network) -> int:
    return int(prefix.broadcast_address) - (prefix.version == 4)


def _check(prefixes: Sequence[Network]) -> list[Network]:
    if not prefixes:
        raise ValueError("a pool of addresses needs at least one prefix")
    for at, prefix in enumerate(prefixes):
        if prefix.version != prefixes[0].version:
            raise ValueError(f"{prefix}: a pool has one address family; {prefixes[0]} is of the other")
        if prefix.num_addresses < 4:
            raise ValueError(f"{prefix}: too small for a gateway and pods; expected 4 addresses or more")
        for other in prefixes[:at]:
            if _last(prefix) >= _first(other) and _first(prefix) <= _last(other):
                raise ValueError(f"{prefix} overlaps {other}")
    return list(prefixes)
