"""The agent's part in the measuring of ways between nodes: it answers, it asks, and it tells."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable

from axoneme.agent.config import AgentConfig
from axoneme.agent.healthendpoint import HealthEndpoint
from axoneme.agent.machine import Machine
from axoneme.datapath.bpf import BpfError
from axoneme.health.answering import PORT, answer, listen
from axoneme.health.monitor import Monitor, Sockets
from axoneme.health.pathmtu import PathMtu, measure
from axoneme.health.ways import HealthReport, Path, Protocol
from axoneme.ipam.pool import AddressError
from axoneme.ipam.pools import AddressPools
from axoneme.net.commands import NetworkError
from axoneme.rpc import NoParams

log = logging.getLogger(__name__)

#: Nodes whose paths are measured for their MTU in one call: the first ones.
_MOST_PATHS = 64


class Health:
    """``prepare``, then ``run``. What fails here is told, and keeps nothing else from working."""

    def __init__(self, config: AgentConfig, machine: Machine, endpoint: HealthEndpoint) -> None:
        self._node = config.node
        self._machine = machine
        self._endpoint = endpoint
        self._versions = tuple(4 if family == "ipv4" else 6 for family in config.families)
        self.monitor = Monitor(config.node, self._versions, config.health.interval)
        self._sockets: Sockets | None = None

    def prepare(self, pools: AddressPools) -> tuple[str, ...]:
        """The addresses that the other nodes are to try."""
        try:
            self._endpoint.prepare(pools)
        except AddressError as error:
            self._problem(f"there is no health endpoint: {error}")
        return self._endpoint.addresses()

    async def run(self) -> None:
        """Until cancelled. Comes when the tables are in the kernel."""
        try:
            await self._endpoint.plug()
        except (NetworkError, BpfError, OSError) as error:
            self._problem(f"the health endpoint could not be plugged in: {error}")
        try:
            self._sockets = Sockets(self._versions)
        except OSError as error:
            self._problem(f"no probes are sent: raw sockets: {error.strerror} (CAP_NET_RAW is needed)")
            return
        try:
            async with asyncio.TaskGroup() as tasks:
                for listener in self._listeners():
                    tasks.create_task(answer(listener, self._node))
                await self.monitor.run(self._sockets)
        finally:
            self._sockets.close()

    def _listeners(self) -> Iterable[socket.socket]:
        makers: list[Callable[[], Iterable[socket.socket]]] = [
            self._endpoint.listeners,
            lambda: [listen(str(address)) for address in self._machine.underlay],
        ]
        for make in makers:
            try:
                yield from make()
            except OSError as error:
                self._problem(f"port {PORT} cannot be listened on: {error.strerror}")

    def _problem(self, text: str) -> None:
        log.error("health: %s", text)
        self.monitor.problems.append(text)

    # ---- asked over the agent's socket ----------------------------------------------------------

    async def status(self, _: NoParams) -> HealthReport:
        return self.monitor.report()

    async def probe(self, _: NoParams) -> HealthReport:
        """Measures everything now."""
        await self.monitor.probe()
        return self.monitor.report()

    async def path_mtus(self, _: NoParams) -> list[PathMtu]:
        """Of the ways to other nodes by which small packets pass, how large ones do."""
        if self._sockets is None:
            return []
        wanted = []
        for node in self.monitor.nodes()[: _MOST_PATHS + 1]:
            for each in node.measurements:
                if node.node != self._node and each.works and each.way.protocol is Protocol.ICMP:
                    under = each.way.path is Path.UNDERLAY
                    largest = self._machine.mtu if under else self._machine.route_mtu
                    pinger = self._sockets.pingers[each.way.version]
                    wanted.append(measure(pinger, node.node, each.way, largest))
        return list(await asyncio.gather(*wanted))
