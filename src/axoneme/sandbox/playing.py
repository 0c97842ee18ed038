"""A process that plays pods: told over its socket whom and on which ports, it listens for them.

There are two, the echo server and the cluster's DNS. The supervisor owns them and says the whole wish for a
pod each time, so that telling twice, or telling a process that has just been restarted, comes to the same.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Protocol

import msgspec

from axoneme.rpc import NoParams, Server
from axoneme.sandbox.echo.answers import Identity
from axoneme.sandbox.wildcard import Port


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


class Part(Protocol):
    """One identity in one namespace."""

    async def serve(self, ports: Collection[Port]) -> dict[Port, str]:
        """Serves exactly `ports` from now on; returns what could not be served and why."""
        ...

    def close(self) -> None: ...


class Players:
    """All that this process plays, by key."""

    def __init__(self, part: Callable[[Serve], Part]) -> None:
        self._part = part
        self._played: dict[str, tuple[str, Identity, Part]] = {}

    async def serve(self, wish: Serve) -> Served:
        known = self._played.get(wish.key)
        if known is None or known[:2] != (wish.netns, wish.identity):
            if known is not None:
                known[2].close()
            known = (wish.netns, wish.identity, self._part(wish))
            self._played[wish.key] = known
        failed = await known[2].serve(wish.ports)
        return Served(refused=tuple(Refused(port=port, reason=why) for port, why in failed.items()))

    async def stop(self, wish: Stop) -> bool:
        known = self._played.pop(wish.key, None)
        if known is not None:
            known[2].close()
        return known is not None

    async def status(self, _: NoParams) -> Status:
        return Status(keys=tuple(self._played))

    async def listen(self, socket: Path) -> None:
        """Until cancelled."""
        server = Server(socket)
        server.method("play", Serve, self.serve)
        server.method("stop", Stop, self.stop)
        server.method("status", NoParams, self.status)
        await server.serve(ready=gc.freeze)
