"""A recording, for a while: packets from the taps and flows from their servers, to one recorder."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Final

from axoneme.capture.recorder import HOLD, Recorder
from axoneme.capture.taps import Tap
from axoneme.flows.flow import Item

#: Packets that are read from one node before others get their turn; seconds from one look to the next.
_AT_ONCE: Final = 256
_PAUSE: Final = 0.05

#: A flow's time in nanoseconds since 1970, from its text.
Instant = Callable[[str], int]


async def record(
    recorder: Recorder,
    taps: Mapping[str, Tap],
    flows: AsyncGenerator[list[Item]],
    instant: Instant,
    seconds: float | None,
    stop: asyncio.Event,
) -> None:
    """Until ``stop``, or so many seconds are over, or the recorder is full; then what is on its way is waited
    for, and the file completed."""
    loop = asyncio.get_running_loop()
    for node, tap in taps.items():
        loop.add_reader(tap, _read, recorder, node, tap)
    listening = asyncio.ensure_future(_listen(recorder, flows, instant))
    over = None if seconds is None else loop.time() + seconds
    try:
        while not (recorder.full or stop.is_set() or listening.done() or (over and loop.time() >= over)):
            await asyncio.sleep(_PAUSE)
            recorder.settle(time.time_ns())
    finally:
        for node, tap in taps.items():
            loop.remove_reader(tap)
            recorder.lose(node, tap.losses().lost)
    if not recorder.full:
        await asyncio.wait([listening], timeout=HOLD / 1e9)
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    recorder.finish(time.time_ns())
    if listening.done() and not listening.cancelled() and (failure := listening.exception()):
        raise failure


def hear(recorder: Recorder, items: Iterable[Item], instant: Instant) -> None:
    for item in items:
        if item.flow is not None:
            recorder.hear(item.node_name, item.flow, instant(item.flow.time))


async def _listen(recorder: Recorder, flows: AsyncGenerator[list[Item]], instant: Instant) -> None:
    async with aclosing(flows) as batches:
        async for batch in batches:
            hear(recorder, batch, instant)


def _read(recorder: Recorder, node: str, tap: Tap) -> None:
    recorder.see(node, tap.read(_AT_ONCE))
