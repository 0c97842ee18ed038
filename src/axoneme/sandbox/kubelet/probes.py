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
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
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
    async with asyncio.TaskGroup() as group:
        if container.readiness_probe is not None:
            group.create_task(
                _readiness(container.readiness_probe, health, attempt, changed, sleep, delays=delays)
            )
        if container.liveness_probe is None:
            await asyncio.Event().wait()
            raise AssertionError("unreachable")
        reason = await _liveness(container.liveness_probe, attempt, sleep, delays=delays)
        raise _Dead(reason)


class _Dead(Exception):
    pass
