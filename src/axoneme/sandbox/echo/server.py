"""The echo server's process: told over its socket whom to play, it listens for them.

`python -m axoneme.sandbox.echo SOCKET`. The supervisor owns it and says the whole wish for a pod each
time, so that telling twice, or telling a server that has just been restarted, comes to the same.
"""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

import msgspec

from axoneme.rpc import NoParams, Server
from axoneme.sandbox.echo.answers import Identity
from axoneme.sandbox.echo.listeners import Listeners, Port


class Serve(msgspec.Struct, frozen=True, kw_only=True):
    """Play `identity` in the namespace that the file `netns` holds, on exactly these ports."""

    key: str
    netns: str
    identity: Identity
    ports: tuple[Port, ...]


class Stop(msgspec.Struct, frozen=True, kw_only=True):
    key: str


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """A port that is not served, and why."""

    port: Port
    reason: str


class Served(msgspec.Struct, frozen=True, kw_only=True):
    refused: tuple[Refused, ...] = ()


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The keys that are served now."""

    keys: tuple[str, ...]


class EchoServer:
    """All identities that this process plays, by key."""

    def __init__(self) -> None:
        self._served: dict[str, tuple[str, Identity, Listeners]] = {}

    async def serve(self, wish: Serve) -> Served:
        known = self._served.get(wish.key)
        if known is None or known[:2] != (wish.netns, wish.identity):
            if known is not None:
                known[2].close()
            known = (wish.netns, wish.identity, Listeners(Path(wish.netns), wish.identity))
            self._served[wish.key] = known
        failed = await known[2].serve(wish.ports)
        return Served(refused=tuple(Refused(port=port, reason=why) for port, why in failed.items()))

    async def stop(self, wish: Stop) -> bool:
        known = self._served.pop(wish.key, None)
        if known is not None:
            known[2].close()
        return known is not None

    async def status(self, _: NoParams) -> Status:
        return Status(keys=tuple(self._served))


async def serve(socket: Path) -> None:
    """Until cancelled."""
    echo = EchoServer()
    server = Server(socket)
    server.method("echo.serve", Serve, echo.serve)
    server.method("echo.stop", Stop, echo.stop)
    server.method("status", NoParams, echo.status)
    await server.serve(ready=gc.freeze)


def run(socket: Path) -> None:
    asyncio.run(serve(socket))
