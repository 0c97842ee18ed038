"""The process of `axo lb run`: puts the parts together, and keeps the kernel as it should be.

    file, store ──> Source ──┐            ┌──> Kernel: tables, programs
    REST ──────────────┘     ├─> Balancer ┤
    backends <──> Monitor ───┘            └──> Memory

Whatever ends the process, the datapath goes on as it was left; the next one takes up what is there.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import time
from pathlib import Path
from typing import Final

from axoneme import __version__
from axoneme.agent.lock import only_agent
from axoneme.balancer.config import Config, load
from axoneme.balancer.flowserver import run_flow_server
from axoneme.balancer.kernel import Kernel
from axoneme.balancer.memory import Memory
from axoneme.balancer.monitor import Monitor
from axoneme.balancer.probes import trial_of, trials
from axoneme.balancer.reporting import Standing, numbers, service_reports
from axoneme.balancer.reports import ConnectionsReport, ServiceReport, StatusReport, counted
from axoneme.balancer.sources import Edit, FileSource, Source, StoreSource
from axoneme.datapath import features
from axoneme.datapath.bpf import BpfError
from axoneme.model.balancer import Backend, Desired, Service, version
from axoneme.model.paths import ManifestError
from axoneme.net.commands import NetworkError
from axoneme.rpc.daemon import until_told
from axoneme.services.standalone import Target, assign, compile_all
from axoneme.services.verdict import Health
from axoneme.sources.config import open_store
from axoneme.sources.store import Store

log = logging.getLogger(__name__)

#: Seconds between two looks at the machine's addresses, in which tables that the kernel refused are mended.
LOOK_EVERY: Final = 2.0
#: Seconds from which on it takes long to bring the kernel up to date; how many times as long one rests then.
_LONG, _REST = 0.1, 2.0
#: Seconds from one look at everything in the kernel to the next, if it takes less; share of a core for it.
AUDIT_EVERY, AUDIT_SHARE = 5.0, 0.01


class Balancer:
    """One machine's load balancer, the `Desk` of its API. ``run`` may be called once."""

    def __init__(self, path: Path, config: Config, desired: Desired, store: Store | None) -> None:
        self._config = config
        self._started = time.time()
        state = config.machine.state_path
        self._lacks = tuple(feature.sentence for feature in features.missing())
        for sentence in self._lacks:
            log.warning("%s", sentence)
        self._memory = Memory(state / "memory.json")
        self._turns = asyncio.Event()
        #: Seconds that it took to bring the kernel up to date the last time.
        self._effort = 0.0
        self._monitor = Monitor(self._turned, self._memory.health)
        self._kernel = Kernel(config.machine)
        self._source: Source
        if config.store is None or store is None:
            self._source, self._where = FileSource(path, config, desired), str(path)
        else:
            self._source = StoreSource(store, config.prefix, state / "desired.json")
            self._where = f"{config.store.kind}, {config.prefix}"
        self._desired = Desired()
        self._adopted = False
        self._given = self._memory.given
        self._problems: dict[str, str] = {}

    async def run(self) -> None:
        """Until cancelled."""
        from axoneme.balancer.server import serve

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._source.run(self._adopt))
            tasks.create_task(self._monitor.run())
            tasks.create_task(serve(self, self._config.api, self._config.socket_path))
            tasks.create_task(self._follow_turns())
            tasks.create_task(self._look_after())
            tasks.create_task(self._audit())
            tasks.create_task(run_flow_server(self._config.machine))
            gc.freeze()

    def close(self) -> None:
        self._kernel.close()

    # ---- what is wanted ------------------------------------------------------------------------

    @property
    def desired(self) -> Desired:
        return self._desired

    async def change(self, edit: Edit) -> Desired:
        def tried(before: Desired) -> Desired:
            after = edit(before)
            assign(after, self._given)
            return after

        return await self._source.change(tried)

    def _adopt(self, desired: Desired) -> None:
        """What stands at the source is another."""
        try:
            self._given = assign(desired, self._given)
        except ManifestError as error:
            self._problems["pools"] = f"{error}; the last good version stays in force"
            log.error("%s", self._problems["pools"])
            return
        self._problems.pop("pools", None)
        self._desired, self._adopted = desired, True
        self._monitor.watch(trial for _, _, trial in trials(desired))
        written = self._settle()
        log.info("%s: %d services; %d entries written", version(desired), len(desired.services), written)

    def _turned(self) -> None:
        """A backend is up, or down: the kernel is told at once, unless that takes long; then once for all
        that turn within a while, as when a rack is lost."""
        if self._effort > _LONG:
            self._turns.set()
        else:
            log.info("%d entries written", self._settle())

    async def _follow_turns(self) -> None:
        while True:
            await self._turns.wait()
            self._turns.clear()
            log.info("%d entries written", self._settle())
            await asyncio.sleep(_REST * self._effort)

    def _settle(self) -> int:
        """Brings the kernel up to date; how many entries that took."""
        began = time.monotonic()
        records = self._monitor.records
        down = {
            Target(service.name, backend.called)
            for service, backend, trial in trials(self._desired)
            if records[trial].health is Health.DOWN
        }
        self._memory.keep(self._given, {trial: record.health for trial, record in records.items()})
        try:
            written = self._kernel.apply(compile_all(self._desired, self._given, down))
        except BpfError as error:
            self._problems["kernel"] = str(error)
            log.error("%s; it is tried again", error)
            return 0
        finally:
            self._effort = time.monotonic() - began
        self._problems.pop("kernel", None)
        return written

    # ---- what others do to the machine ---------------------------------------------------------

    async def _look_after(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            try:
                again = self._kernel.look_again()
                self._problems.pop("network", None)
            except (NetworkError, BpfError, OSError) as error:
                self._problems["network"] = str(error)
                log.error("not taken up: %s", error)
                again = False
            if self._adopted and (again or "kernel" in self._problems):
                log.info(
                    "addresses of this machine, or tables, are not as before: %d entries", self._settle()
                )

    async def _audit(self) -> None:
        """A step is followed by so long a rest that all of it takes `AUDIT_SHARE` of a core at most."""
        while True:
            began = time.monotonic()
            if self._adopted:
                try:
                    before = time.thread_time()
                    for _ in self._kernel.audit():
                        await asyncio.sleep((time.thread_time() - before) / AUDIT_SHARE)
                        before = time.thread_time()
                except (BpfError, ValueError) as error:
                    log.info("looking through the kernel's tables was given up: %s", error)
            await asyncio.sleep(max(0.1, AUDIT_EVERY + began - time.monotonic()))

    # ---- what is told --------------------------------------------------------------------------

    def status(self) -> StatusReport:
        services = self.services()
        problems = {**self._source.problems, **self._problems}
        if self._memory.problem:
            problems["memory"] = self._memory.problem
        return StatusReport(
            name=self._config.machine.called,
            software=__version__,
            pid=os.getpid(),
            started=self._started,
            version=version(self._desired),
            source=self._where,
            uplinks=self._kernel.uplinks(),
            services=len(services),
            backends=counted(each.state for service in services for each in service.backends),
            connections=sum(service.connections for service in services),
            problems=problems,
            kernel_lacks=self._lacks,
            writes=self._kernel.writes,
            repairs=dict(self._kernel.repairs),
        )

    def services(self) -> list[ServiceReport]:
        return service_reports(self._desired, self._kernel.views(), self._kernel.census(), self._standing)

    def connections(self, service: str, backend: str, limit: int) -> ConnectionsReport:
        names = numbers(self._kernel.views(), service, backend)
        total, found = self._kernel.connections(names, limit)
        return ConnectionsReport(total, tuple(found))

    def _standing(self, service: Service, backend: Backend) -> Standing:
        trial = trial_of(service, backend)
        record = self._monitor.records.get(trial) if trial else None
        if record is None:
            return Standing("unknown")
        return Standing(record.health.value, record.problem, record.since)


def run(path: Path) -> None:
    """The process: until SIGTERM or SIGINT. Raises `axoneme.sources.config.ConfigError`."""
    config, desired = load(path)
    with only_agent(config.machine.state_path):
        asyncio.run(_main(path, config, desired))


async def _main(path: Path, config: Config, desired: Desired) -> None:
    store = open_store(config.store) if config.store else None
    balancer = Balancer(path, config, desired, store)
    try:
        if await until_told(balancer.run()):
            log.info("asked to stop; the datapath goes on")
    finally:
        balancer.close()
        if store:
            await store.close()
