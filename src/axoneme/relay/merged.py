"""One stream of flows out of those of all nodes, in the order of time.

Each node's flow server sends its own flows in order. What is there already is merged as sorted lists are.
Of what still comes nobody knows whether another node has something earlier on its way; so each flow is
held back a moment, and then they leave in order; those of a single node leave at once. News of lost events
travels with its node's flows.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import cast

import msgspec.structs

from axoneme.flows.flow import Item, ObserveRequest
from axoneme.rpc import UNAVAILABLE, AsyncClient, Client, RpcError

#: Seconds that a flow waits for earlier ones of other nodes: more than a server needs to hear of one.
HOLD = 0.15
#: Seconds until a server that has gone is tried again.
RETRY = 0.5

#: Seconds that `kept` waits for a node.
_PATIENCE = 10.0
#: Flows that `kept` reads between two turns of others.
_PAGE = 128

#: Told of a node that does not answer, or answers again (None).
Absent = Callable[[str, RpcError | None], None]


def past(
    sockets: Mapping[str, Path], request: ObserveRequest, absent: Absent, newest: dict[str, str]
) -> Iterator[Item]:
    """What the nodes have kept; with ``last``, so many flows of all nodes together.

    ``newest`` gets the time of each node's newest flow, as far as its flows have been read.
    """

    def kept(node: str, path: Path) -> Iterator[tuple[str, Item]]:
        try:
            for time, item in _timed(Client(path).stream("flows.observe", request, Item)):
                newest[node] = time
                yield time, item
        except RpcError as failure:
            if failure.code != UNAVAILABLE:
                raise
            absent(node, failure)

    streams = (kept(node, path) for node, path in sockets.items())
    items = (item for _, item in heapq.merge(*streams, key=lambda each: each[0]))
    return items if request.last is None else iter(_last(items, request.last))


async def kept(
    sockets: Mapping[str, Path], request: ObserveRequest, absent: Absent, newest: dict[str, str]
) -> AsyncGenerator[Item, None]:
    """The same for programs that run an event loop; ``last`` is of each node."""
    heap: list[tuple[str, str, Item]] = []
    streams: dict[str, AsyncGenerator[Item, None]] = {}

    async def advance(node: str) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                item = await anext(streams[node])
        except StopAsyncIteration:
            return
        except TimeoutError:
            absent(node, RpcError(UNAVAILABLE, f"no further flow within {_PATIENCE:g} s"))
            return
        except RpcError as failure:
            if failure.code != UNAVAILABLE:
                raise
            absent(node, failure)
            return
        if item.flow:
            newest[node] = item.flow.time
        heapq.heappush(heap, (newest.get(node, ""), node, item))

    async with contextlib.AsyncExitStack() as stack:
        for node, path in sockets.items():
            stream = AsyncClient(path, _PATIENCE).stream("flows.observe", request, Item)
            streams[node] = await stack.enter_async_context(
                aclosing(cast(AsyncGenerator[Item, None], stream))
            )
        await asyncio.gather(*map(advance, sockets))
        for count in itertools.count(1):
            if not heap:
                return
            _, node, item = heapq.heappop(heap)
            yield item
            await advance(node)
            if count % _PAGE == 0:
                await asyncio.sleep(0)


def _timed(items: Iterable[Item]) -> Iterator[tuple[str, Item]]:
    """With the time of each; lost events stand where the flow before them stood."""
    time = ""
    for item in items:
        time = item.flow.time if item.flow else time
        yield time, item


def _last(items: Iterable[Item], count: int) -> deque[Item]:
    """The last ``count`` flows, and what was said of lost ones since."""
    kept: deque[Item] = deque()
    flows = 0
    for item in items:
        kept.append(item)
        flows += item.flow is not None
        while flows > count:
            flows -= kept.popleft().flow is not None
    return kept


@dataclass(slots=True)
class _Buffer:
    """Items in the order of time, each with the moment of its arrival."""

    _heap: list[tuple[str, int, float, Item]] = field(default_factory=list)
    _count: Iterator[int] = field(default_factory=itertools.count)

    def add(self, time: str, item: Item, now: float) -> None:
        heapq.heappush(self._heap, (time, next(self._count), now, item))

    def ripe(self, until: float) -> Iterator[Item]:
        """Those that have waited since ``until``, unless an earlier one still waits."""
        while self._heap and self._heap[0][2] <= until:
            yield heapq.heappop(self._heap)[3]


async def live(
    sockets: Mapping[str, Path], request: ObserveRequest, absent: Absent, seen: Mapping[str, str]
) -> AsyncGenerator[list[Item], None]:
    """What the nodes see from now on, in batches, until the time that is asked for or for ever.

    ``seen`` is the time of the newest flow that is known of a node; those behind it come first. A flow
    server that goes away is waited for, and then asked for what was missed.
    """
    loop = asyncio.get_running_loop()
    buffer, arrived = _Buffer(), asyncio.Event()
    hold = HOLD if len(sockets) > 1 else 0.0

    async def listen(node: str, path: Path) -> None:
        time, away = seen.get(node, ""), False
        while True:
            known = time  # servers find the place of a moment only roughly
            asked = msgspec.structs.replace(request, since=instant(time)) if time else request
            try:
                # No deadline: the first flow may take any time.
                stream = AsyncClient(path, timeout=None).stream("flows.observe", asked, Item)
                async with aclosing(cast(AsyncGenerator[Item, None], stream)) as items:
                    async for item in items:
                        if away:
                            away = False
                            absent(node, None)
                        if item.flow and item.flow.time <= known:
                            continue
                        time = item.flow.time if item.flow else time
                        buffer.add(time, item, loop.time())
                        arrived.set()
                return
            except RpcError as failure:
                if failure.code != UNAVAILABLE:
                    raise
                if not away:
                    absent(node, failure)
            away = True
            await asyncio.sleep(RETRY)

    tasks = [asyncio.ensure_future(listen(node, path)) for node, path in sockets.items()]
    try:
        while True:
            running = [task for task in tasks if not task.done()]
            for task in tasks:
                if task.done():
                    task.result()
            arrived.clear()
            if batch := list(buffer.ripe(loop.time() - hold if running else loop.time())):
                yield batch
            if not running:
                return
            if hold:
                await asyncio.wait(running, timeout=hold / 3, return_when=asyncio.FIRST_EXCEPTION)
            elif not arrived.is_set():
                more = asyncio.ensure_future(arrived.wait())
                await asyncio.wait([*running, more], return_when=asyncio.FIRST_COMPLETED)
                more.cancel()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def instant(time: str) -> int:
    """A flow's time in nanoseconds since 1970."""
    seconds, _, fraction = time.removesuffix("Z").partition(".")
    whole = datetime.fromisoformat(f"{seconds}+00:00")
    return int(whole.timestamp()) * 1_000_000_000 + int(fraction.ljust(9, "0")[:9])
