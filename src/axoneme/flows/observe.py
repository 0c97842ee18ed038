"""Serving flows: a request becomes a walk through the store, and of what comes after it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

from axoneme.flows.encode import Encoder
from axoneme.flows.events import Vocabulary, take
from axoneme.flows.filters import Matcher
from axoneme.flows.flow import Item, LostEvents, ObserveRequest
from axoneme.flows.flowfilter import FilterError
from axoneme.flows.names import Names
from axoneme.flows.requests import Requests
from axoneme.flows.servicenames import ServiceNames
from axoneme.flows.store import Batch, Cursor, FlowStore
from axoneme.rpc import INVALID, RpcError
from axoneme.rpc import Batch as Items

#: Records that are looked at in one go: between two of these, others get their turn.
_PAGE = 1024


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


@dataclass(slots=True)
class _Told:
    """How many events a reader knows to be lost before they got into the store."""

    flows: int
    drops: int
    requests: int


class Observer:
    """Answers ``flows.observe``. ``clocks`` gives CLOCK_MONOTONIC and the wall clock, in ns."""

    def __init__(
        self,
        store: FlowStore,
        names: Names,
        services: ServiceNames,
        requests: Requests,
        encoder: Encoder,
        vocabulary: Vocabulary,
        node: str,
        bell: Bell,
        clocks: Callable[[], tuple[int, int]],
    ) -> None:
        self._store = store
        self._names = names
        self._services = services
        self._requests = requests
        self._encoder = encoder
        self._vocabulary = vocabulary
        self._node = node
        self._bell = bell
        self._clocks = clocks
        #: Requests that are being answered.
        self.readers = 0

    async def observe(self, request: ObserveRequest) -> AsyncIterator[Items]:
        matcher = self._matcher(request)
        cursor, stop = self._begin(request, matcher), self._store.end()
        if request.until is not None and not request.follow:
            stop = self._store.since(self._monotonic(request.until) + 1)
        losses = _Told(
            self._store.kernel_losses.flows, self._store.kernel_losses.drops, self._store.requests_lost
        )
        self.readers += 1
        try:
            while True:
                batch = self._store.read(cursor, _PAGE, None if request.follow else stop)
                items = [*self._lost(batch, losses), *self._flows(batch, matcher, request.until)]
                if items:
                    yield Items(items)
                left = self._left(request)
                if left is not None and left <= 0 and not self._within(batch, request):
                    return
                if len(batch.records):
                    await asyncio.sleep(0)
                elif request.follow:
                    await self._bell.wait(left)
                else:
                    return
        finally:
            self.readers -= 1

    def _matcher(self, request: ObserveRequest) -> Matcher:
        try:
            return Matcher(
                request.filters,
                request.not_filters,
                names=self._names,
                services=self._services,
                requests=self._requests,
                node=self._node,
                vocabulary=self._vocabulary,
            )
        except FilterError as error:
            raise RpcError(INVALID, str(error)) from error

    def _begin(self, request: ObserveRequest, matcher: Matcher) -> Cursor:
        if request.since is not None:
            begin = self._store.since(self._monotonic(request.since))
        elif request.follow and request.last is None:
            return self._store.end()
        else:
            begin = self._store.beginning()
        if request.last is None:
            return begin
        if request.last < 0:
            raise RpcError(INVALID, f"last: {request.last} flows; give 0 or more")
        return self._store.last(request.last, matcher.mask, begin)

    def _left(self, request: ObserveRequest) -> float | None:
        """Seconds until a reader who follows has seen enough; None for ever."""
        if request.until is None or not request.follow:
            return None
        return (request.until - self._clocks()[1]) / 1e9

    @staticmethod
    def _within(batch: Batch, request: ObserveRequest) -> bool:
        """Whether there are records, the first of them not too new."""
        times = batch.records["wall"]
        return bool(len(times) and (request.until is None or times[0] <= request.until))

    def _monotonic(self, wall: int) -> int:
        monotonic, now = self._clocks()
        return max(0, wall - now + monotonic)

    def _flows(self, batch: Batch, matcher: Matcher, until: int | None) -> Iterator[Item]:
        records = batch.records
        if not len(records):
            return
        mask = matcher.mask(records)
        if until is not None:
            mask &= records["wall"] <= until
        for flow in self._encoder.flows(take(records, mask)):
            yield Item(flow=flow, node_name=self._node)

    def _lost(self, batch: Batch, told: _Told) -> Iterator[Item]:
        """What this reader missed, and what others lost since it was told last."""
        kernel = self._store.kernel_losses
        for source, ring, count in (
            ("HUBBLE_RING_BUFFER", "flows", batch.lost_flows),
            ("HUBBLE_RING_BUFFER", "drops", batch.lost_drops),
            ("PERF_EVENT_RING_BUFFER", "flows", kernel.flows - told.flows),
            ("PERF_EVENT_RING_BUFFER", "drops", kernel.drops - told.drops),
            ("OBSERVER_EVENTS_QUEUE", "requests", self._store.requests_lost - told.requests),
        ):
            if count > 0:
                yield Item(lost_events=LostEvents(source, ring, count), node_name=self._node)
        told.flows, told.drops, told.requests = kernel.flows, kernel.drops, self._store.requests_lost
