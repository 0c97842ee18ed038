"""Serving flows: a request becomes a walk through the store, and of what comes after it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from axoneme.flows.events import Mask, Records, take
from axoneme.flows.filters import Matcher
from axoneme.flows.flow import Item, LostEvents, ObserveRequest
from axoneme.flows.flowfilter import FilterError, FlowFilter
from axoneme.flows.flowlog import FlowLog
from axoneme.flows.store import Batch, Cursor
from axoneme.rpc import INVALID, RpcError
from axoneme.rpc import Batch as Items

#: Records that are looked at in one go: between two of these, others get their turn.
_PAGE = 1024

Accepts = Callable[[Records], Mask]


class Bell:
    """Wakes everybody who waits for something new."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        event, self._event = self._event, asyncio.Event()
        event.set()

    async def wait(self, seconds: float | None) -> None:
        """At most so long."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            pass


@dataclass(frozen=True, slots=True)
class Span:
    """Which part of the record somebody wants. Without ``last`` and ``since`` it begins with the oldest flow
    that is kept or, to ``follow``, with the present. Times are ns of the wall clock. ``after``: where an
    earlier page ended, whatever the rest says. ``last_of_all``: ``last`` counts back from the present, as it
    does for Hubble, and not from ``until``."""

    last: int | None = None
    follow: bool = False
    since: int | None = None
    until: int | None = None
    after: Cursor | None = None
    last_of_all: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """Accepted records, in order of time, what is missing before them, and where to go on."""

    records: Records
    lost: tuple[LostEvents, ...]
    next: Cursor


class Reader:
    """Walks through the record of a node. ``clocks`` gives CLOCK_MONOTONIC and the wall clock, in ns."""

    def __init__(self, log: FlowLog, bell: Bell, clocks: Callable[[], tuple[int, int]]) -> None:
        self.log = log
        self._store = log.store
        self._bell = bell
        self._clocks = clocks
        #: Walks that are going on.
        self.readers = 0

    async def pages(self, span: Span, accepts: Accepts) -> AsyncGenerator[Page]:
        """Pages with something in them; each record that ``accepts`` lets through once. Whoever does not ask
        for the next page in time loses what is overwritten meanwhile, and is told how much that was."""
        store = self._store
        stop = end = store.end()
        if span.until is not None and not span.follow:
            stop = store.since(self.monotonic(span.until) + 1)
        cursor = await self._begin(span, accepts, end if span.last_of_all else stop)
        cursor.told = cursor.told or self._losses()
        self.readers += 1
        try:
            while True:
                batch = store.read(cursor, _PAGE, None if span.follow else stop)
                accepted = _accepted(batch.records, accepts, span.until)
                lost = self._lost(batch, cursor)
                page = Page(accepted, lost, replace(cursor))
                if len(page.records) or page.lost:
                    yield page
                left = self._left(span)
                if left is not None and left <= 0 and not _within(batch, span):
                    return
                if len(batch.records):
                    await asyncio.sleep(0)
                elif span.follow:
                    await self._bell.wait(left)
                else:
                    return
        finally:
            self.readers -= 1

    async def _begin(self, span: Span, accepts: Accepts, end: Cursor) -> Cursor:
        if span.after is not None:
            return replace(span.after)
        if span.since is not None:
            begin = self._store.since(self.monotonic(span.since))
        elif span.follow and span.last is None:
            return replace(end)
        else:
            begin = self._store.beginning()
        if span.last is None:
            return begin
        looking = self._store.last(span.last, accepts, begin, end)
        while True:
            try:
                next(looking)
            except StopIteration as found:
                cursor: Cursor = found.value
                return cursor
            await asyncio.sleep(0)

    def _left(self, span: Span) -> float | None:
        """Seconds until a reader who follows has seen enough; None for ever."""
        if span.until is None or not span.follow:
            return None
        return (span.until - self._clocks()[1]) / 1e9

    def monotonic(self, wall: int) -> int:
        """When the wall clock showed so many ns, in ns of CLOCK_MONOTONIC."""
        monotonic, now = self._clocks()
        return max(0, wall - now + monotonic)

    def _losses(self) -> tuple[int, int, int]:
        """Before the store, since the start: flows, drops, requests."""
        return self._store.kernel_losses.flows, self._store.kernel_losses.drops, self._store.requests_lost

    def _lost(self, batch: Batch, cursor: Cursor) -> tuple[LostEvents, ...]:
        """What this reader missed, and what others lost since it was told last."""
        losses = self._losses()
        flows, drops, requests = (now - told for now, told in zip(losses, cursor.told or losses, strict=True))
        cursor.told = losses
        lost = (
            ("HUBBLE_RING_BUFFER", "flows", batch.lost_flows),
            ("HUBBLE_RING_BUFFER", "drops", batch.lost_drops),
            ("PERF_EVENT_RING_BUFFER", "flows", flows),
            ("PERF_EVENT_RING_BUFFER", "drops", drops),
            ("OBSERVER_EVENTS_QUEUE", "requests", requests),
        )
        return tuple(LostEvents(*each) for each in lost if each[-1] > 0)


class Observer:
    """Answers ``flows.observe``."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._encoder = reader.log.encoder()

    async def observe(self, request: ObserveRequest) -> AsyncIterator[Items]:
        if request.last is not None and request.last < 0:
            raise RpcError(INVALID, f"last: {request.last} flows; give 0 or more")
        matcher, node = self._matcher(request), self._reader.log.node
        span = Span(request.last, request.follow, request.since, request.until)
        async with aclosing(self._reader.pages(span, matcher.mask)) as pages:
            async for page in pages:
                lost = [Item(lost_events=each, node_name=node) for each in page.lost]
                flows = [Item(flow=flow, node_name=node) for flow in self._encoder.flows(page.records)]
                yield Items([*lost, *flows])

    def _matcher(self, request: ObserveRequest) -> Matcher:
        return matcher(self._reader.log, request.filters, request.not_filters)


def matcher(log: FlowLog, filters: Sequence[FlowFilter], not_filters: Sequence[FlowFilter]) -> Matcher:
    """`RpcError` for filters that mean nothing."""
    try:
        return log.matcher(filters, not_filters)
    except FilterError as error:
        raise RpcError(INVALID, str(error)) from error


def _accepted(records: Records, accepts: Accepts, until: int | None) -> Records:
    if not len(records):
        return records
    mask = accepts(records)
    if until is not None:
        mask &= records["wall"] <= until
    return take(records, mask)


def _within(batch: Batch, span: Span) -> bool:
    """Whether there are records, the first of them not too new."""
    times = batch.records["wall"]
    return bool(len(times) and (span.until is None or times[0] <= span.until))
