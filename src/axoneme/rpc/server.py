"""The serving side: an asyncio server on one unix socket.

A connection that reaches its end of input (the client has left, or has said all it wanted) loses its
streams at once, while calls under way run to their end: half an attached pod helps nobody, and
``echo … | socat`` still gets its answer.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from axoneme.rpc.errors import (
    INTERNAL,
    INVALID,
    INVALID_REQUEST,
    PARSE,
    UNKNOWN_METHOD,
    RpcError,
)
from axoneme.rpc.listening import unix_listener

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Bytes in a request; requests are small, this only bounds what a broken client can make us buffer.
LONGEST_REQUEST = 1 << 24
#: Bytes that may wait in a connection's buffer before a stream pauses.
_HIGH_WATER = 1 << 16


#: Absent in a notification, which wants no answer.
_Id = int | str | msgspec.UnsetType | None


class NoParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The parameters of a method that takes none."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Several items of a stream, yielded at once: one write instead of one an item."""

    items: Sequence[object]


class _Request(msgspec.Struct, frozen=True):
    method: str
    id: _Id = msgspec.UNSET
    params: msgspec.Raw = msgspec.Raw(b"{}")


@dataclass(frozen=True, slots=True)
class _Method(Generic[T]):
    params: type[T]
    call: Callable[[T], Awaitable[object]] | None = None
    stream: Callable[[T], AsyncIterator[object]] | None = None


class Server:
    """Serves methods on the unix socket ``path``: register them, then await `serve`."""

    def __init__(self, path: Path, *, mode: int = 0o600, draft_folder: Path | None = None) -> None:
        """``mode`` is the socket's. Where others can write to its folder, it has to be made elsewhere, in
        ``draft_folder`` on the same file system."""
        self._path = path
        self._mode = mode
        self._draft_folder = draft_folder or path.parent
        self._methods: dict[str, _Method[Any]] = {}

    def method(self, name: str, params: type[T], handler: Callable[[T], Awaitable[object]]) -> None:
        """``handler`` gets the request's parameters as a ``params`` and returns the result."""
        self._methods[name] = _Method(params, call=handler)

    def stream(self, name: str, params: type[T], handler: Callable[[T], AsyncIterator[object]]) -> None:
        """``handler`` yields the items, or a `Batch` of them; it is closed when the client leaves."""
        self._methods[name] = _Method(params, stream=handler)

    async def serve(self, ready: Callable[[], None] | None = None) -> None:
        """Until cancelled; ``ready`` is called once clients can connect.

        RpcError(CONFLICT) when another process already serves on the path.
        """
        loop = asyncio.get_running_loop()
        with unix_listener(self._path, self._mode, self._draft_folder) as listener:
            if ready:
                ready()
            async with asyncio.TaskGroup() as connections:
                while True:
                    try:
                        client, _ = await loop.sock_accept(listener)
                    except OSError as error:  # out of descriptors or memory: the others go on
                        log.warning("%s: cannot accept a connection: %s", self._path, error)
                        await asyncio.sleep(0.1)
                        continue
                    connections.create_task(_serve_client(client, self._methods))


async def _serve_client(client: socket.socket, methods: dict[str, _Method[Any]]) -> None:
    reader, writer = await asyncio.open_unix_connection(sock=client, limit=LONGEST_REQUEST)
    writer.transport.set_write_buffer_limits(high=_HIGH_WATER)
    try:
        await _Connection(methods, reader, writer).run()
    except Exception:  # whatever a client has brought about, the others are served on
        log.exception("a connection failed")
    finally:
        writer.close()


class _Gone(Exception):
    """The client has left, and with it whoever would read an answer."""


class _Connection:
    def __init__(
        self, methods: dict[str, _Method[Any]], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._methods = methods
        self._reader = reader
        self._writer = writer
        self._encode = msgspec.json.Encoder().encode
        self._streams: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as requests:
            while line := await self._line():
                self._start(line, requests)
            for stream in self._streams:
                stream.cancel()

    async def _line(self) -> bytes:
        try:
            return await self._reader.readline()
        except ValueError:
            self._error(None, RpcError(INVALID_REQUEST, f"a request of over {LONGEST_REQUEST} bytes"))
        except OSError:
            pass  # it has gone
        return b""

    def _start(self, line: bytes, requests: asyncio.TaskGroup) -> None:
        try:
            request = msgspec.json.decode(line, type=_Request)
        except msgspec.ValidationError as error:
            self._error(None, RpcError(INVALID_REQUEST, f"not a request: {error}"))
            return
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._error(None, RpcError(PARSE, f"not a line of JSON: {error}"))
            return
        task = requests.create_task(self._answer(request))
        method = self._methods.get(request.method)
        if method and method.stream:
            self._streams.add(task)
            task.add_done_callback(self._streams.discard)

    async def _answer(self, request: _Request) -> None:
        try:
            method = self._methods.get(request.method)
            if not method:
                known = ", ".join(sorted(self._methods))
                raise RpcError(UNKNOWN_METHOD, f"no method {request.method!r}; there are: {known}")
            params = _params(method, request)
            if method.call:
                self._result(request.id, await method.call(params))
            elif method.stream:
                await self._send_items(request.id, method.stream(params))
                self._result(request.id, None)
        except RpcError as error:
            self._error(request.id, error)
        except _Gone:
            pass
        except Exception as error:
            log.exception("%s failed", request.method)
            self._error(request.id, RpcError(INTERNAL, f"{request.method}: {type(error).__name__}: {error}"))

    async def _send_items(self, id_: _Id, items: AsyncIterator[object]) -> None:
        if id_ is msgspec.UNSET:
            raise RpcError(INVALID_REQUEST, "a method that streams needs an id in the request")
        head = b'{"jsonrpc":"2.0","id":%b,"item":' % self._encode(id_)
        encode = self._encode
        try:
            async for item in items:
                batch = item.items if isinstance(item, Batch) else (item,)
                self._writer.write(b"".join([head + encode(each) + b"}\n" for each in batch]))
                await self._drain()
        finally:
            if close := getattr(items, "aclose", None):
                await close()

    async def _drain(self) -> None:
        try:
            await self._writer.drain()
        except ConnectionError as error:
            raise _Gone from error

    def _result(self, id_: _Id, result: object) -> None:
        self._send(id_, {"jsonrpc": "2.0", "id": id_, "result": result})

    def _error(self, id_: _Id, error: RpcError) -> None:
        body = {"code": error.code, "message": error.message}
        if error.data is not None:
            body["data"] = msgspec.to_builtins(error.data, enc_hook=repr)
        self._send(id_, {"jsonrpc": "2.0", "id": id_, "error": body})

    def _send(self, id_: _Id, answer: dict[str, object]) -> None:
        if id_ is not msgspec.UNSET:
            line = self._encode(answer) + b"\n"
            if not self._writer.is_closing():
                self._writer.write(line)


def _params(method: _Method[T], request: _Request) -> T:
    raw = bytes(request.params)
    try:
        return msgspec.json.decode(b"{}" if raw == b"null" else raw, type=method.params)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RpcError(INVALID, f"{request.method}: params: {error}") from error
