"""A prefix of the store kept up to date for ever, whatever happens to the connection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing

import msgspec

from axoneme.sources.store import Change, Compacted, Listing, Store, Unavailable

log = logging.getLogger(__name__)

#: Changes at once, when everything is told anew.
_PART = 1000


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
) -> AsyncGenerator[Sync | list[Change], None]:
    """What is there, then a `Sync`, then every change.

    What is there comes as changes too, so a consumer needs one way to take them; in parts, of which each
    may be forgotten before the next is asked for. When changes were missed, the differences follow the
    same way: what is new or other, deletions for what vanished, and another `Sync`. A consumer never sees
    a key in a state older than one that it has seen.
    Lost connections are tried again for ever, after pauses (in seconds) that double.
    """
    known: dict[str, int] = {}
    after: int | None = None
    pause = first_pause
    while True:
        try:
            if after is None:
                listing = await store.list(prefix)
                news, known = _differences(known, listing), {e.key: e.revision for e in listing.entries}
                revision = listing.revision
                del listing
                for part in _parts(news):
                    yield part
                after, pause = revision, first_pause
                yield Sync(after)
            async with aclosing(store.watch(prefix, after)) as batches:
                async for batch in batches:
                    for change in batch:
                        if change.value is None:
                            known.pop(change.key, None)
                        else:
                            known[change.key] = change.revision
                    after, pause = batch[-1].revision, first_pause
                    yield batch
        except Compacted as error:
            log.info("%s: %s; listing anew", prefix, error)
            after = None
        except Unavailable as error:
            log.warning("%s: %s; trying again in %.2g s", prefix, error, pause)
            await sleep(pause)
            pause = min(2 * pause, longest_pause)


def _parts(changes: list[Change]) -> Iterator[list[Change]]:
    """``changes`` in pieces, emptied on the way: of a large cluster's values, most are gone by the end."""
    changes.reverse()
    while changes:
        part = changes[: -_PART - 1 : -1]
        del changes[-_PART:]
        yield part


def _differences(known: dict[str, int], listing: Listing) -> list[Change]:
    """What turns the state in which keys had the revisions ``known`` into the listing."""
    # A store that has lost its newest revisions (restored from a backup) gives them out again.
    went_back = any(revision > listing.revision for revision in known.values())
    there = {entry.key for entry in listing.entries}
    gone = [Change(key, None, listing.revision) for key in known if key not in there]
    return gone + [
        Change(entry.key, entry.value, entry.revision)
        for entry in listing.entries
        if went_back or known.get(entry.key) != entry.revision
    ]
