"""The agent, as long as it is there: one connection, made anew for the next answers when it is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec

from axoneme.proxy.names import LEARN, Learn
from axoneme.rpc.address import short_name
from axoneme.rpc.errors import INTERNAL, UNAVAILABLE, RpcError


class _Reply(msgspec.Struct):
    error: dict[str, Any] | None = None


class AgentLink:
    def __init__(self, path: Path, timeout: float = 5.0) -> None:
        self._path = path
        self._timeout = timeout
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder(_Reply).decode
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def learn(self, batch: Learn) -> None:
        """Returns when the addresses are in the kernel. Raises RpcError, OSError (TimeoutError)."""
        async with asyncio.timeout(self._timeout):
            used = self._streams is not None
            line = await self._ask(batch)
            if not line and used:  # that agent has ended; perhaps there is another
                line = await self._ask(batch)
        if not line:
            raise RpcError(UNAVAILABLE, f"{self._path}: it has ended")
        try:
            error = self._decode(line).error
        except msgspec.DecodeError as odd:
            raise RpcError(INTERNAL, f"{self._path}: an answer that is none: {odd}") from None
        if error is not None:
            raise RpcError(int(error.get("code", 0)), str(error.get("message")))

    async def _ask(self, batch: Learn) -> bytes:
        """Its answer; empty when the connection has ended before."""
        try:
            if self._streams is None:
                with short_name(self._path) as name:
                    self._streams = await asyncio.open_unix_connection(name)
            reader, writer = self._streams
            try:
                request = {"jsonrpc": "2.0", "id": 1, "method": LEARN, "params": batch}
                writer.write(self._encode(request) + b"\n")
                await writer.drain()
                line = await reader.readline()
            except ConnectionError:
                line = b""
        except BaseException:
            self.close()
            raise
        if not line:
            self.close()
        return line

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None
