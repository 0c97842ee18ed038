"""When a container is probed, and what follows from it.

Until it first succeeds, a probe is tried again soon, within a second, rather than a period later: a
failing container is not ready anyway, and a sandbox shall be up at once. For the same reason no initial
delay is kept for the echo server, which needs no time to get warm. The startup probe's patience is what
its period and threshold make together, as in Kubernetes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from axoneme.sandbox.kubelet.probing import ProbeFailed
from axoneme.sandbox.objects import Container, Probe

_FIRST_RETRY: Final = 0.05
_LONGEST_RETRY: Final = 1.0

Attempt = Callable[[Probe], Awaitable[None]]
Sleep = Callable[[float], Awaitable[None]]


@dataclass(slots=True)
class Health:
    """What probes have found out about one run of a container."""

    started: bool
    ready: bool
    message: str = ""

    @classmethod
    def at_start(cls, container: Container) -> Health:
        started = container.startup_probe is None
        return cls(started=started, ready=started and container.readiness_probe is None)


async def watch(
    container: Container,
    health: Health,
    attempt: Attempt,
    changed: Callable[[], None],
    *,
    delays: bool,
    sleep: Sleep = asyncio.sleep,
    clock: Callable[[], float],
) -> str:
    """Probes one run of a container for as long as it is alive; returns why it must be restarted.

    `attempt` carries one probe out, `changed` is called whenever `health` has changed. `delays` False
    leaves initial delays out. Cancel it when the run has ended. Without probes it waits for ever.
    """
    if container.startup_probe is not None:
        probe = container.startup_probe
        if delays:
            await sleep(probe.initial_delay_seconds)
        deadline = clock() + probe.period_seconds * probe.failure_threshold
        if not await _until_success(probe, attempt, health, changed, sleep, lambda: clock() >= deadline):
            return f"startup probe failed: {health.message}"
        health.started = True
        health.ready = container.readiness_probe is None
        changed()
    reason = ""
    async with asyncio.TaskGroup() as group:
        readiness: asyncio.Task[None] | None = None
        if container.readiness_probe is not None:
            readiness = group.create_task(
                _readiness(container.readiness_probe, health, attempt, changed, sleep, delays=delays)
            )
        if container.liveness_probe is None:
            await asyncio.Event().wait()
        else:
            reason = await _liveness(container.liveness_probe, attempt, sleep, delays=delays)
        if readiness is not None:
            readiness.cancel()
    return reason


async def _until_success(
    probe: Probe,
    attempt: Attempt,
    health: Health,
    changed: Callable[[], None],
    sleep: Sleep,
    given_up: Callable[[], bool],
) -> bool:
    """Tries soon and ever less often, up to the probe's period."""
    pause = _FIRST_RETRY
    while True:
        try:
            await attempt(probe)
        except ProbeFailed as failure:
            if health.message != str(failure):
                health.message = str(failure)
                changed()
        else:
            health.message = ""
            return True
        if given_up():
            return False
        await sleep(min(pause, probe.period_seconds, _LONGEST_RETRY))
        pause *= 2


async def _readiness(
    probe: Probe,
    health: Health,
    attempt: Attempt,
    changed: Callable[[], None],
    sleep: Sleep,
    *,
    delays: bool,
) -> None:
    if delays:
        await sleep(probe.initial_delay_seconds)
    await _until_success(probe, attempt, health, changed, sleep, lambda: False)
    successes, failures = 1, 0
    while True:
        if successes >= probe.success_threshold and not health.ready:
            health.ready, health.message = True, ""
            changed()
        await sleep(probe.period_seconds)
        try:
            await attempt(probe)
            successes, failures = successes + 1, 0
        except ProbeFailed as failure:
            successes, failures = 0, failures + 1
            if failures >= probe.failure_threshold and health.ready:
                health.ready, health.message = False, f"readiness probe failed: {failure}"
                changed()


async def _liveness(probe: Probe, attempt: Attempt, sleep: Sleep, *, delays: bool) -> str:
    if delays:
        await sleep(probe.initial_delay_seconds)
    failures = 0
    while True:
        try:
            await attempt(probe)
            failures = 0
        except ProbeFailed as failure:
            failures += 1
            if failures >= probe.failure_threshold:
                return f"liveness probe failed: {failure}"
        await sleep(probe.period_seconds)
