"""A process that plays pods, as the supervisor sees it: what it shall play, told to it until it does.

The wishes stand here; the process can end and be started again at any time, and is then told all of them
anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from pathlib import Path
from typing import TypeVar

import msgspec

from axoneme.rpc import UNAVAILABLE, AsyncClient, RpcError
from axoneme.sandbox.echo.answers import Identity
from axoneme.sandbox.playing import Serve, Served, Status, Stop
from axoneme.sandbox.wildcard import Port

log = logging.getLogger(__name__)

R = TypeVar("R")

_RETRY = 0.05


class Player:
    """`name` is what messages call it, `socket` where it listens."""

    def __init__(self, name: str, socket: Path) -> None:
        self.name = name
        self._client = AsyncClient(socket)
        self._wishes: dict[str, Serve] = {}
        self._refused: dict[str, dict[Port, str]] = {}
        self._restarted = asyncio.Event()

    async def run(self) -> None:
        """Tells a server that was restarted what it shall play; until cancelled."""
        while True:
            await self._restarted.wait()
            self._restarted.clear()
            try:
                await self._tell_all()
            except RpcError as failure:
                log.error("%s does not do as it is told: %s", self.name, failure)

    async def _tell_all(self) -> None:
        held = await self._call("status", {}, Status)
        for key in set(held.keys) - self._wishes.keys():
            await self._call("stop", Stop(key=key), bool)
        for wish in list(self._wishes.values()):
            await self._call("play", wish, Served)

    def server_started(self) -> None:
        self._restarted.set()

    async def play(
        self, key: str, namespace: Path, identity: Identity, ports: Collection[Port]
    ) -> dict[Port, str]:
        """Plays `identity` on exactly these ports; returns those that cannot be served, and why.

        Waits for the server when it is not there.
        """
        wish = Serve(key=key, netns=str(namespace), identity=identity, ports=tuple(sorted(ports)))
        if self._wishes.get(key) != wish or key not in self._refused:
            self._wishes[key] = wish
            self._refused.pop(key, None)
            served = await self._call("play", wish, Served)
            self._refused[key] = {refused.port: refused.reason for refused in served.refused}
        return self._refused[key]

    async def stop(self, key: str) -> None:
        self._refused.pop(key, None)
        if self._wishes.pop(key, None) is not None:
            await self._call("stop", Stop(key=key), bool)

    async def _call(self, method: str, params: object, result: type[R]) -> R:
        while True:
            try:
                return await self._client.call(method, msgspec.to_builtins(params), result)
            except RpcError as failure:
                if failure.code != UNAVAILABLE:
                    raise
            await asyncio.sleep(_RETRY)
