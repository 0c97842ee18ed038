"""Nodes that are played: Hubble's Observer on unix sockets, with flows that a test makes up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from axoneme.hubble.address import Address
from axoneme.hubble.client import Client, connect
from axoneme.hubble.methods import OBSERVER
from axoneme.hubble.schema import message
from axoneme.hubble.serving import CallError, Server, Service
from axoneme.relay import peers
from axoneme.relay.gathering import Limits
from axoneme.relay.main import Relay
from axoneme.relay.pool import Patience

PATIENT = Patience(call=1.0, look=0.2, retry=0.1)
SECOND = 1_000_000_000


@dataclass
class Node:
    """``hangs``: at which call it says no more."""

    folder: Path
    name: str
    hangs: str = ""
    refuses: str = ""
    flows: list[tuple[int, bytes]] = field(default_factory=list)
    asked: list[Any] = field(default_factory=list)
    _serving: asyncio.Task[None] | None = None
    _more: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def socket(self) -> Path:
        return self.folder / self.name / peers.SOCKET

    def see(self, *times: int) -> None:
        """Flows at these times, in ns since 1970."""
        for at in times:
            made = message("observer.GetFlowsResponse")(node_name=self.name)
            made.flow.node_name = self.name
            made.flow.time.FromNanoseconds(at)
            made.time.FromNanoseconds(at)
            self.flows.append((at, made.SerializeToString()))
        more, self._more = self._more, asyncio.Event()
        more.set()

    def lose(self, count: int) -> None:
        """News of it, which bears the present time as that of nodes does."""
        made = message("observer.GetFlowsResponse")(node_name=self.name)
        made.lost_events.num_events_lost = count
        made.time.GetCurrentTime()
        self.flows.append((0, made.SerializeToString()))

    async def start(self) -> None:
        self.socket.parent.mkdir(exist_ok=True)
        service = Service(
            OBSERVER,
            answers={
                "ServerStatus": self._status,
                "GetNamespaces": self._namespaces,
            },
            streams={"GetFlows": self._get},
        )
        ready = asyncio.Event()
        server = Server([service], "hubble-server-version")
        self._serving = asyncio.ensure_future(
            server.serve(Address(path=self.socket), ready=lambda _: ready.set())
        )
        await ready.wait()

    async def stop(self) -> None:
        if self._serving is not None:
            self._serving.cancel()
            with suppress(asyncio.CancelledError):
                await self._serving
            self._serving = None

    async def _status(self, _: Any) -> Any:
        if self.hangs == "ServerStatus":
            await asyncio.Event().wait()
        return message("observer.ServerStatusResponse")(
            num_flows=len(self.flows),
            max_flows=100,
            seen_flows=len(self.flows),
            uptime_ns=SECOND * len(self.name),
            version="1",
            flows_rate=0.5,
        )

    async def _namespaces(self, _: Any) -> Any:
        reply = message("observer.GetNamespacesResponse")()
        reply.namespaces.add(namespace="shop")
        reply.namespaces.add(namespace=self.name)
        return reply

    async def _get(self, request: Any) -> AsyncGenerator[Sequence[bytes]]:
        self.asked.append(request)
        if self.refuses:
            raise CallError(self.refuses, "not this way")
        if self.hangs == "GetFlows":
            await asyncio.Event().wait()
        since = request.since.ToNanoseconds() if request.HasField("since") else 0
        kept = [data for at, data in self.flows if at >= since]
        sent = len(self.flows)
        if request.follow and not request.number and not since:
            kept = []
        elif request.number and request.number < 1 << 62 and not (since and request.follow):
            kept = kept[: request.number] if request.first or since else kept[-request.number :]
        for at in range(0, len(kept), 100):
            yield kept[at : at + 100]
        until = request.until.ToNanoseconds() if request.HasField("until") else 1 << 63
        while request.follow and time.time_ns() <= until:
            more = self._more
            if new := [data for at, data in self.flows[sent:] if at >= since]:
                sent = len(self.flows)
                yield new
            else:
                sent = len(self.flows)
                with suppress(TimeoutError):
                    await asyncio.wait_for(more.wait(), min(3600, (until - time.time_ns()) / 1e9))


@asynccontextmanager
async def running(*nodes: Node) -> AsyncIterator[None]:
    for node in nodes:
        await node.start()
    try:
        yield
    finally:
        for node in nodes:
            await node.stop()


@asynccontextmanager
async def relay(
    folder: Path, limits: Limits | None = None, patience: Patience = PATIENT
) -> AsyncIterator[Client]:
    """A client of a relay over the nodes in the folder."""
    address = Address(path=folder / "relay.sock")
    made = Relay(lambda: peers.in_folders(folder), [address], None, limits or Limits(0.05), patience)
    ready = asyncio.Event()
    running = asyncio.ensure_future(made.run(lambda _: ready.set()))
    try:
        await ready.wait()
        async with connect(address, window=1 << 16) as client:
            yield client
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


def request(**fields: Any) -> Any:
    times = {name: fields.pop(name) for name in ("since", "until") if name in fields}
    made = message("observer.GetFlowsRequest")(**fields)
    for name, at in times.items():
        getattr(made, name).FromNanoseconds(at)
    return made


def now() -> int:
    return time.time_ns()
