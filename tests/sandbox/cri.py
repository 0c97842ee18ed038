"""As much of the Container Runtime Interface as tests need: gRPC by hand, fields by their numbers.

Numbers are those of Kubernetes' ``runtime/v1/api.proto``.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, ResponseReceived, StreamEnded, StreamReset, TrailersReceived

Message = Mapping[int, "int | str | Message | Sequence[str] | Sequence[Message]"]


class CriError(Exception):
    """The runtime refused; the text is its own."""


def call(path: Path, method: str, request: Message, timeout: float = 60) -> dict[int, bytes]:
    """The fields of the answer that are texts or messages (the last of each number)."""
    body = encode(request)
    connection = H2Connection(H2Configuration(header_encoding="utf-8"))
    headers: dict[str, str] = {}
    answer = bytearray()
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(timeout)
        client.connect(str(path))
        connection.initiate_connection()
        stream = connection.get_next_available_stream_id()
        connection.send_headers(
            stream,
            [
                (":method", "POST"),
                (":scheme", "http"),
                (":authority", "localhost"),
                (":path", f"/runtime.v1.RuntimeService/{method}"),
                ("content-type", "application/grpc"),
                ("te", "trailers"),
            ],
        )
        connection.send_data(stream, b"\0" + len(body).to_bytes(4, "big") + body, end_stream=True)
        while True:
            client.sendall(connection.data_to_send())
            received = client.recv(65536)
            assert received, f"{method}: the runtime went away"
            for event in connection.receive_data(received):
                _take(event, connection, headers, answer)
                if isinstance(event, StreamEnded | StreamReset):
                    if headers.get("grpc-status") != "0":
                        raise CriError(f"{method}: {headers.get('grpc-message', headers)}")
                    return decode(bytes(answer[5:]))


def _take(event: Event, connection: H2Connection, headers: dict[str, str], answer: bytearray) -> None:
    if isinstance(event, ResponseReceived | TrailersReceived):
        headers.update({str(name): str(value) for name, value in event.headers or ()})
    elif isinstance(event, DataReceived):
        answer += event.data
        connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)


def encode(message: Message) -> bytes:
    """Protocol buffers' wire format."""
    return b"".join(
        _field(number, value)
        for number, found in message.items()
        for value in (found if isinstance(found, list | tuple) else (found,))
    )


def _field(number: int, value: object) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else encode(value)  # type: ignore[arg-type]
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def texts(values: Mapping[str, str]) -> list[Message]:
    """A map of texts."""
    return [{1: key, 2: value} for key, value in values.items()]


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        number, kind = divmod(varint(), 8)
        assert kind in {0, 2}, f"wire type {kind}"
        value = varint()
        if kind == 2:
            found[number] = data[at : at + value]
            at += value
    return found
