"""The listening sockets of one pod: opened in its namespace, changed as its ports change."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Collection
from pathlib import Path
from typing import Final, NamedTuple

from axoneme.net import kernel, netns
from axoneme.sandbox.echo.answers import Identity
from axoneme.sandbox.echo.datagrams import EchoDatagrams
from axoneme.sandbox.echo.streams import EchoStream

_BACKLOG: Final = 512
_IPPROTO_SCTP: Final = 132


class Port(NamedTuple):
    """A port to serve; ``protocol`` is TCP, UDP or SCTP, as manifests write it."""

    protocol: str
    number: int


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
            failed: dict[Port, str] = {}
            for port, bound in self._bind(set(ports) - self._open.keys(), failed).items():
                try:
                    self._open[port] = await self._listen(port, bound)
                except OSError as failure:
                    bound.close()
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

    def _bind(self, ports: Collection[Port], failed: dict[Port, str]) -> dict[Port, socket.socket]:
        bound: dict[Port, socket.socket] = {}
        if not ports:
            return bound
        with netns.opened(self._namespace) as descriptor, kernel.inside(descriptor):
            for port in sorted(ports):
                try:
                    bound[port] = _bound_socket(port)
                except OSError as failure:
                    failed[port] = failure.strerror or str(failure)
        return bound


def _bound_socket(port: Port) -> socket.socket:
    """A socket on every address of both families, or of IPv4 where the machine has no IPv6."""
    kind = socket.SOCK_DGRAM if port.protocol == "UDP" else socket.SOCK_STREAM
    protocol = _IPPROTO_SCTP if port.protocol == "SCTP" else 0
    try:
        made = socket.socket(socket.AF_INET6, kind | socket.SOCK_NONBLOCK, protocol)
    except OSError as failure:
        if failure.errno != errno.EAFNOSUPPORT:
            raise
        made = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK, protocol)
    try:
        if kind == socket.SOCK_STREAM:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if made.family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.bind(("::" if made.family == socket.AF_INET6 else "", port.number))
    except OSError:
        made.close()
        raise
    return made
