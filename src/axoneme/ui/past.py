"""Time travel: what nodes have in memory, and before that what they have put on disk."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
from collections.abc import AsyncGenerator, Collection, Iterator, Mapping
from contextlib import aclosing
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec.structs

from axoneme.flows.flow import Flow, Item, ObserveRequest
from axoneme.flows.flowfilter import FilterError
from axoneme.rpc import INVALID, RpcError
from axoneme.ui.feed import Feed, Gaps

log = logging.getLogger(__name__)

#: Flows that are read at once, in a thread.
_PAGE: Final = 512
#: Flows of one question that are read from disk.
_MOST: Final = 500_000
#: The last so many are kept in memory to be given; for more, reading begins with the oldest.
_MOST_LAST: Final = 5001


def readable() -> bool:
    """Whether what reads history is installed."""
    return importlib.util.find_spec("pyarrow") is not None


class WithHistory:
    """A `Feed` of nodes of which some keep a history; ``directories`` by node."""

    def __init__(self, feed: Feed, directories: Mapping[str, Path]) -> None:
        from axoneme.history.recorded import Recorded

        self._feed = feed
        self._recorded = Recorded(directories)

    def nodes(self) -> list[str]:
        return self._feed.nodes()

    def heard(self) -> Collection[str] | None:
        return self._feed.heard()

    async def past(
        self, request: ObserveRequest, gaps: Gaps, newest: dict[str, str]
    ) -> AsyncGenerator[Flow, None]:
        begin = request.since
        if begin is not None:
            memory = await self._feed.recorded()
            edge = memory[0] if memory else _end_of(request)
            if begin < edge:
                until = min(edge - 1, _end_of(request))
                async with aclosing(self._read(request, begin, until, gaps)) as flows:
                    async for flow in flows:
                        yield flow
                request = msgspec.structs.replace(request, since=edge)
                if request.until is not None and request.until < edge:
                    return
        async with aclosing(self._feed.past(request, gaps, newest)) as flows:
            async for flow in flows:
                yield flow

    def live(
        self, request: ObserveRequest, gaps: Gaps, seen: Mapping[str, str]
    ) -> AsyncGenerator[list[Flow], None]:
        return self._feed.live(request, gaps, seen)

    async def recorded(self) -> tuple[int, int] | None:
        spans = [await self._feed.recorded(), await asyncio.to_thread(self._recorded.span)]
        found = [span for span in spans if span]
        return (min(first for first, _ in found), max(last for _, last in found)) if found else None

    async def _read(
        self, request: ObserveRequest, since: int, until: int, gaps: Gaps
    ) -> AsyncGenerator[Flow, None]:
        from axoneme.history.recorded import Wanted

        last = request.last if request.last is not None and request.last <= _MOST_LAST else None
        wanted = Wanted(since, until, request.filters, request.not_filters, last)
        count = 0
        try:
            items: Iterator[Item] = await asyncio.to_thread(self._recorded.read, wanted)
            while page := await asyncio.to_thread(lambda: list(islice(items, _PAGE))):
                for item in page:
                    if item.lost_events:
                        gaps.lost += item.lost_events.num_events_lost
                    if item.flow:
                        count += 1
                        yield item.flow
                if count >= _MOST:
                    gaps.nodes["history"] = f"only the first {count} flows of this time were read"
                    return
        except FilterError as error:
            raise RpcError(INVALID, str(error)) from error


def _end_of(request: ObserveRequest) -> int:
    return (1 << 63) - 1 if request.until is None else request.until
