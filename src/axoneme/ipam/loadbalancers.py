"""Which service of type LoadBalancer has which addresses of which pools: as Cilium's LB IPAM documents it.

One function of all services and pools; nothing is remembered but what the services' own statuses say. So a
controller may be restarted or replaced at any moment, and comes to the same result:

1. What a service holds it keeps, as long as a pool (be it disabled) has the address and selects the service,
   the service still wants it, and no older one has it that would not share.
2. Then those who ask for certain addresses get them,
3. and last, who has none of a family that it wants gets one: one that it may share, else the lowest free one.

In each step the older service goes first, then the one whose name does. Pools that overlap are in conflict:
the newer one gives out nothing, as a disabled one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from axoneme.ipam.sharing import incompatibility
from axoneme.model.addresses import Address
from axoneme.model.exposure import BGP_CLASS, L2_CLASS, ExposedService
from axoneme.model.loadbalancerpool import Block, LoadBalancerPool

#: Namespace and name.
Key = tuple[str, str]

#: The condition by which a service's status says whether it has the addresses that it asks for.
SATISFIED: Final = "cilium.io/IPAMRequestSatisfied"
_NO_POOL: Final = "There are no enabled CiliumLoadBalancerIPPools that match this service"
_RAN_OUT: Final = "All enabled CiliumLoadBalancerIPPools that match this service ran out of allocatable IPs"
_OUR_CLASSES: Final = ("", L2_CLASS, BGP_CLASS)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a service gets: its addresses, and why they are not all that it asks for: a word and a sentence.

    ``reason`` is ``satisfied`` when they are.
    """

    addresses: tuple[Address, ...]
    reason: str = "satisfied"
    message: str = ""


@dataclass(frozen=True, slots=True)
class PoolState:
    """Why a pool is in conflict with another (empty: it is not), and how many addresses it can still give out
    and are in use."""

    conflict: str
    available: int
    used: int


@dataclass(frozen=True, slots=True)
class Assignment:
    """``released`` are the services that had addresses from here and are somebody else's now."""

    services: Mapping[Key, Verdict]
    released: frozenset[Key]
    pools: Mapping[str, PoolState]


def assign(
    services: Iterable[ExposedService],
    pools: Iterable[LoadBalancerPool],
    families: Collection[int] = (4, 6),
) -> Assignment:
    """``families``: the versions of IP that the cluster has."""
    every = sorted(services, key=lambda each: (each.created, each.key))
    work = _Assigning(sorted(pools, key=lambda each: (each.created, each.name)), tuple(sorted(families)))
    ours = [each for each in every if work.responsible(each)]
    for step in (work.keep, work.grant, work.give):
        for service in ours:
            step(service)
    mine = {each.key for each in ours}
    return Assignment(
        {each.key: work.verdict(each) for each in ours},
        frozenset(each.key for each in every if _has_condition(each) and each.key not in mine),
        work.states(),
    )


class _Range:
    """A block of a pool that gives out addresses; what lies before ``_next`` is taken."""

    def __init__(self, pool: LoadBalancerPool, block: Block) -> None:
        self.pool, self.block = pool, block
        self._next = int(block.first)

    def lowest(self, taken: Collection[Address]) -> Address | None:
        """The lowest address that is free. Nothing becomes free while addresses are assigned."""
        make = type(self.block.first)
        while self._next <= int(self.block.last):
            address = make(self._next)
            if address not in taken and not self.pool.reserves(address):
                return address
            self._next += 1
        return None


class _Assigning:
    """Who has what so far."""

    def __init__(self, pools: Sequence[LoadBalancerPool], families: tuple[int, ...]) -> None:
        self._families = families
        self._conflicts = _conflicts(pools)
        #: Those in conflict last: an address that two pools have is the older one's.
        self._pools = sorted(pools, key=lambda pool: pool.name in self._conflicts)
        self._ranges = [_Range(pool, block) for pool in pools if self._gives(pool) for block in pool.blocks]
        self._holders: dict[Address, list[ExposedService]] = {}
        self._origin: dict[Address, LoadBalancerPool] = {}
        self._held: dict[Key, list[Address]] = {}
        self._wanting: dict[Key, tuple[str, str]] = {}
        self._shared: dict[str, list[Address]] = {}

    def _gives(self, pool: LoadBalancerPool) -> bool:
        return not pool.disabled and pool.name not in self._conflicts

    def responsible(self, service: ExposedService) -> bool:
        """Without any pool only what once got addresses from one is looked at: others may give them out."""
        concerned = (
            service.service.type == "LoadBalancer" and service.service.load_balancer_class in _OUR_CLASSES
        )
        return concerned and (bool(self._pools) or _has_condition(service))

    # ---- the steps -----------------------------------------------------------------------------

    def keep(self, service: ExposedService) -> None:
        families = self._wanted_families(service)
        for address in service.held:
            wanted = address in service.requested if service.requested else address.version in families
            pool = next(self._having(address, service), None)
            if wanted and pool and not self._obstacle(service, address):
                self._hold(service, address, pool)

    def grant(self, service: ExposedService) -> None:
        for text in service.unreadable:
            self._lacks(service, "invalid_ip", f"{text!r} is no IP address")
        for address in service.requested:
            if address in self._held.get(service.key, ()):
                continue
            pool = next((each for each in self._having(address, service) if self._gives(each)), None)
            if pool is None:
                self._lacks(service, *self._why_none(address))
            elif pool.reserves(address):
                self._lacks(
                    service,
                    "reserved_ip",
                    f"The pool {pool.name!r} does not give out the first or last IP {address}",
                )
            elif obstacle := self._obstacle(service, address):
                self._lacks(service, *obstacle)
            else:
                self._hold(service, address, pool)

    def give(self, service: ExposedService) -> None:
        if service.requested or service.unreadable:
            return
        has = {address.version for address in self._held.get(service.key, ())}
        for family in self._wanted_families(service):
            if family in has:
                continue
            if family not in self._families:
                self._lacks(service, "no_pool", f"IPv{family} is not enabled in this cluster")
            elif found := self._to_share(service, family) or self._free(service, family):
                self._hold(service, *found)
            elif any(self._of(service, family)):
                self._lacks(service, "out_of_ips", _RAN_OUT)
            else:
                self._lacks(
                    service,
                    "no_pool",
                    "There are no enabled CiliumLoadBalancerIPPools that match this service",
                )

    # ---- their parts ---------------------------------------------------------------------------

    def _wanted_families(self, service: ExposedService) -> tuple[int, ...]:
        asked = service.service.families
        match service.service.family_policy:
            case "RequireDualStack":
                return (4, 6)
            case "PreferDualStack":
                return tuple(family for family in self._families if family in (asked or self._families))
        return asked[:1] or self._families[:1]

    def _having(self, address: Address, service: ExposedService | None = None) -> Iterator[LoadBalancerPool]:
        """The pools with an address that select the service."""
        for pool in self._pools:
            if any(address in block for block in pool.blocks) and (
                service is None or pool.selector.matches(service.labels)
            ):
                yield pool

    def _why_none(self, address: Address) -> tuple[str, str]:
        if any(map(self._gives, self._having(address))):
            return (
                "pool_selector_mismatch",
                f"The pool with the CIDR containing '{address}', doesn't select this service",
            )
        return "no_pool", f"No enabled pool exists with a CIDR containing '{address}'"

    def _obstacle(self, service: ExposedService, address: Address) -> tuple[str, str] | None:
        """Why the service cannot have the address beside those who have it."""
        for holder in self._holders.get(address, ()):
            if not service.sharing_key:
                return "already_allocated", f"The IP '{address}' is already allocated to another service"
            if reason := incompatibility(holder, service):
                return (
                    "already_allocated_incompatible_service",
                    f"The IP '{address}' is already allocated to an incompatible service. Reason: {reason}",
                )
        return None

    def _to_share(self, service: ExposedService, family: int) -> tuple[Address, LoadBalancerPool] | None:
        """The first address that was given to services with the same key and suits this one too."""
        for address in self._shared.get(service.sharing_key, ()):
            pool = self._origin[address]
            if (
                address.version == family
                and self._gives(pool)
                and pool.selector.matches(service.labels)
                and not self._obstacle(service, address)
            ):
                return address, pool
        return None

    def _of(self, service: ExposedService, family: int) -> Iterator[_Range]:
        for each in self._ranges:
            if each.block.first.version == family and each.pool.selector.matches(service.labels):
                yield each

    def _free(self, service: ExposedService, family: int) -> tuple[Address, LoadBalancerPool] | None:
        for each in self._of(service, family):
            address = each.lowest(self._holders)
            if address is not None:
                return address, each.pool
        return None

    def _hold(self, service: ExposedService, address: Address, pool: LoadBalancerPool) -> None:
        if address not in self._holders:
            self._holders[address], self._origin[address] = [], pool
            if service.sharing_key:
                self._shared.setdefault(service.sharing_key, []).append(address)
        self._holders[address].append(service)
        self._held.setdefault(service.key, []).append(address)

    def _lacks(self, service: ExposedService, reason: str, message: str) -> None:
        """The first thing that a service lacks is what it is told."""
        self._wanting.setdefault(service.key, (reason, message))

    # ---- the result ----------------------------------------------------------------------------

    def verdict(self, service: ExposedService) -> Verdict:
        addresses = tuple(self._held.get(service.key, ()))
        return Verdict(addresses, *self._wanting.get(service.key, ()))

    def states(self) -> dict[str, PoolState]:
        used: dict[str, list[Address]] = {pool.name: [] for pool in self._pools}
        for address, pool in self._origin.items():
            used[pool.name].append(address)
        return {pool.name: self._state(pool, used[pool.name]) for pool in self._pools}

    def _state(self, pool: LoadBalancerPool, used: Sequence[Address]) -> PoolState:
        reserved = sum(pool.reserves(end) for block in pool.blocks for end in {block.first, block.last})
        free = sum(block.size for block in pool.blocks) - reserved
        return PoolState(
            self._conflicts.get(pool.name, ""),
            free - sum(not pool.reserves(address) for address in used),
            len(used),
        )


def _has_condition(service: ExposedService) -> bool:
    return any(condition.type == SATISFIED for condition in service.conditions)


def _conflicts(pools: Sequence[LoadBalancerPool]) -> dict[str, str]:
    """Of ``pools``, oldest first: which overlap an older one that itself does not, or themselves, and how."""
    found: dict[str, str] = {}
    sound: list[LoadBalancerPool] = []
    for pool in pools:
        for index, block in enumerate(pool.blocks):
            others = [(pool.name, each) for each in pool.blocks[:index]]
            others += [(older.name, each) for older in sound for each in older.blocks]
            for name, its in others:
                if block.overlaps(its):
                    what = f"range '{block}' overlaps range '{its}' from IP Pool '{name}'"
                    found.setdefault(pool.name, f"Pool conflicts since {what}")
        if pool.name not in found:
            sound.append(pool)
    return found
