"""From a standalone load balancer's desired state, and which backends are down, to what is balanced.

Pools: who gets which address must not depend on the order in which services came, or machines with one file
would differ. So each claim ranks the addresses of its pool by a digest of both; what is held is kept, and
the others choose in the order of their digests. Machines that start with the same file agree; one that has
held an address longer keeps it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from hashlib import sha256
from ipaddress import ip_address, ip_network
from typing import Final, NamedTuple

from axoneme.model.balancer import Backend, Desired, Pool, Service, pool_ranges
from axoneme.model.paths import ManifestError
from axoneme.model.policy import Protocol
from axoneme.services import balanced
from axoneme.services.balanced import Address, Algorithm, BackendState, Balanced, FrontendKind, Network

#: Of a range that is larger, the first so many addresses are given away.
_MOST_OF_A_RANGE: Final = 65536


class Claim(NamedTuple):
    """A frontend of a service that wants an address from a pool. Written ``web/public/ipv4``; those of one
    service that want the same get one address."""

    service: str
    pool: str
    family: str

    def __str__(self) -> str:
        return "/".join(self)


class Target(NamedTuple):
    """A backend of a service, by names."""

    service: str
    backend: str


def claims(desired: Desired) -> list[Claim]:
    """In the order of their names."""
    return sorted(
        {
            Claim(service.name, frontend.pool, frontend.family)
            for service in desired.services
            for frontend in service.frontends
            if frontend.pool
        }
    )


def assign(desired: Desired, held: Mapping[Claim, Address]) -> dict[Claim, Address]:
    """An address for each claim. `ManifestError` when a pool has not enough."""
    pools = {pool.name: pool for pool in desired.pools}
    stated = {
        ip_address(frontend.address)
        for service in desired.services
        for frontend in service.frontends
        if frontend.address
    }
    wanted = claims(desired)
    given = {
        claim: held[claim]
        for claim in wanted
        if claim in held and held[claim] not in stated and _has(pools[claim.pool], held[claim])
    }
    taken = stated | set(given.values())
    for claim in sorted((each for each in wanted if each not in given), key=lambda each: _digest(str(each))):
        free = (each for each in _addresses(pools[claim.pool], claim.family) if each not in taken)
        chosen = min(free, key=lambda each: _digest(f"{claim} {each}"), default=None)
        if chosen is None:
            raise ManifestError(
                f"pools {claim.pool}",
                f"no free address of {claim.family} for service {claim.service}",
                "give the pool another range",
            )
        taken.add(chosen)
        given[claim] = chosen
    return given


def compile_all(
    desired: Desired, addresses: Mapping[Claim, Address], down: Collection[Target]
) -> list[Balanced]:
    """Each port of each service, in order. ``addresses`` as `assign` gave them."""
    return [each for service in desired.services for each in _compile(service, addresses, down)]


def _compile(
    service: Service, addresses: Mapping[Claim, Address], down: Collection[Target]
) -> Iterator[Balanced]:
    ranges = None
    if service.source_ranges is not None:
        ranges = tuple(ip_network(text, strict=False) for text in service.source_ranges)
    fronts: dict[tuple[int, Protocol], dict[Address, None]] = {}
    for frontend in service.frontends:
        claim = Claim(service.name, frontend.pool, frontend.family)
        address = ip_address(frontend.address) if frontend.address else addresses[claim]
        for port in frontend.all_ports():
            fronts.setdefault((port, Protocol[frontend.protocol]), {})[address] = None
    standing = _standing(service, down)
    for (port, protocol), found in fronts.items():
        yield Balanced(
            service.name,
            f"{port}/{protocol.name}",
            protocol,
            tuple(
                balanced.Frontend(
                    address,
                    port,
                    protocol,
                    FrontendKind.BALANCER,
                    external=True,
                    source_ranges=ranges,
                    wrapped=service.mode == "dsr",
                )
                for address in found
            ),
            tuple(_backend(backend, port, active) for backend, active in standing),
            algorithm=Algorithm(service.algorithm),
            affinity=service.affinity,
        )


def _standing(service: Service, down: Collection[Target]) -> list[tuple[Backend, bool]]:
    """The backends that connections may be with, and whether new ones begin there."""
    out = {each.called for each in service.backends if Target(service.name, each.called) in down}
    willing = [each for each in service.backends if not each.drain and each.weight]
    if service.when_all_down == "all" and all(each.called in out for each in willing):
        out = set()
    return [
        (backend, backend in willing and backend.called not in out)
        for backend in service.backends
        if backend.called not in out or service.when_down == "keep"
    ]


def _backend(backend: Backend, called: int, active: bool) -> balanced.Backend:
    return balanced.Backend(
        ip_address(backend.address),
        backend.port or called,
        backend.weight if active else 0,
        BackendState.ACTIVE if active else BackendState.LEAVING,
        name=backend.called,
    )


def _addresses(pool: Pool, family: str) -> Iterator[Address]:
    for network in pool_ranges(pool):
        if f"ipv{network.version}" == family:
            yield from _usable(network)


def _usable(network: Network) -> Iterator[Address]:
    """Without the network's own and its broadcast address, where there are such."""
    bare = 1 if network.num_addresses > 2 else 0
    last = network.num_addresses - (bare if network.version == 4 else 0)
    for number in range(bare, min(last, _MOST_OF_A_RANGE)):
        yield network[number]


def _has(pool: Pool, address: Address) -> bool:
    return any(address in network for network in pool_ranges(pool) if network.version == address.version)


def _digest(text: str) -> bytes:
    return sha256(text.encode()).digest()
