"""Flows in rows: those that are recorded, those that come, and how many there were when."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict, deque
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from itertools import islice
from typing import Final

import msgspec

from axoneme.edges.recorded import served
from axoneme.flows.flow import Flow, ObserveRequest
from axoneme.relay.merged import instant
from axoneme.ui import api
from axoneme.ui.events import Event
from axoneme.ui.feed import Counts, Feed, Gaps, Sockets
from axoneme.ui.mapview import timestamp
from axoneme.ui.servicemap import PROTOCOLS, whose

_TICK: Final = 0.25
_MOST_ROWS: Final = 250
#: Seconds over which rates are averages, in steps of a tick.
_RATE_OVER: Final = 5.0
_MOST_BUSY: Final = 50
_MOST_PAIRS: Final = 5000
_MOST_COUNTED: Final = 200_000

#: Source, destination, their texts, port, protocol, verdict.
_Pair = tuple[str, str, str, str, int, str, str]


def row(flow: Flow) -> api.Row:
    return api.Row(id=f"{flow.time}-{hash(flow) & 0xFFFFFFFF:x}", flow=flow)


async def recorded(feed: Feed, request: ObserveRequest, last: int) -> api.FlowList:
    gaps = Gaps()
    kept: deque[Flow] = deque(maxlen=last + 1)
    wanted = msgspec.structs.replace(request, last=last + 1)
    async with aclosing(feed.past(wanted, gaps, {})) as flows:
        async for flow in flows:
            kept.append(flow)
    more = len(kept) > last
    return api.FlowList(
        flows=[row(flow) for flow in islice(kept, int(more), None)],
        more=more,
        lost=gaps.lost,
        absent=gaps.absent(),
    )


async def timeline(feed: Feed, request: ObserveRequest, since: int, until: int, buckets: int) -> api.Timeline:
    """``since`` and ``until``: ns of the wall clock."""
    width = max(1, (until - since) // buckets)
    wanted = msgspec.structs.replace(request, since=since, until=until, last=_MOST_COUNTED)
    if isinstance(feed, Sockets):
        counts = await feed.counts(wanted, since, width, buckets)
    else:
        counts = await _counted(feed, wanted, since, width, buckets)
    found = await feed.recorded()
    return api.Timeline(
        since=timestamp(since / 1e9),
        until=timestamp(until / 1e9),
        seconds=width / 1e9,
        verdicts=counts,
        recorded=api.Span(since=timestamp(found[0] / 1e9), until=timestamp(found[1] / 1e9))
        if found
        else None,
    )


async def _counted(feed: Feed, request: ObserveRequest, since: int, width: int, buckets: int) -> Counts:
    counts: Counts = defaultdict(lambda: [0] * buckets)
    async with aclosing(feed.past(request, Gaps(), {})) as flows:
        async for flow in flows:
            bucket = (instant(flow.time) - since) // width
            if 0 <= bucket < buckets:
                counts[flow.verdict][bucket] += 1
    return counts


class _Rates:
    """Counts of the last seconds."""

    def __init__(self) -> None:
        self._ticks: deque[tuple[float, Counter[str], Counter[_Pair]]] = deque()
        self._verdicts: Counter[str] = Counter()
        self._pairs: Counter[_Pair] = Counter()

    def add(self, flow: Flow) -> None:
        self._verdicts[flow.verdict] += 1
        if len(self._pairs) < _MOST_PAIRS and (pair := _pair(flow)):
            self._pairs[pair] += 1

    def tick(self, now: float) -> None:
        self._ticks.append((now, self._verdicts, self._pairs))
        self._verdicts, self._pairs = Counter(), Counter()
        while self._ticks and self._ticks[0][0] <= now - _RATE_OVER:
            self._ticks.popleft()

    def verdicts(self) -> dict[str, float]:
        total: Counter[str] = Counter()
        for _, counts, _ in self._ticks:
            total.update(counts)
        return {name: round(count / _RATE_OVER, 2) for name, count in total.items()}

    def busiest(self) -> Iterator[api.Busy]:
        total: Counter[_Pair] = Counter()
        for _, _, counts in self._ticks:
            total.update(counts)
        for pair, count in total.most_common(_MOST_BUSY):
            source, destination, source_text, destination_text, port, protocol, verdict = pair
            yield api.Busy(
                source=source,
                destination=destination,
                source_text=source_text,
                destination_text=destination_text,
                port=port,
                protocol=protocol,
                verdict=verdict,
                rate=count / _RATE_OVER,
            )


def _pair(flow: Flow) -> _Pair | None:
    ports = served(flow)
    if ports is None:
        return None
    protocol, source_port, port = ports
    source, destination = whose(flow.source), whose(flow.destination)
    if flow.is_reply:
        source, destination, port = destination, source, source_port
    return (
        source[0],
        destination[0],
        _text(source),
        _text(destination),
        port,
        PROTOCOLS.get(protocol, str(protocol)),
        flow.verdict,
    )


def _text(card: tuple[str, str, str, str, str]) -> str:
    _, _, namespace, name, _ = card
    return f"{namespace}/{name}" if namespace else name


class Follower:
    """One viewer of flows: takes all that come, and gives away the newest few when it is time."""

    def __init__(self, feed: Feed, request: ObserveRequest, last: int) -> None:
        self._feed = feed
        self._request = request
        self._last = last
        self._gaps = Gaps()
        self._lost = 0
        self._rows: deque[Flow] = deque(maxlen=_MOST_ROWS)
        self._came = 0
        self._rates = _Rates()
        self._number = 0

    async def events(self) -> AsyncGenerator[Event | None, None]:
        newest: dict[str, str] = {}
        now = time.time_ns()
        first = await self._recorded(newest)
        yield self._event(first)
        request = msgspec.structs.replace(self._request, since=now)
        listening = asyncio.ensure_future(self._listen(request, newest))
        try:
            told: object = None
            while not listening.done():
                await asyncio.sleep(_TICK)
                batch = self._batch()
                news = (batch.verdicts, batch.absent)
                yield self._event(batch) if batch.flows or batch.lost or news != told else None
                told = news
            listening.result()
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def _recorded(self, newest: dict[str, str]) -> api.FlowBatch:
        kept: deque[Flow] = deque(maxlen=self._last)
        wanted = msgspec.structs.replace(self._request, last=self._last)
        async with aclosing(self._feed.past(wanted, self._gaps, newest)) as flows:
            async for flow in flows:
                kept.append(flow)
        return api.FlowBatch(
            flows=[row(flow) for flow in kept],
            not_shown=0,
            rate=0.0,
            verdicts={},
            lost=0,
            absent=self._gaps.absent(),
        )

    async def _listen(self, request: ObserveRequest, newest: dict[str, str]) -> None:
        async with aclosing(self._feed.live(request, self._gaps, newest)) as batches:
            async for batch in batches:
                self._came += len(batch)
                self._rows.extend(batch)
                for flow in batch:
                    self._rates.add(flow)

    def _batch(self) -> api.FlowBatch:
        rows, came, lost = list(self._rows), self._came, self._gaps.lost - self._lost
        self._rows.clear()
        self._came, self._lost = 0, self._gaps.lost
        self._rates.tick(time.monotonic())
        verdicts = self._rates.verdicts()
        return api.FlowBatch(
            flows=[row(flow) for flow in rows],
            not_shown=came - len(rows),
            rate=round(sum(verdicts.values()), 2),
            verdicts=verdicts,
            lost=lost,
            absent=self._gaps.absent(),
            busiest=list(self._rates.busiest()) if came > len(rows) else msgspec.UNSET,
        )

    def _event(self, batch: api.FlowBatch) -> Event:
        self._number += 1
        return Event("flows", batch, str(self._number))
