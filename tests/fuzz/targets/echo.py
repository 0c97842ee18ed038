"""The echo server, which plays images and the world: any pod may send it anything."""

from __future__ import annotations

import json
from collections.abc import Iterable

import h2.connection

from axoneme.sandbox.echo.answers import Identity
from axoneme.sandbox.echo.streams import HTTP2_PREFACE, EchoStream
from fuzz.target import Target


class _Transport:
    """A connection in memory."""

    def __init__(self) -> None:
        self.written, self.closed = b"", False

    def get_extra_info(self, name: str) -> object:
        return ("10.0.0.1", 80) if name == "sockname" else ("10.0.0.2", 40000)

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


def _http2(*headers: tuple[str, str]) -> bytes:
    client = h2.connection.H2Connection()
    client.initiate_connection()
    client.send_headers(1, [*headers], end_stream=False)
    client.send_data(1, b"abc", end_stream=True)
    return client.data_to_send()


def _seeds() -> Iterable[bytes]:
    yield b"\x10GET / HTTP/1.1\r\nHost: a\r\n\r\nHEAD /b HTTP/1.1\r\nhost: a\r\n\r\n"
    yield b"\x80POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc"
    yield b"\x07POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    common = (":method", "POST"), (":scheme", "http"), (":authority", "a")
    yield b"\xff" + _http2(*common, (":path", "/"))
    yield b"\x20" + _http2(
        *common, (":path", "/grpc.health.v1.Health/Check"), ("content-type", "application/grpc")
    )
    yield b"\x05hello\n"


def check(data: bytes) -> None:
    """The connection is answered, or closed; memory for it does not grow with what it sends.

    The first byte says into pieces of which size the rest is cut.
    """
    transport = _Transport()
    stream = EchoStream(Identity(pod="p", namespace="n", node="m"))
    stream.connection_made(transport)  # type: ignore[arg-type]
    size, sent = max(1, data[0]) if data else 1, data[1:]
    for at in range(0, len(sent), size):
        if transport.closed:
            break
        stream.data_received(sent[at : at + size])
    if not transport.closed:
        stream.eof_received()
    stream.connection_lost(None)
    if transport.written.startswith(b"{"):
        json.loads(transport.written.partition(b"\n")[0])
    assert len(transport.written) < 2000 + 3000 * max(1, len(sent) // 16)


TARGETS = [Target("echo", check, _seeds)]
assert HTTP2_PREFACE
