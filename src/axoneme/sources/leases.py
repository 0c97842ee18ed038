"""Keeping a lease alive for as long as somebody needs it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from axoneme.sources.store import Lease, Store, Unavailable

log = logging.getLogger(__name__)


async def keep_alive(
    store: Store, lease: Lease, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> None:
    """Renews ``lease`` three times in its life, more often while the store cannot be reached.

    Runs until it is cancelled, or raises LeaseExpired: whoever holds keys by the lease must put them
    again under a new one.
    """
    pause = lease.ttl / 3
    while True:
        await sleep(pause)
        try:
            await store.keep_alive(lease)
            pause = lease.ttl / 3
        except Unavailable as error:
            log.warning("lease %d could not be renewed: %s", lease.id, error)
            pause = lease.ttl / 20
