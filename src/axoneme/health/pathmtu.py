"""How large a packet a path carries, found by sending some that may not be fragmented."""

from __future__ import annotations

import errno

import msgspec

from axoneme.health.icmp import HEADERS, Pinger
from axoneme.health.ways import Way


class PathMtu(msgspec.Struct, frozen=True):
    """``carries``: bytes from the IP header on; 0 when not even small packets are answered. ``expected``:
    what the node sends at most. ``device``: what its own device lets out, where that is less."""

    node: str
    way: Way
    expected: int
    carries: int
    device: int = 0


async def measure(pinger: Pinger, node: str, way: Way, expected: int) -> PathMtu:
    """One packet where all is well; a dozen where large ones get lost."""
    if await _passes(pinger, way, expected):
        return PathMtu(node, way, expected, expected)
    low, high = HEADERS[way.version], expected
    if not await _passes(pinger, way, 0):
        return PathMtu(node, way, expected, 0)
    while high - low > 1:
        middle = (low + high) // 2
        if await _passes(pinger, way, middle):
            low = middle
        else:
            high = middle
    return PathMtu(node, way, expected, low, low if await _too_large_here(pinger, way, low + 1) else 0)


async def _passes(pinger: Pinger, way: Way, size: int) -> bool:
    try:
        await pinger.ask(way.address, size, patience=_PATIENCE)
    except OSError:
        return False
    return True


async def _too_large_here(pinger: Pinger, way: Way, size: int) -> bool:
    """Whether our own device refuses it."""
    try:
        await pinger.ask(way.address, size, patience=_PATIENCE)
    except OSError as error:
        return error.errno == errno.EMSGSIZE
    return False


#: Seconds: paths within a cluster are short, and the answer to a small packet has come.
_PATIENCE = 0.3
