"""The client for processes that run an event loop; the same behaviour as `Client`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar, overload

import msgspec

from axoneme.rpc.address import short_name
from axoneme.rpc.client import convert, final, parse, unreachable
from axoneme.rpc.errors import INTERNAL, UNAVAILABLE, RpcError

R = TypeVar("R")

#: Bytes; an answer may be a whole table.
_LONGEST_ANSWER = 1 << 28


class AsyncClient:
    """Calls methods of the process that listens on ``path``; ``timeout`` as in `Client`."""

    def __init__(self, path: Path, timeout: float | None = 30.0) -> None:
        self._path = path
        self._timeout = timeout

    @overload
    async def call(self, method: str, params: object = None, result: None = None) -> Any: ...
    @overload
    async def call(self, method: str, params: object = None, *, result: type[R]) -> R: ...
    @overload
    async def call(self, method: str, params: object, result: type[R]) -> R: ...
    async def call(self, method: str, params: object = None, result: type[Any] | None = None) -> Any:
        """The method's result: plain JSON values, or a ``result``. RpcError when it fails."""
        async with self._deadline(), self._request(method, params) as reader:
            value = final(self._path, await self._receive(reader))
        return convert(self._path, method, value, result)

    async def stream(
        self, method: str, params: object = None, item: type[Any] | None = None
    ) -> AsyncIterator[Any]:
        """The items of a streaming method. Leave it early under ``contextlib.aclosing``."""
        read = _reader(item)
        async with self._request(method, params) as reader:
            async with self._deadline():
                line = await self._line(reader)
            while True:
                if (found := read(line)) is not None:
                    yield found
                else:
                    answer = parse(self._path, line)
                    if "item" not in answer:
                        final(self._path, answer)
                        return
                    yield convert(self._path, method, answer["item"], item)
                line = await self._line(reader)

    @asynccontextmanager
    async def _request(self, method: str, params: object) -> AsyncIterator[asyncio.StreamReader]:
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {} if params is None else params}
        try:
            with short_name(self._path) as name:
                reader, writer = await asyncio.open_unix_connection(name, limit=_LONGEST_ANSWER)
        except OSError as error:
            raise unreachable(self._path, error) from error
        try:
            writer.write(msgspec.json.encode(request) + b"\n")
            yield reader
        finally:
            writer.close()

    async def _receive(self, reader: asyncio.StreamReader) -> dict[str, Any]:
        return parse(self._path, await self._line(reader))

    async def _line(self, reader: asyncio.StreamReader) -> bytes:
        try:
            return await reader.readline()
        except OSError as error:
            raise unreachable(self._path, error) from error
        except ValueError as error:
            raise RpcError(INTERNAL, f"{self._path}: an answer of over {_LONGEST_ANSWER} bytes") from error

    @asynccontextmanager
    async def _deadline(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout):
                yield
        except TimeoutError as error:
            raise RpcError(UNAVAILABLE, f"{self._path}: no answer within {self._timeout:g} s") from error


def _reader(item: type[Any] | None) -> Callable[[bytes], Any]:
    """Reads a line with an item in one go, which takes a fourth of the time; None for every other line."""
    if item is None:
        return lambda line: None
    kind = msgspec.defstruct("_Line", [("item", item | None, None)])
    decode: Callable[[bytes], Any] = msgspec.json.Decoder(kind).decode

    def read(line: bytes) -> Any:
        if not line.endswith(b"\n"):
            return None
        try:
            return decode(line).item
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None

    return read
