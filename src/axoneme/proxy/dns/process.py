"""The DNS proxy as a process: sockets for what the plan says, and everything behind them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections import Counter
from collections.abc import Coroutine
from pathlib import Path
from typing import Final

from axoneme.model.l7event import L7Event
from axoneme.proxy.dns.agentlink import AgentLink
from axoneme.proxy.dns.datagrams import Datagrams
from axoneme.proxy.dns.desk import Desk, Served
from axoneme.proxy.dns.journal import Journal
from axoneme.proxy.dns.kernel import AddressTable
from axoneme.proxy.dns.learning import Learner
from axoneme.proxy.dns.memory import Memory
from axoneme.proxy.dns.streams import Streams
from axoneme.proxy.dns.telling import Telling
from axoneme.proxy.dns.upstream import Upstream
from axoneme.proxy.events import EventSender
from axoneme.proxy.names import JOURNAL, SOCKET, Names, read_journal
from axoneme.proxy.plan import Listener, Plan, Report
from axoneme.proxy.process import Surroundings
from axoneme.proxy.sockets import Answers

log = logging.getLogger(__name__)

_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}


def start(surroundings: Surroundings) -> Coroutine[object, object, None]:
    """See `axoneme.proxy.process.Proxy`: what needs root is to find the agent's tables."""
    return _run(surroundings, AddressTable(surroundings.config.maps))


async def _run(surroundings: Surroundings, table: AddressTable) -> None:
    memory = Memory()
    memory.load(read_journal(Path(JOURNAL)))
    with contextlib.closing(Journal(Path(JOURNAL))) as journal:
        learner = Learner(
            AgentLink(Path(SOCKET)), table, journal, memory, surroundings.config.proxies.dns_hold
        )
        proxy = DNSProxy(surroundings, learner)
        async with asyncio.TaskGroup() as tasks:
            working = [tasks.create_task(each) for each in (learner.run(), proxy.upstream.run())]
            try:
                async for plan in surroundings.following.plans():
                    surroundings.following.report(proxy.use(plan, tasks))
            finally:
                proxy.close()
                for each in working:
                    each.cancel()


class DNSProxy:
    def __init__(self, surroundings: Surroundings, learner: Learner) -> None:
        self._surroundings = surroundings
        self._learner = learner
        self._sender: EventSender | None = None
        self._desk = Desk(
            learner,
            Telling(self._send, asyncio.get_running_loop().call_soon),
            surroundings.config.proxies.dns_refusal,
        )
        self.upstream = Upstream(self._desk)
        self._answers: dict[int, Answers] = {}
        self._clients: Counter[str] = Counter()
        self._listening: dict[int, _Listening] = {}

    def use(self, plan: Plan, tasks: asyncio.TaskGroup) -> Report:
        """Does as the plan says; what has come of it."""
        if self._sender is None:
            self._sender = EventSender(self._surroundings.reachable(Path(plan.events)), plan.redaction)
        self._sender.redaction = plan.redaction
        self._learner.use(plan.names or Names())
        wanted = {each.port: each for each in plan.listeners}
        for port in self._listening.keys() - wanted.keys():
            self._listening.pop(port).close()
        errors: dict[int, str] = {}
        for port, listener in wanted.items():
            try:
                if port in self._listening:
                    self._listening[port].served.use(listener)
                else:
                    self._listening[port] = self._listen(listener, plan.families, tasks)
            except OSError as error:
                errors[port] = str(error)
                log.error("port %d: %s", port, error)
        return Report(plan.revision, tuple(sorted(self._listening)), errors)

    def close(self) -> None:
        for each in self._listening.values():
            each.close()
        for answers in self._answers.values():
            answers.close()
        if self._sender is not None:
            self._sender.close()

    def _listen(self, listener: Listener, families: tuple[int, ...], tasks: asyncio.TaskGroup) -> _Listening:
        made = _Listening(Served(listener))
        try:
            for family in map(_FAMILIES.__getitem__, families):
                if family not in self._answers:
                    self._answers[family] = Answers(family)
                answers = self._answers[family]
                made.datagrams.append(Datagrams(made.served, family, self._desk, self.upstream, answers))
                streams = Streams(made.served, family, self._desk, self._clients)
                made.streams.append(tasks.create_task(streams.run()))
        except BaseException:
            made.close()
            raise
        return made

    def _send(self, *events: L7Event) -> None:
        if self._sender is not None:
            self._sender.send(*events)


class _Listening:
    def __init__(self, served: Served) -> None:
        self.served = served
        self.datagrams: list[Datagrams] = []
        self.streams: list[asyncio.Task[None]] = []

    def close(self) -> None:
        for datagrams in self.datagrams:
            datagrams.close()
        for task in self.streams:
            task.cancel()
