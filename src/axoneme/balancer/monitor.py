"""Tries backends again and again, and says which are up.

One task for each distinct trial, so services that share a backend and a check share its connections; a
semaphore bounds how many are open at once. Pauses are varied by a tenth: what was started together does not
stay together.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from axoneme.balancer.probes import Trial, carry_out
from axoneme.services.verdict import Health, Verdict

log = logging.getLogger(__name__)

_AT_ONCE: Final = 256
_VARIATION: Final = 0.1
#: Seconds within which a new trial is made for the first time.
_FIRST_WITHIN: Final = 0.5


@dataclass(slots=True)
class Record:
    """What is known of a trial: why it failed last, and when (seconds since the epoch) its state began."""

    verdict: Verdict
    problem: str = ""
    since: float = field(default_factory=time.time)

    @property
    def health(self) -> Health:
        return self.verdict.health


class Monitor:
    """``changed`` is called, without arguments, after a trial has turned up or down."""

    def __init__(
        self,
        changed: Callable[[], None],
        inherited: Mapping[Trial, Health],
        tried: Callable[[Trial], Awaitable[str]] = carry_out,
    ) -> None:
        """``inherited``: what an earlier process knew, believed until the checks say otherwise."""
        self._changed = changed
        self._inherited = dict(inherited)
        self._carry_out = tried
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._tasks: dict[Trial, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self.records: dict[Trial, Record] = {}

    def watch(self, trials: Iterable[Trial]) -> None:
        """These from now on, and no others. What is known of one that stays is kept."""
        wanted = dict.fromkeys(trials)
        for trial in self.records.keys() - wanted.keys():
            del self.records[trial]
            if task := self._tasks.pop(trial, None):
                task.cancel()
        for trial in wanted:
            if trial not in self.records:
                health = self._inherited.pop(trial, Health.UNKNOWN)
                self.records[trial] = Record(Verdict(trial.check.rise, trial.check.fall, health))
                self._start(trial)
        self._inherited.clear()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as self._group:
            for trial in self.records:
                self._start(trial)
            await asyncio.Event().wait()

    def _start(self, trial: Trial) -> None:
        if self._group is not None:
            self._tasks[trial] = self._group.create_task(self._keep_trying(trial))

    async def _keep_trying(self, trial: Trial) -> None:
        interval = trial.check.interval
        await asyncio.sleep(random.uniform(0, min(interval, _FIRST_WITHIN)))
        while True:
            async with self._room:
                problem = await self._carry_out(trial)
            self._take(trial, problem)
            await asyncio.sleep(interval * random.uniform(1 - _VARIATION, 1 + _VARIATION))

    def _take(self, trial: Trial, problem: str) -> None:
        record = self.records[trial]
        record.problem = problem
        if not record.verdict.heard(not problem):
            return
        record.since = time.time()
        where = f"{trial.address} port {trial.port} ({trial.check.kind})"
        log.info("%s is %s%s", where, record.health.value, f": {problem}" if problem else "")
        self._changed()
