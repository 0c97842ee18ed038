"""Serves Hubble's API: on ``hubble.sock`` beside the flow server's own, and on TCP where configured."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import axoneme
from axoneme.certificates.names import hubble_name
from axoneme.flows.agentevents import FILE_NAME, EventReader
from axoneme.flows.status import Status
from axoneme.flowserver.config import FlowServerConfig
from axoneme.flowserver.hubbleevents import AgentEvents
from axoneme.flowserver.hubbleobserver import HubbleObserver
from axoneme.flowserver.observe import Reader
from axoneme.hubble.address import Address
from axoneme.hubble.nodes import Nodes
from axoneme.hubble.parts import Site
from axoneme.hubble.peers import Peers, full_name
from axoneme.hubble.serving import Server

log = logging.getLogger(__name__)

#: Seconds until an address that somebody else has, or for which there is no certificate yet, is tried again.
_RETRY_EVERY: Final = 2.0


class HubbleApi:
    def __init__(
        self,
        config: FlowServerConfig,
        reader: Reader,
        nodes: Nodes,
        status: Callable[[], Awaitable[Status]],
    ) -> None:
        self._config = config
        self._nodes = nodes
        self._known: tuple[object, Site] | None = None
        self._address = config.hubble.address
        tls = self._address is not None and (self._address.tls or not self._address.local)
        server_name = hubble_name(config.node, config.cluster_name) if tls else ""
        self._about_us = {"tls": {"enabled": tls, "server_name": server_name}}
        port = self._address.port if self._address else 0
        peers = Peers(nodes, config.cluster_name, port, tls)
        observer = HubbleObserver(reader, self.site, status, time.time_ns, self._about)
        events = AgentEvents(
            EventReader(config.state_path / FILE_NAME), lambda: self.site().name, time.time_ns
        )
        services = [observer.service(events.events), peers.service()]
        self._server = Server(services, "hubble-server-version")

    async def serve(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._server.serve(Address(path=self._config.hubble_socket)))
            if self._address is not None:
                tasks.create_task(self._serve_network(self._address))

    async def _serve_network(self, address: Address) -> None:
        """What keeps it from listening is logged, and tried again: flows are kept and served locally."""
        files, problem = self._config.hubble.tls.files(self._config.state_path), ""
        while True:
            try:
                await self._server.serve(address, files, lambda got: log.info("Hubble's API is at %s", got))
            except (OSError, ValueError) as error:
                if problem != str(error):
                    log.error("Hubble's API is not served at %s: %s", address, error)
                problem = str(error)
            await asyncio.sleep(_RETRY_EVERY)

    def site(self) -> Site:
        """The same object, as long as nothing has changed."""
        labels = self._nodes[self._config.node].labels
        if self._known is None or self._known[0] != labels:
            name = full_name(self._config.node, self._config.cluster_name)
            texts = tuple(f"{key}={value}" for key, value in sorted(labels.items()))
            self._known = labels, Site(name, self._config.cluster_name, texts, axoneme.__version__)
        return self._known[1]

    def _about(self) -> dict[str, Any]:
        state = self._nodes[self._config.node]
        host = next(iter(state.internal_addresses or state.addresses), "")
        if self._address is not None:
            return {"address": str(Address(self._address.host or host, self._address.port)), **self._about_us}
        return {"address": str(Address(path=self._config.hubble_socket)), **self._about_us}
