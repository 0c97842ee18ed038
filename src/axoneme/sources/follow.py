"""A prefix of the store kept up to date for ever, whatever happens to the connection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import cast

import msgspec

from axoneme.sources.store import Change, Compacted, Store, Unavailable

log = logging.getLogger(__name__)


class Sync(msgspec.Struct, frozen=True):
    """Everything that stood under the prefix at ``revision`` has been yielded."""

    revision: int


async def follow(
    store: Store,
    prefix: str,
    *,
    first_pause: float = 0.05,
    longest_pause: float = 5.0,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncIterator[Sync | list[Change]]:
    """What is there, then a `Sync`, then every change.

    What is there comes as changes too, so a consumer needs one way to take them. When changes were
    missed, the differences follow the same way: what is new or other, deletions for what vanished,
    and another `Sync`. A consumer never sees a key in a state older than one that it has seen.
    Lost connections are tried again for ever, after pauses (in seconds) that double.
    """
    known: dict[str, int] = {}
    after: int | None = None
    pause = first_pause
    while True:
        try:
            if after is None:
                listing = await store.list(prefix)
                if changes := _difference(known, listing.revision, listing.entries):
                    yield changes
                after = listing.revision
                yield Sync(after)
            # The cast: a watch is an async generator, which the protocol need not say.
            async with aclosing(cast("_Closable", store.watch(prefix, after))) as batches:
                pause = first_pause
                async for batch in batches:
                    for change in batch:
                        if change.value is None:
                            known.pop(change.key, None)
                        else:
                            known[change.key] = change.revision
                    after = batch[-1].revision
                    yield batch
        except Compacted as error:
            log.info("%s: %s; listing anew", prefix, error)
            after = None
        except Unavailable as error:
            log.warning("%s: %s; trying again in %.2g s", prefix, error, pause)
            await sleep(pause)
            pause = min(2 * pause, longest_pause)
