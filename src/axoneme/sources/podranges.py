"""Which node has which range of pod addresses: each claims its own, by compare and swap.

A claim is a key that names the range, so no two nodes can have the same. A node that asks again gets
what it had, as long as that still fits the cluster's pools. Claims stand until they are released, for
the pods of a node may outlive its agent.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network

import msgspec

from axoneme.model.state import POD_RANGES
from axoneme.sources.store import Conflict, Put, Store, StoreError

Network = IPv4Network | IPv6Network


class PodRangesExhausted(StoreError):
    """The cluster's pool has no range left for another node."""


def pod_range_key(prefix: Network) -> str:
    return POD_RANGES + str(prefix).replace("/", "_")


async def claim(store: Store, node: str, pools: Sequence[tuple[Network, int]]) -> list[Network]:
    """A range for ``node`` from each pool; a pool is the cluster's range and the nodes' prefix length.

    The ranges come in the order of the pools. PodRangesExhausted, ValueError for an impossible pool.
    """
    return [await _claim_one(store, node, pool, length) for pool, length in pools]


async def claims(store: Store) -> dict[Network, str]:
    """Every range that is claimed, and by which node."""
    listing = await store.list(POD_RANGES)
    return {_range(entry.key): msgspec.json.decode(entry.value, type=str) for entry in listing.entries}


async def release(store: Store, node: str) -> list[Network]:
    """Gives up all ranges of a node that has gone for good; which they were."""
    own = [prefix for prefix, owner in (await claims(store)).items() if owner == node]
    for prefix in own:
        await store.delete(pod_range_key(prefix))
    return own


async def _claim_one(store: Store, node: str, pool: Network, length: int) -> Network:
    if not pool.prefixlen <= length <= pool.max_prefixlen - 2:
        raise ValueError(
            f"pod range pool {pool}: nodes' prefix length {length}: expected"
            f" {pool.prefixlen} to {pool.max_prefixlen - 2}"
        )
    while True:
        claimed = await claims(store)
        for prefix, owner in claimed.items():
            if owner == node and prefix.prefixlen == length and _inside(prefix, pool):
                return prefix
        prefix = _lowest_free(pool, length, claimed)
        try:
            await store.transact(
                {pod_range_key(prefix): 0}, [Put(pod_range_key(prefix), msgspec.json.encode(node))]
            )
            return prefix
        except Conflict:
            continue  # another node was faster; look again


def _lowest_free(pool: Network, length: int, claimed: Iterable[Network]) -> Network:
    step = 1 << (pool.max_prefixlen - length)
    start, end = int(pool.network_address), int(pool.broadcast_address)
    taken = sorted(
        (int(other.network_address), int(other.broadcast_address))
        for other in claimed
        if other.version == pool.version and other.overlaps(pool)
    )
    for first, last in taken:
        if start + step - 1 < first:
            break
        # On to the first boundary behind this one, which may be of another length.
        start = max(start, last + 1 + (-(last + 1) % step))
    if start + step - 1 > end:
        total = 1 << (length - pool.prefixlen)
        raise PodRangesExhausted(
            f"pod range pool {pool}: no range of length /{length} is left for this node; of {total} ranges"
            f" {len(taken)} are claimed; add a pool, or make the nodes' ranges smaller"
        )
    return type(pool)((start, length))


def _inside(prefix: Network, pool: Network) -> bool:
    return prefix.version == pool.version and prefix.subnet_of(pool)  # type: ignore[arg-type]


def _range(key: str) -> Network:
    return ipaddress.ip_network(key.removeprefix(POD_RANGES).replace("_", "/"))
