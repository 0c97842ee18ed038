"""One stream out of those of all nodes, for one client.

What the nodes have kept comes first, merged as sorted lists are: the slowest node that still sends sets the
pace, and a client that reads slowly holds up its own streams, which costs the nodes nothing: they have their
record anyway. Then comes what happens: it is taken from the nodes at once, whatever the client does; what it
does not take in time waits here, up to a bound, and is lost beyond that, and told to it.

News of nodes stands in the same stream: who is there at the beginning, and what changes.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Collection, Iterable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from axoneme.hubble.client import HubbleError
from axoneme.hubble.schema import enum, message, serialized
from axoneme.hubble.serving import CallError
from axoneme.relay.pool import Change, Node, Pool, State
from axoneme.relay.sorting import Sorter

#: Replies of a node that wait to be merged with those of others, before its stream is held up.
_AHEAD: Final = 512
#: Replies that go out at once.
_BULK: Final = 1024
#: A request for so many wants all that there are: `hubble observe --all` asks for 2^64 - 1.
_EVERYTHING: Final = 1 << 32

#: Nanoseconds: nodes find the place of a moment a little too early or too late.
_ROUGHLY: Final = 5_000_000
#: Codes of nodes that may answer later.
_GONE: Final = ("UNAVAILABLE", "DEADLINE_EXCEEDED")


@dataclass(frozen=True, slots=True)
class Limits:
    """``window``: seconds that a flow waits for earlier ones of other nodes, where it cannot be known that
    none will come. ``unread``: bytes that wait for a client that follows; ``newest``: bytes of the newest so
    many that a client asked for."""

    window: float = 0.1
    unread: int = 16 << 20
    newest: int = 64 << 20


@dataclass(slots=True)
class Counts:
    """Of all calls: replies passed on, and lost because a client did not read them in time; calls that go
    on."""

    passed: int = 0
    unread: int = 0
    calls: int = 0


class Gathering:
    """``method``: one of the Observer's that stream; ``name``: the relay's own, in news of its own."""

    def __init__(
        self, pool: Pool, method: str, request: Any, limits: Limits, counts: Counts, name: str
    ) -> None:
        self._pool = pool
        self._method = method
        self._request = request
        self._limits = limits
        self._counts = counts
        self._reply = message(f"observer.{method}Response")
        self._stamp = message("axoneme.Stamp")
        self._name = name
        self._began = time.time_ns()
        #: The time of the newest reply of each node; the nodes that have said all that they had kept.
        self._newest: dict[str, int] = {}
        self._heard_out: set[str] = set()
        self._news: list[Change] = []
        #: What the client has been told of each node.
        self._states: dict[str, State] = {}
        self._refusals: dict[str, HubbleError] = {}
        self._moved = asyncio.Event()

    async def bulks(self) -> AsyncGenerator[Sequence[bytes]]:
        """Serialized replies. `CallError` for a request that no node can answer."""
        request = self._request
        if request.first and request.follow:
            raise CallError("INVALID_ARGUMENT", "first and follow: give one of them")
        await self._pool.settled()
        self._counts.calls += 1
        try:
            with self._pool.listening(self._hear):
                if news := list(self._who_is_there()):
                    yield news
                if not request.follow or request.number or request.HasField("since"):
                    async for bulk in self._past():
                        yield bulk
                    if news := list(self._told()):
                        yield news
                if request.follow:
                    async for bulk in self._present():
                        yield bulk
        finally:
            self._counts.calls -= 1

    # ---- what the nodes have kept --------------------------------------------------------------

    async def _past(self) -> AsyncGenerator[Sequence[bytes]]:
        request, number = self._request, self._number()
        backwards = not request.first and not request.HasField("since")
        newest = _Newest(number, self._limits.newest) if number and backwards else None
        left = 0 if backwards else number
        async with aclosing(self._kept()) as bulks:
            async for bulk in bulks:
                if newest is not None:
                    newest.add(bulk)
                elif left:
                    yield bulk[:left]
                    left -= len(bulk[:left])
                    if not left:
                        return
                else:
                    yield bulk
        if newest is not None:
            for bulk in _cut(list(newest.kept)):
                yield bulk

    def _number(self) -> int:
        """0: no bound. As a node has it: who follows since a time gets all."""
        request = self._request
        if request.number >= _EVERYTHING or (request.follow and request.HasField("since")):
            return 0
        return int(request.number)

    async def _kept(self) -> AsyncGenerator[list[bytes]]:
        """In order, as far as it is known that nothing earlier comes."""
        asked, sorter = self._copy(follow=False), Sorter()
        asked.number = self._number()
        nodes = self._pool.connected()

        async def read(node: Node) -> None:
            name = node.peer.name
            try:
                async with aclosing(node.bulks(self._method, asked)) as bulks:
                    while (bulk := await self._next(bulks)) is not None:
                        sorter.add(name, self._stamped(name, bulk), 0)
                        self._moved.set()
                        while sorter.waiting(name) > _AHEAD:
                            taken.clear()
                            await taken.wait()
                self._heard_out.add(name)
            except HubbleError as error:
                self._failed(name, error)
            finally:
                sorter.close(name)
                self._moved.set()

        taken = asyncio.Event()
        for node in nodes:
            sorter.open(node.peer.name)
        async with _running([read(node) for node in nodes]) as running:
            while True:
                self._moved.clear()
                self._refuse()
                if ripe := sorter.ripe(0):
                    taken.set()
                    for bulk in self._passed(ripe):
                        yield bulk
                elif all(task.done() for task in running):
                    return
                else:
                    await self._moved.wait()

    async def _next(self, bulks: AsyncGenerator[list[bytes]]) -> list[bytes] | None:
        """None at the end. A node that says nothing for too long is not waited for: it hangs."""
        patience = self._pool.patience.call
        try:
            async with asyncio.timeout(patience):
                return await anext(bulks, None)
        except TimeoutError:
            raise HubbleError("", "DEADLINE_EXCEEDED", f"nothing within {patience:g} s") from None

    # ---- what happens --------------------------------------------------------------------------

    async def _present(self) -> AsyncGenerator[Sequence[bytes]]:
        loop = asyncio.get_running_loop()
        window = self._limits.window
        sorter = Sorter(window)
        lost: dict[str, int] = {}
        ended: set[str] = set()

        async def read(node: Node, request: Any) -> None:
            name = node.peer.name
            known = self._newest.get(name, -1)
            try:
                async with aclosing(node.bulks(self._method, request)) as bulks:
                    async for bulk in bulks:
                        self._hear(Change(name, State.NODE_CONNECTED))
                        items = self._stamped(name, bulk)
                        if any(0 < at <= known for at, _ in items):
                            items = [item for item in items if not 0 < item[0] <= known]
                        if sorter.size < self._limits.unread:
                            sorter.add(name, items, loop.time())
                        else:
                            lost[name] = lost.get(name, 0) + len(items)
                            self._counts.unread += len(items)
                        self._moved.set()
                ended.add(name)  # it has reached the end of what was asked for
            except HubbleError as error:
                self._failed(name, error)
                if error.code not in _GONE:
                    ended.add(name)
                    return
                await asyncio.sleep(self._pool.patience.retry)
            finally:
                sorter.close(name)
                self._moved.set()

        begun = self._request.number or self._request.HasField("since")
        async with _tasks() as reading:
            while True:
                self._moved.clear()
                self._refuse()
                for node in self._pool.connected():
                    name = node.peer.name
                    if name not in ended and name not in reading:
                        sorter.open(name)
                        request = self._from_now_on(name, late=bool(begun))
                        reading[name] = asyncio.ensure_future(read(node, request))
                begun = True
                for name in [name for name, task in reading.items() if task.done()]:
                    reading.pop(name).result()
                    self._moved.set()
                if news := list(self._told()):
                    yield news
                # Of a single node nothing can be too early.
                now = loop.time() + (window if len(reading) < 2 else 0)
                for bulk in self._passed(sorter.ripe(now)):
                    yield bulk
                if lost:
                    yield [self._loss(name, count) for name, count in lost.items()]
                    lost.clear()
                left = self._left()
                if self._awaited(left) <= ended and not sorter and (ended or left == 0):
                    return
                # Several at a time: what arrives within a few milliseconds leaves together.
                await _either(self._moved, window / 4 if sorter else left or None)
                if sorter and len(reading) > 1:
                    await asyncio.sleep(window / 10)

    def _left(self) -> float | None:
        """Seconds until the time up to which somebody follows; None for ever."""
        if not self._request.HasField("until"):
            return None
        return max(0.0, float(self._request.until.ToNanoseconds() - time.time_ns()) / 1e9)

    def _awaited(self, left: float | None) -> set[str]:
        """The nodes that have to come to an end; when it is time, those alone that answer."""
        return {node.peer.name for node in self._pool.connected()} if left == 0 else {*self._pool.nodes}

    def _from_now_on(self, name: str, late: bool) -> Any:
        """The request for what a node has not told yet; ``late``: the call goes on for a while already."""
        request = self._copy(follow=True)
        request.number = 0
        request.ClearField("since")
        if name in self._newest:
            request.since.FromNanoseconds(max(1, self._newest[name] - _ROUGHLY))
        elif name in self._heard_out:  # it had nothing of this
            request.since.FromNanoseconds(1)
        elif late:
            request.since.FromNanoseconds(self._began)
        return request

    # ---- both ----------------------------------------------------------------------------------

    def _copy(self, follow: bool) -> Any:
        made = type(self._request)()
        made.CopyFrom(self._request)
        made.follow = follow
        return made

    def _stamped(self, node: str, bulk: Iterable[bytes]) -> list[tuple[int, bytes]]:
        """News of losses without a time: theirs is that of the telling, and older flows may come behind."""
        parse = self._stamp.FromString
        found = []
        for data in bulk:
            stamp = parse(data)
            at = stamp.time
            found.append((0 if stamp.lost_events else at.seconds * 1_000_000_000 + at.nanos, data))
        if found:
            self._newest[node] = max(self._newest.get(node, 0), *(each for each, _ in found))
        return found

    def _passed(self, ripe: list[bytes]) -> Iterator[list[bytes]]:
        self._counts.passed += len(ripe)
        return _cut(ripe)

    def _hear(self, change: Change) -> None:
        if self._states.get(change.node) is not change.state:
            self._states[change.node] = change.state
            self._news.append(change)
            self._moved.set()

    def _failed(self, node: str, error: HubbleError) -> None:
        """What a node answered to this request."""
        if error.code in _GONE:
            self._hear(Change(node, State.NODE_UNAVAILABLE, error.why))
            return
        self._refusals[node] = error
        self._hear(Change(node, State.NODE_ERROR, error.why))

    def _refuse(self) -> None:
        """Fails where every node would answer so."""
        for error in self._refusals.values():
            everywhere = self._refusals.keys() >= self._pool.nodes.keys()
            if error.code == "INVALID_ARGUMENT" or everywhere:
                raise CallError(error.code, error.why)

    def _who_is_there(self) -> Iterator[bytes]:
        for node in self._pool.nodes.values():
            if node.state:
                self._hear(Change(node.peer.name, node.state, node.why))
        return self._told()

    def _told(self) -> Iterator[bytes]:
        """The news, those of one kind together."""
        by_kind: dict[tuple[State, str], list[str]] = {}
        for change in self._news:
            by_kind.setdefault((change.state, change.why), []).append(change.node)
        self._news.clear()
        if "node_status" in self._reply.DESCRIPTOR.fields_by_name:
            for (state, why), nodes in by_kind.items():
                told = self._own()
                told.node_status.state_change = state
                told.node_status.node_names.extend(nodes)
                told.node_status.message = why
                yield serialized(told)

    def _loss(self, node: str, count: int) -> bytes:
        told = self._own()
        told.node_name = node
        told.lost_events.source = enum("flow.LostEventSource")["OBSERVER_EVENTS_QUEUE"]
        told.lost_events.num_events_lost = count
        return serialized(told)

    def _own(self) -> Any:
        made = self._reply(node_name=self._name)
        made.time.GetCurrentTime()
        return made


class _Newest:
    """The last ``number`` of many."""

    def __init__(self, number: int, size: int) -> None:
        self.kept: deque[bytes] = deque()
        self._number = number
        self._left = size
        self._size = size

    def add(self, bulk: Iterable[bytes]) -> None:
        """`CallError` when they are more than shall be held in memory."""
        for each in bulk:
            self.kept.append(each)
            self._left -= len(each)
            if len(self.kept) > self._number:
                self._left += len(self.kept.popleft())
        if self._left < 0:
            raise CallError(
                "RESOURCE_EXHAUSTED",
                f"the last {self._number} flows of all nodes are more than {self._size >> 20} MiB; ask for "
                "fewer, or for all since a time, which are sent as they come",
            )


def _cut(replies: list[bytes]) -> Iterator[list[bytes]]:
    return (replies[at : at + _BULK] for at in range(0, len(replies), _BULK))


@asynccontextmanager
async def _running(works: Collection[Any]) -> AsyncGenerator[list[asyncio.Task[None]]]:
    """They run at most as long as the context."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        yield tasks
    finally:
        await _end(tasks)


@asynccontextmanager
async def _tasks() -> AsyncGenerator[dict[str, asyncio.Task[None]]]:
    """A place for tasks that run at most as long as the context."""
    tasks: dict[str, asyncio.Task[None]] = {}
    try:
        yield tasks
    finally:
        await _end(list(tasks.values()))


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    for ended in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(ended, Exception):
            raise ended


async def _either(event: asyncio.Event, seconds: float | None) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
