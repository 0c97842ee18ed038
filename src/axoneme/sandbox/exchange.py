"""One HTTP request on a connected socket, and its response: what probes of either kind need.

The socket was opened in some namespace and is used from here; so this talks to a socket, not to a URL.
Deadlines are the caller's: every function can be cancelled.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass, field
from typing import Final

_LARGEST: Final = 65536

#: So much of a response's body is kept.
_KEPT: Final = 1 << 20


class BadResponse(Exception):
    """The other side ended early, or speaks something else."""


@dataclass(frozen=True, slots=True)
class Request:
    """`host` is the authority, with the port unless it is the scheme's own."""

    host: str
    target: str = "/"
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Response:
    """Headers have lower-case names; with HTTP/2 the trailers stand among them."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


async def http1(connection: socket.socket, request: Request) -> Response:
    """HTTP/1.1, one request on this connection."""
    import h11

    loop = asyncio.get_running_loop()
    state = h11.Connection(h11.CLIENT)
    headers = [("host", request.host), ("connection", "close")]
    if request.body:
        headers.append(("content-length", str(len(request.body))))
    # Those that the caller gives replace ours: a probe may name another host.
    given = {name.lower() for name, _ in request.headers}
    headers = [*(pair for pair in headers if pair[0] not in given), *request.headers]
    try:
        out = state.send(h11.Request(method=request.method, target=request.target, headers=headers)) or b""
        if request.body:
            out += state.send(h11.Data(data=request.body)) or b""
        out += state.send(h11.EndOfMessage()) or b""
        await loop.sock_sendall(connection, out)
        status, found, body = 0, dict[str, str](), b""
        while True:
            event = state.next_event()
            if event is h11.NEED_DATA:
                state.receive_data(await loop.sock_recv(connection, _LARGEST))
            elif isinstance(event, h11.Response):
                status = event.status_code
                found = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
            elif isinstance(event, h11.Data):
                body += bytes(event.data)[: _KEPT - len(body)]
            elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
                return Response(status, found, body)
    except h11.ProtocolError as failure:
        raise BadResponse(str(failure)) from failure


async def http2(connection: socket.socket, request: Request) -> Response:
    """HTTP/2 without TLS and with prior knowledge, one request on this connection."""
    import h2.config
    import h2.connection
    import h2.events
    import h2.exceptions

    loop = asyncio.get_running_loop()
    state = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    state.initiate_connection()
    headers = [
        (":method", request.method),
        (":scheme", "http"),
        (":authority", request.host),
        (":path", request.target),
        *((name.lower(), value) for name, value in request.headers),
    ]
    state.send_headers(1, headers, end_stream=not request.body)
    if request.body:
        # Fits the initial window and one frame (RFC 9113: 65,535 and 16,384 bytes).
        state.send_data(1, request.body[: state.max_outbound_frame_size], end_stream=True)
    found: dict[str, str] = {}
    body = b""
    try:
        while True:
            await loop.sock_sendall(connection, state.data_to_send())
            data = await loop.sock_recv(connection, _LARGEST)
            if not data:
                raise BadResponse("the connection ended before the response did")
            for event in state.receive_data(data):
                match event:
                    case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                        found |= {str(name): str(value) for name, value in event.headers}
                    case h2.events.DataReceived():
                        body += event.data[: _KEPT - len(body)]
                        state.acknowledge_received_data(event.flow_controlled_length, 1)
                    case h2.events.StreamEnded():
                        return Response(int(found.get(":status", "0")), found, body)
                    case h2.events.StreamReset() | h2.events.ConnectionTerminated():
                        raise BadResponse(f"the server gave up: error {event.error_code}")
                    case _:
                        pass
    except h2.exceptions.ProtocolError as failure:
        raise BadResponse(f"not HTTP/2: {failure}") from failure
