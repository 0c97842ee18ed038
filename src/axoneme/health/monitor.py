"""Measures the ways to every node, this one included, for as long as the agent runs."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Protocol as Interface

from axoneme.health import answering
from axoneme.health.agenda import Agenda
from axoneme.health.icmp import Pinger
from axoneme.health.ways import (
    Answer,
    HealthReport,
    HealthSummary,
    Measurement,
    NodeHealth,
    Protocol,
    Way,
    summary,
    ways,
)
from axoneme.model.state import NodeState

log = logging.getLogger(__name__)

#: Nodes that are measured at once when somebody asks for it now.
_AT_ONCE = 16


class Prober(Interface):
    """Sends one probe; OSError says why there is no answer."""

    async def probe(self, way: Way) -> Answer: ...


class Sockets:
    """Probes from this network namespace. Made within the event loop."""

    def __init__(self, versions: Iterable[int]) -> None:
        self.pingers = {version: Pinger(version) for version in versions}

    async def probe(self, way: Way) -> Answer:
        if way.protocol is Protocol.ICMP:
            return await self.pingers[way.version].ask(way.address)
        return await answering.ask(way.address)

    def close(self) -> None:
        for pinger in self.pingers.values():
            pinger.close()


class Monitor:
    """What is known of the ways to every node. ``versions``: the families of this node."""

    def __init__(self, node: str, versions: Sequence[int], base: float) -> None:
        self._node = node
        self._versions = versions
        self._agenda = Agenda(base)
        self._found: dict[str, tuple[Measurement, ...]] = {}
        self._states: dict[str, NodeState] = {}
        self._news = asyncio.Event()
        self._prober: Prober | None = None
        #: Why others may not get answers from this node.
        self.problems: list[str] = []

    def node_changed(self, name: str, state: NodeState | None) -> None:
        """A node says where it is, or is gone (None)."""
        if state is None:
            self._states.pop(name, None)
            self._found.pop(name, None)
            self._agenda.remove(name)
            return
        self._states[name] = state
        before = {each.way: each for each in self._found.get(name, ())}
        found = ways(state, self._versions)
        self._found[name] = tuple(before.get(way) or Measurement(way) for way in found)
        self._agenda.add(name, time.monotonic())
        self._news.set()

    async def run(self, prober: Prober) -> None:
        """Until cancelled."""
        self._prober = prober
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._news.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._agenda.wait(time.monotonic())):
                        await self._news.wait()
                name = self._agenda.take(time.monotonic(), random.random())
                if name is not None:
                    tasks.create_task(self._measure(name))

    async def probe(self, names: Iterable[str] = ()) -> None:
        """Measures these nodes now, or all of them."""
        if self._prober is None:
            return
        room = asyncio.Semaphore(_AT_ONCE)

        async def one(name: str) -> None:
            async with room:
                await self._measure(name)

        async with asyncio.TaskGroup() as tasks:
            for name in list(names) or list(self._found):
                tasks.create_task(one(name))

    async def _measure(self, name: str) -> None:
        assert self._prober is not None
        wanted = [each.way for each in self._found.get(name, ())]
        results = await asyncio.gather(*(self._probe(way) for way in wanted))
        now = time.time()
        new = dict(zip(wanted, results, strict=True))
        was = {each.way: each for each in self._found.get(name, ())}  # the node may have moved meanwhile
        for way in was.keys() & new.keys():
            result, before = new[way], was[way]
            if isinstance(result, Answer) and result.node not in ("", name):
                result = f"{result.node} answers there: two nodes have this address"
            if isinstance(result, Answer):
                was[way] = before.answered(result, now)
                if before.failures:
                    log.info("%s: %s works again", name, way)
            else:
                was[way] = before.failed(result, now)
                if not before.failures:
                    log.warning("%s: %s: %s", name, way, result)
        if name in self._found:
            self._found[name] = tuple(was.values())
            if failing := [each.failures for each in was.values() if each.failures]:
                self._agenda.hurry(name, time.monotonic(), min(failing))

    async def _probe(self, way: Way) -> Answer | str:
        assert self._prober is not None
        try:
            return await self._prober.probe(way)
        except OSError as error:
            return os.strerror(error.errno).lower() if error.errno else str(error)

    # ---- what is told --------------------------------------------------------------------------

    def nodes(self) -> list[NodeHealth]:
        return [NodeHealth(name, list(self._found[name])) for name in sorted(self._found)]

    def summary(self) -> HealthSummary:
        return summary(self.nodes())

    def report(self) -> HealthReport:
        return HealthReport(self._node, self._agenda.interval, self.nodes(), list(self.problems))
