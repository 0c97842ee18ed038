"""The service map as it is now: one follower of all flows for everybody who looks."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing
from typing import Final

from axoneme.flows.flow import ObserveRequest
from axoneme.flows.flowfilter import FlowFilter
from axoneme.relay.merged import instant
from axoneme.ui import api
from axoneme.ui.events import Event
from axoneme.ui.feed import Feed, Gaps
from axoneme.ui.mapview import MapView
from axoneme.ui.servicemap import ServiceMap

log = logging.getLogger(__name__)

#: Seconds.
LONGEST_WINDOW: Final = 3600.0
_TICK: Final = 0.25
_COOL: Final = 1.0
#: What is taken of each node's record at the start.
_RECORDED_SECONDS: Final = 900
_MOST_RECORDED: Final = 20_000
#: What is looked at of each node's record for a span.
_MOST_OF_SPAN: Final = 200_000


class Watcher:
    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self.map = ServiceMap(feed.heard())
        self._gaps = Gaps()

    async def run(self) -> None:
        """Until cancelled."""
        newest: dict[str, str] = {}
        now = time.time_ns()
        recorded = ObserveRequest(since=now - _RECORDED_SECONDS * 1_000_000_000, last=_MOST_RECORDED)
        async with aclosing(self._feed.past(recorded, self._gaps, newest)) as flows:
            async for flow in flows:
                self.map.add(flow, instant(flow.time) / 1e9)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._fade())
            tasks.create_task(self._follow(ObserveRequest(since=now), newest))

    async def _follow(self, request: ObserveRequest, newest: dict[str, str]) -> None:
        async with aclosing(self._feed.live(request, self._gaps, newest)) as batches:
            async for batch in batches:
                now = time.time()
                for flow in batch:
                    self.map.add(flow, now)

    async def _fade(self) -> None:
        while True:
            await asyncio.sleep(_COOL)
            now = time.time()
            self.map.cool(now)
            self.map.forget(now - LONGEST_WINDOW)

    # ---- what is shown -----------------------------------------------------------------------------

    def state(self, namespaces: Collection[str], window: float) -> api.MapState:
        return MapView(self.map, namespaces, window).state(time.time(), self._gaps.absent(), self._gaps.lost)

    async def events(self, namespaces: Collection[str], window: float) -> AsyncGenerator[Event | None, None]:
        """The whole, then what changes."""
        view = MapView(self.map, namespaces, window)
        state = view.state(time.time(), self._gaps.absent(), self._gaps.lost)
        told = (state.not_shown, state.absent, state.lost)
        yield Event("map", state, str(state.revision))
        version, looked = self.map.version, time.monotonic()
        while True:
            await asyncio.sleep(_TICK)
            # Edges leave the window although nothing happens.
            if self.map.version == version and time.monotonic() - looked < _COOL:
                yield None
                continue
            version, looked = self.map.version, time.monotonic()
            delta = view.delta(time.time(), self._gaps.absent(), self._gaps.lost)
            now = (delta.not_shown, delta.absent, delta.lost)
            changed = delta.cards or delta.edges or delta.gone_cards or delta.gone_edges or now != told
            told = now
            yield Event("delta", delta, str(delta.revision)) if changed else None


async def of_span(feed: Feed, namespaces: Collection[str], since: int, until: int) -> api.MapState:
    """The map of what was recorded between two moments (ns of the wall clock)."""
    map_, gaps = ServiceMap(feed.heard()), Gaps()
    filters = [FlowFilter(namespace=tuple(namespaces))] if namespaces else []
    request = ObserveRequest(filters=filters, since=since, until=until, last=_MOST_OF_SPAN)
    async with aclosing(feed.past(request, gaps, {})) as flows:
        async for flow in flows:
            map_.add(flow, instant(flow.time) / 1e9)
    view = MapView(map_, namespaces, (until - since) / 1e9)
    return view.state(until / 1e9, gaps.absent(), gaps.lost, over=max(1e-3, (until - since) / 1e9))
