"""A flow server as far as history needs one: a memory of flows, and ``flows.records`` over a socket."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from axoneme.flows.recordsrequest import RecordsRequest
from axoneme.flowserver.bulk import Bulk
from axoneme.flowserver.observe import Bell, Reader
from axoneme.rpc import Server
from unit.flows import records as made
from unit.history import logs


class FlowServer:
    """Flows are told apart by their source port; they come a millisecond after one another."""

    def __init__(self, node: str = "node1") -> None:
        self.log = logs.some_log(node)
        self._bell = Bell()
        self._count = itertools.count(1)
        self.bulk = Bulk(Reader(self.log, self._bell, lambda: (10**12, logs.START + 10**12)))

    def see(self, *ports: int, **fields: object) -> None:
        """Flows from these ports."""
        events = [
            made.event(source_port=port, time=next(self._count) * 1_000_000, **fields) for port in ports
        ]
        self.log.store.flows.append(made.records(*events, offset=logs.START, names=self.log.names))
        self._bell.ring()

    @asynccontextmanager
    async def serving(self, path: Path) -> AsyncIterator[None]:
        server, ready = Server(path), asyncio.Event()
        server.stream("flows.records", RecordsRequest, self.bulk.records)
        task = asyncio.ensure_future(server.serve(ready.set))
        await ready.wait()
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def until(holds: Callable[[], bool], seconds: float = 30) -> None:
    """Waits for a condition; TimeoutError."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError("it does not come about")
        await asyncio.sleep(0.01)
