"""A small HTTP server for what load balancers and monitors ask: GET of a path, and an answer.

Anybody who reaches the port may ask, so nobody can keep it busy: so many connections at a time, each for
so long (h11 bounds what a request may fill).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Final, NamedTuple

import h11

#: Connections at a time; who comes beyond them is sent away.
_MOST: Final = 64
#: Seconds that a connection may last.
_PATIENCE: Final = 10.0
_CHUNK: Final = 4096


class Request(NamedTuple):
    """A GET or HEAD; names of ``headers`` in lower case."""

    path: str
    headers: Mapping[str, str] = {}


class Reply(NamedTuple):
    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = "application/json"


class HttpAnswers:
    """``respond`` is asked with each request. With ``tls`` that is HTTPS, and nothing else.

    ``patience``: seconds that a connection may last; who asks at intervals wants to keep it in between."""

    def __init__(
        self,
        respond: Callable[[Request], Awaitable[Reply]],
        tls: ssl.SSLContext | None = None,
        patience: float = _PATIENCE,
    ) -> None:
        self._respond = respond
        self._tls = tls
        self._patience = patience
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self, addresses: Sequence[str], port: int) -> None:
        """At ``addresses``, or at every one where there is none. OSError when somebody else has the port."""
        self._server = await asyncio.start_server(
            self._talk,
            list(addresses) or None,
            port,
            limit=_CHUNK,
            ssl=self._tls,
            ssl_handshake_timeout=self._patience if self._tls else None,
        )

    @property
    def ports(self) -> set[int]:
        """Where it listens."""
        return {each.getsockname()[1] for each in self._server.sockets} if self._server else set()

    def close(self) -> None:
        """The port is free, and nobody is answered any more."""
        if self._server:
            self._server.close()
        for writer in self._open:
            writer.transport.abort()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= _MOST:
            writer.transport.abort()
            return
        self._open.add(writer)
        try:
            async with asyncio.timeout(self._patience):
                await self._converse(reader, writer)
        except (TimeoutError, OSError, h11.RemoteProtocolError):  # who asked has gone, or talks nonsense
            pass
        finally:
            self._open.discard(writer)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_CHUNK)
        request = None
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await reader.read(_CHUNK))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.EndOfMessage) and request is not None:
                writer.write(await self._answer(connection, request))
                await writer.drain()
                if connection.our_state is h11.MUST_CLOSE:
                    return
                connection.start_next_cycle()
            elif not isinstance(event, h11.Data):
                return

    async def _answer(self, connection: h11.Connection, request: h11.Request) -> bytes:
        if request.method in (b"GET", b"HEAD"):
            told = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers}
            reply = await self._respond(Request(request.target.partition(b"?")[0].decode("latin-1"), told))
        else:
            reply = Reply(405, b'{"error": "ask by GET"}', (("allow", "GET, HEAD"),))
        headers = [
            ("content-type", reply.content_type),
            ("x-content-type-options", "nosniff"),
            ("content-length", f"{len(reply.body)}"),
            *reply.headers,
        ]
        reason = HTTPStatus(reply.status).phrase.encode()
        sent = connection.send(h11.Response(status_code=reply.status, headers=headers, reason=reason)) or b""
        if request.method != b"HEAD":
            sent += connection.send(h11.Data(data=reply.body)) or b""
        return sent + (connection.send(h11.EndOfMessage()) or b"")
