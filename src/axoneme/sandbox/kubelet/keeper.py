"""One container through its runs: started, probed, restarted as its pod's policy says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from axoneme.sandbox import clock
from axoneme.sandbox.kubelet import containers, goodbye, probes
from axoneme.sandbox.kubelet.backoff import Backoff
from axoneme.sandbox.kubelet.containers import EchoRun, ProcessRun, Run
from axoneme.sandbox.kubelet.podstatus import ContainerView
from axoneme.sandbox.kubelet.probes import Health
from axoneme.sandbox.kubelet.probing import ProbeFailed
from axoneme.sandbox.kubelet.programs import Program
from axoneme.sandbox.kubelet.records import ContainerRecord, PodFiles
from axoneme.sandbox.launch import Enclosure
from axoneme.sandbox.objects import Probe
from axoneme.sandbox.processes import Process

log = logging.getLogger(__name__)

#: How a container ends that cannot be started at all.
_CANNOT_RUN = 128


@dataclass(frozen=True, slots=True)
class Means:
    """What a container is run with. `program` None: the echo server plays it, through `play`.

    `probe` carries one probe out; the enclosure it gets joins the running process, None for an echo.
    """

    pod: str
    files: PodFiles
    enclosure: Enclosure
    program: Program | None
    play: Callable[[], Awaitable[None]]
    probe: Callable[[Probe, Enclosure | None], Awaitable[None]]
    changed: Callable[[], None]


class ContainerKeeper:
    """`policy` is Always, OnFailure or Never. What happens is told in `view`."""

    def __init__(self, view: ContainerView, policy: str, means: Means) -> None:
        self.view = view
        self._policy = policy
        self._means = means
        self._run: Run | None = None
        self._restart_reason = ""

    @property
    def played(self) -> bool:
        """Whether the echo server plays it just now."""
        return isinstance(self._run, EchoRun)

    @property
    def process(self) -> int:
        """The running process's number, 0 for none."""
        return self._run.process.identity.pid if isinstance(self._run, ProcessRun) else 0

    async def keep(self) -> None:
        """Returns when the container has ended for good. Cancelling it leaves what runs running."""
        backoff = Backoff()
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                self._run = self._adopt() or await self._start()
            except OSError as failure:
                code, reason = _CANNOT_RUN, "StartError"
                self.view.message = str(failure)
            else:
                code, reason = await self._attend(self._run), ""
                self._run.close()
                self._run = None
            self._means.files.forget_container(self.view.container.name)
            self.view.end(code, clock.now(), reason)
            if self._policy == "Never" or (self._policy == "OnFailure" and code == 0):
                self.view.settled = True
                self._means.changed()
                return
            pause = backoff.pause(loop.time() - began)
            if pause:
                self.view.wait(
                    "CrashLoopBackOff", f"back-off {pause:g} s; {self._restart_reason}".rstrip("; ")
                )
            self._means.changed()
            await asyncio.sleep(pause)
            if not pause:
                self.view.wait("ContainerCreating")
            self.view.restarts += 1
            self._restart_reason = ""

    async def prepare_end(self) -> None:
        """Does what the container shall do before it ends, while it still runs as before."""
        lifecycle = self.view.container.lifecycle
        hook = lifecycle.pre_stop if lifecycle is not None else None
        if hook is None or self._run is None:
            return
        try:
            await goodbye.say(
                hook, self.played, lambda probe: self._means.probe(probe, self._enclosure(self._run))
            )
        except ProbeFailed as failure:
            log.warning("%s, container %s: preStop: %s", self._means.pod, self.view.container.name, failure)

    async def end(self, grace: float) -> None:
        """Ends what runs; call it when `keep` has been cancelled."""
        if self._run is not None:
            await self._run.end(grace)
            self._run.close()
            self._run = None

    # ---- one run -----------------------------------------------------------------------------------

    def _adopt(self) -> Run | None:
        """The process that an earlier supervisor started, if it still runs."""
        record = self._means.files.load_container(self.view.container.name)
        if record is None or not record.process.alive:
            return None
        try:
            run = ProcessRun(Process(record.process))
        except ProcessLookupError:
            return None
        self.view.restarts = record.restarts
        self.view.start(run.name, record.began)
        return run

    async def _start(self) -> Run:
        now = clock.now()
        name = self.view.container.name
        program = self._means.program
        if program is None:
            echo = EchoRun(f"{self._means.pod}/{name}")
            self._run = echo
            await self._means.play()
            self.view.start(echo.name, now)
            return echo
        run = await containers.start(program, self._means.enclosure, self._means.files.log(name))
        self._means.files.save_container(
            name, ContainerRecord(process=run.process.identity, restarts=self.view.restarts, began=now)
        )
        self.view.start(run.name, now)
        return run

    async def _attend(self, run: Run) -> int:
        """Probes a run until it ends by itself or must be ended; returns its exit code."""
        container = self.view.container
        health = Health.at_start(container)
        self._show(health)
        enclosure = self._enclosure(run)
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(
                probes.watch(
                    container,
                    health,
                    lambda probe: self._means.probe(probe, enclosure),
                    lambda: self._show(health),
                    delays=enclosure is not None,
                    clock=asyncio.get_running_loop().time,
                )
            )
            ending = group.create_task(run.wait())
            await asyncio.wait({watching, ending}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done() and not ending.done():
                self._restart_reason = watching.result()
                log.info("%s, container %s: %s", self._means.pod, container.name, self._restart_reason)
                await run.end(2.0)
            watching.cancel()
            return await ending

    def _enclosure(self, run: Run | None) -> Enclosure | None:
        """Where a command beside a process runs; None for an echo."""
        if isinstance(run, ProcessRun):
            return self._means.enclosure._replace(join=run.process.identity.pid)
        return None

    def _show(self, health: Health) -> None:
        self.view.started, self.view.ready = health.started, health.ready
        self._means.changed()
