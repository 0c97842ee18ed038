"""The flow server of a node: a process of its own, so that no reader of flows can delay a policy.

It polls the two rings (nobody is woken by the kernel for an event), names what comes, keeps it, serves
``flows.observe`` and ``status``, and takes expired entries out of the flow table. It survives the agent:
it waits until the maps are there, and opens them anew when others take their place.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Final

from axoneme.datapath.bpf import NotFound
from axoneme.datapath.schema import Schema
from axoneme.flows import feed
from axoneme.flows.edgecounts import EdgeCounts, EdgeReport
from axoneme.flows.events import Vocabulary, record_dtype
from axoneme.flows.expiry import FlowTable
from axoneme.flows.figures import Figures, Walked
from axoneme.flows.flow import ObserveRequest
from axoneme.flows.flowlog import FlowLog
from axoneme.flows.ingest import Ingest
from axoneme.flows.joining import join
from axoneme.flows.kernel import LAYOUT, Kernel, OtherSchema, fingerprint, lifetimes
from axoneme.flows.names import Names
from axoneme.flows.recordsrequest import RecordsRequest
from axoneme.flows.requests import Requests
from axoneme.flows.rules import FILE_NAME, RuleJournal
from axoneme.flows.status import Status
from axoneme.flows.store import FlowStore
from axoneme.flows.traffic import BackendTraffic
from axoneme.flowserver import allocator
from axoneme.flowserver.bulk import Bulk
from axoneme.flowserver.clock import Clock
from axoneme.flowserver.config import FlowServerConfig, load
from axoneme.flowserver.listening import Listening
from axoneme.flowserver.metering import Metering
from axoneme.flowserver.observe import Bell, Observer, Reader
from axoneme.flowserver.sweep import Sweep
from axoneme.hubble.nodes import Nodes
from axoneme.rpc import Batch, NoParams, Server, privileges
from axoneme.rpc.daemon import until_told
from axoneme.sources.config import open_store
from axoneme.sources.follow import Sync, follow
from axoneme.sources.store import Store

log = logging.getLogger(__name__)

#: Events that are taken from a ring at once: few enough to stay in a CPU's cache on their way.
BLOCK: Final = 2048
#: Blocks in a row, before others get their turn: some 5 ms of work.
_BLOCKS: Final = 8
_SHORTEST, _USUAL, _LONGEST = 0.005, 0.02, 0.05
#: How long the first events wait for the names of their ends.
_PATIENCE: Final = 5.0


def pace(before: float, taken: int) -> float:
    """How long to sleep until the next look, in seconds, by how much there was in this one."""
    if taken >= BLOCK:
        return _SHORTEST
    return _USUAL if taken else min(_LONGEST, before * 1.5)


class FlowServer:
    def __init__(self, config: FlowServerConfig, store: Store, proxies: Listening) -> None:
        schema = Schema.load()
        self._config = config
        self._shared = store
        self._proxies = proxies
        self._schema = schema
        self._layout = fingerprint(schema)
        self._vocabulary = vocabulary = Vocabulary.read(schema.struct("event"), schema.enums)
        self._meaning = FlowTable.read(schema.enums, lifetimes().tolist())
        history = config.flow_history
        self._store = FlowStore(record_dtype(vocabulary.event), history.flows, history.drops)
        self._names = Names(vocabulary.reserved, vocabulary.first_local)
        rules = RuleJournal(config.state_path / FILE_NAME)
        requests = Requests(history.requests, history.request_bytes)
        self._ingest = Ingest(self._store, self._names, rules, requests, vocabulary)
        self._metering = Metering(
            config, self._names, self._store, vocabulary, lambda: self._proxies.lost + self._malformed
        )
        self._ingest.on_flows, self._ingest.on_requests = self._metering.flows, self._metering.told
        self._ingest.before_tidying = self._metering.tidy
        self._bell = Bell()
        record = FlowLog(
            config.node, self._store, self._names, rules.refs, rules.services, requests, vocabulary
        )
        self._clocks = Clock()
        self._reader = Reader(record, self._bell, self._clocks)
        self._observer = Observer(self._reader)
        self._edges = EdgeCounts(record, self._meaning, time.monotonic_ns)
        self._nodes = Nodes()
        self._synced = {prefix: asyncio.Event() for prefix in feed.PREFIXES}
        self._started = time.monotonic_ns()
        self._sweep: Sweep | None = None
        self._rates = [(self._started, 0)]
        self._malformed = 0

    async def run(self) -> None:
        """Until cancelled."""
        server = Server(self._config.socket)
        server.method("status", NoParams, self._status)
        server.method("figures", NoParams, self._figures)
        server.method("services.traffic", NoParams, self._traffic)
        server.method("flows.edges", NoParams, self._count_edges)
        server.stream("flows.observe", ObserveRequest, self._observe)
        server.stream("flows.records", RecordsRequest, Bulk(self._reader).records)
        async with self._proxies.serving(), asyncio.TaskGroup() as tasks:
            for prefix in feed.PREFIXES:
                tasks.create_task(self._follow(prefix))
            tasks.create_task(self._pump())
            tasks.create_task(self._metering.serve())
            tasks.create_task(server.serve())
            tasks.create_task(self._serve_hubble(server))

    async def _serve_hubble(self, server: Server) -> None:
        """And what is exported by Hubble's filters. The modules that it takes are loaded when the rest is at
        work already: they are a quarter of all there is to load."""
        api, exporting = [
            await asyncio.to_thread(importlib.import_module, f"axoneme.flowserver.{name}")
            for name in ("hubbleapi", "exports.running")
        ]
        hubble = api.HubbleApi(self._config, self._reader, self._nodes, self._status)
        accepts = exporting.compile_with_hubble(self._reader, hubble.site)
        exports = exporting.Exports(self._config.flow_logs_path, self._reader, accepts)
        server.method("flows.exports", NoParams, exports.status)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(hubble.serve())
            tasks.create_task(exports.run())

    # ---- names ---------------------------------------------------------------------------------

    async def _follow(self, prefix: str) -> None:
        async with aclosing(follow(self._shared, prefix)) as news:
            async for changes in news:
                if isinstance(changes, Sync):
                    self._synced[prefix].set()
                    continue
                for change in changes:
                    try:
                        feed.apply(self._names, self._config.node, change.key, change.value)
                        self._nodes.apply(change.key, change.value)
                    except ValueError as error:
                        log.warning("%s; its flows go without a name", error)

    # ---- events --------------------------------------------------------------------------------

    async def _pump(self) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                for event in self._synced.values():
                    await event.wait()
        except TimeoutError:
            log.warning("the shared state does not answer: flows go without names until it does")
        while True:
            with await self._kernel() as kernel:
                self._sweep = Sweep(
                    kernel,
                    self._meaning,
                    self._vocabulary,
                    time.monotonic_ns,
                    self._ingest.ended,
                    edges=self._edges,
                )
                with contextlib.suppress(OtherSchema):
                    await self._drain(kernel, self._sweep)
                self._sweep = None
            log.info("%s: other maps are there, or none", self._config.maps)

    async def _kernel(self) -> Kernel:
        waiting = ""
        while True:
            try:
                self._check_layout()
                return Kernel(self._config.maps, self._schema)
            except (NotFound, OtherSchema) as error:
                if waiting != str(error):
                    log.info("waiting for the datapath: %s", error)
                waiting = str(error)
            await asyncio.sleep(0.2)

    def _check_layout(self) -> None:
        """`OtherSchema` where the agent has left word that the maps are of another release."""
        try:
            theirs = (self._config.state_path / LAYOUT).read_text()
        except FileNotFoundError:
            return
        if theirs != self._layout:
            raise OtherSchema(f"{self._config.maps} is of another release: its layout is {theirs}, not ours")

    async def _drain(self, kernel: Kernel, sweep: Sweep) -> None:
        """Until the maps are replaced; what they still hold then is taken first."""
        pause, looked = _SHORTEST, 0
        while True:
            taken = self._take(kernel, sweep)
            now = time.monotonic_ns()
            if now - looked > 1e9:
                looked = now
                self._store.kernel_losses = kernel.losses()
                self._store.requests_lost = self._proxies.lost
                self._edges.catch_up()
                self._ingest.tidy()
                self._rates = [*self._rates[-10:], (now, self._seen())]
                if kernel.replaced():
                    while self._take_events(kernel):
                        pass
                    return
                self._check_layout()
            pause = pace(pause, taken)
            await asyncio.sleep(pause if taken < BLOCK * _BLOCKS else 0)

    def _take(self, kernel: Kernel, sweep: Sweep) -> int:
        """How many events there were; more than that may be left."""
        taken = self._take_events(kernel)
        for ends in sweep.step():
            monotonic, wall = self._clocks()
            self._ingest.flows(ends, wall - monotonic)
            self._bell.ring()
        return taken + self._take_requests(kernel)

    def _take_requests(self, kernel: Kernel) -> int:
        """Behind the events of the connections that they came over."""
        told = self._proxies.take(BLOCK)
        if told:
            monotonic, wall = self._clocks()
            offset = wall - monotonic
            joined = join(told, kernel, self._meaning, self._vocabulary, monotonic, offset)
            self._ingest.requests(joined, offset)
            self._malformed += joined.malformed
            self._bell.ring()
        return len(told)

    def _take_events(self, kernel: Kernel) -> int:
        taken = 0
        for _ in range(_BLOCKS):
            monotonic, wall = self._clocks()
            drops = kernel.drop_events.read(BLOCK)
            self._ingest.drops(drops, wall - monotonic)
            flows = kernel.flow_events.read(BLOCK)
            self._ingest.flows(flows, wall - monotonic)
            taken += len(drops) + len(flows)
            if max(len(drops), len(flows)) < BLOCK:
                break
        if taken:
            self._bell.ring()
        return taken

    # ---- what is served ------------------------------------------------------------------------

    def _observe(self, request: ObserveRequest) -> AsyncIterator[Batch]:
        return self._observer.observe(request)

    async def _status(self, _: NoParams | None = None) -> Status:
        flows, drops, lost = self._store.flows, self._store.drops, self._store.kernel_losses
        now, (then, seen) = time.monotonic_ns(), self._rates[0]
        return Status(
            node_name=self._config.node,
            num_flows=len(flows) + len(drops),
            max_flows=flows.capacity + drops.capacity,
            seen_flows=self._seen(),
            uptime_ns=now - self._started,
            flows_rate=round((self._seen() - seen) / max(1e-9, (now - then) / 1e9), 1),
            attached=self._sweep is not None,
            num_drops=len(drops),
            max_drops=drops.capacity,
            seen_drops=drops.next,
            lost_flows=lost.flows,
            lost_drops=lost.drops,
            lost_requests=self._proxies.lost + self._malformed,
            readers=self._reader.readers,
            connections=self._sweep.entries if self._sweep else 0,
            half_open=self._sweep.half_open if self._sweep else 0,
            expired=self._sweep.removed if self._sweep else 0,
            names=len(self._names),
        )

    async def _figures(self, _: NoParams) -> Figures:
        return self._metering.figures(self._sweep.walked if self._sweep else Walked())

    async def _count_edges(self, _: NoParams) -> EdgeReport:
        return self._edges.report()

    async def _traffic(self, _: NoParams) -> list[BackendTraffic]:
        return self._sweep.traffic() if self._sweep else []

    def _seen(self) -> int:
        return self._store.flows.next + self._store.drops.next


def run(config_path: Path) -> None:
    """The process: until SIGTERM or SIGINT. Raises `axoneme.sources.config.ConfigError`."""
    allocator.keep()
    config = load(config_path)
    asyncio.run(_main(config))


async def _main(config: FlowServerConfig) -> None:
    proxies = Listening(config.proxies_socket, config.proxies.user)
    privileges.keep_only((privileges.CAP_BPF,))
    store = open_store(config.store)
    try:
        if await until_told(FlowServer(config, store, proxies).run()):
            log.info("asked to stop")
    finally:
        await store.close()
