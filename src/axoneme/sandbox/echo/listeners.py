"""The listening sockets of one pod: opened in its namespace, changed as its ports change."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Collection
from pathlib import Path
from typing import Final

from axoneme.sandbox import wildcard
from axoneme.sandbox.echo.answers import Identity
from axoneme.sandbox.echo.datagrams import EchoDatagrams
from axoneme.sandbox.echo.streams import EchoStream
from axoneme.sandbox.wildcard import Port

_BACKLOG: Final = 512


class Listeners:
    """What is served in one network namespace under one identity."""

    def __init__(self, namespace: Path, identity: Identity) -> None:
        self._namespace = namespace
        self._identity = identity
        self._open: dict[Port, asyncio.Server | EchoDatagrams] = {}
        self._turn = asyncio.Lock()

    @property
    def ports(self) -> frozenset[Port]:
        return frozenset(self._open)

    async def serve(self, ports: Collection[Port]) -> dict[Port, str]:
        """Serves exactly `ports` from now on; connections on other ports live on.

        Returns what could not be served and why: the kernel has no SCTP, a process has the port.
        """
        async with self._turn:  # two wishes at once would both find a port unserved
            for port in self._open.keys() - set(ports):
                self._open.pop(port).close()
            bound, failed = wildcard.bind(self._namespace, set(ports) - self._open.keys())
            for port, made in bound.items():
                try:
                    self._open[port] = await self._listen(port, made)
                except OSError as failure:
                    made.close()
                    failed[port] = failure.strerror or str(failure)
            return failed

    def close(self) -> None:
        """Stops listening."""
        for listener in self._open.values():
            listener.close()
        self._open.clear()

    async def _listen(self, port: Port, bound: socket.socket) -> asyncio.Server | EchoDatagrams:
        loop = asyncio.get_running_loop()
        if port.protocol == "UDP":
            return EchoDatagrams(bound, self._identity, loop)
        return await loop.create_server(
            lambda: EchoStream(self._identity, port.protocol.lower()), sock=bound, backlog=_BACKLOG
        )
