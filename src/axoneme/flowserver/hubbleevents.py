"""``GetAgentEvents``: from the agent's file, which is read when somebody asks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, Final

from axoneme.flows.agentevents import EventReader
from axoneme.flowserver.hubbleobserver import span_of
from axoneme.hubble.agentevents import response_of

#: Seconds between two looks for somebody who follows.
_LOOK_EVERY: Final = 0.2


class AgentEvents:
    """``node``: its name, as Hubble writes it. ``clock``: ns of the wall clock."""

    def __init__(self, reader: EventReader, node: Callable[[], str], clock: Callable[[], int]) -> None:
        self._reader = reader
        self._node = node
        self._clock = clock

    async def events(self, request: Any) -> AsyncGenerator[Sequence[bytes]]:
        span, most = span_of(request)
        self._reader.catch_up()
        at = self._reader.first
        if span.follow and span.since is None and span.last is None:
            at = self._reader.next
        elif span.last is not None:
            at = max(at, self._reader.next - span.last)
        since, until = span.since or 0, span.until or 1 << 63
        while True:
            found = [each for each in self._reader.since(at) if since <= each.time <= until][:most]
            at = self._reader.next
            if found:
                yield [response_of(each, self._node()).SerializeToString() for each in found]
            if not span.follow or self._clock() > until:
                return
            await asyncio.sleep(_LOOK_EVERY)
            self._reader.catch_up()
