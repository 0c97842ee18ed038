"""Whom a load balancer's address serves, by ``loadBalancerSourceRanges``."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from ipaddress import ip_network

from axoneme.services.balanced import Network

_ALL = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}


@lru_cache(maxsize=1024)
def served(ranges: tuple[Network, ...], deny: bool, version: int) -> tuple[Network, ...] | None:
    """The ranges of the family that are served; None: everybody.

    Ranges of one family only shut out the other family as a whole; those of a deny list leave it alone.
    """
    mine = sorted(
        {each for each in ranges if each.version == version}, key=lambda each: int(each.network_address)
    )
    if not ranges or (deny and not mine):
        return None
    return tuple(_outside(mine, _ALL[version])) if deny else tuple(mine)


def _outside(denied: list[Network], whole: Network) -> Iterator[Network]:
    """The largest ranges of ``whole`` that have nothing in common with any of ``denied``."""
    within = [each for each in denied if each.overlaps(whole)]
    if not within:
        yield whole
    elif all(each.prefixlen > whole.prefixlen for each in within):
        for half in whole.subnets():
            yield from _outside(within, half)
