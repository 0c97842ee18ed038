"""The echo server's HTTP/2 without TLS, and gRPC upon it (h2 keeps the state of the connection).

Every gRPC call succeeds: the health service's answer is SERVING, any other call gets an empty message,
which decodes as every message type.
"""

from __future__ import annotations

from typing import Final

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from axoneme.sandbox.echo import answers
from axoneme.sandbox.echo.answers import Request
from axoneme.sandbox.echo.conversation import Conversation

#: Length-prefixed messages of gRPC: not compressed, a length of 32 bits, the message.
_SERVING: Final = b"\x00\x00\x00\x00\x02\x08\x01"  # grpc.health.v1.HealthCheckResponse, status 1
_EMPTY: Final = b"\x00\x00\x00\x00\x00"


class _Stream:
    __slots__ = ("beginning", "headers", "length")

    def __init__(self, headers: dict[str, str]) -> None:
        self.headers = headers
        self.beginning = b""
        self.length = 0


class Http2:
    """Answers each request when the client has ended it."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        configuration = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        self._connection = h2.connection.H2Connection(configuration)
        self._streams: dict[int, _Stream] = {}
        self._connection.initiate_connection()
        self._flush()

    def receive(self, data: bytes) -> None:
        try:
            for event in self._connection.receive_data(data):
                self._handle(event)
        except h2.exceptions.ProtocolError:
            self._flush()  # h2 has put a GOAWAY there
            self._conversation.transport.close()
            return
        self._flush()

    def end(self) -> None:
        pass

    def _handle(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived():
                headers = answers.joined((str(name), str(value)) for name, value in event.headers)
                self._streams[event.stream_id] = _Stream(headers)
            case h2.events.DataReceived():
                stream = self._streams[event.stream_id]
                stream.length += len(event.data)
                if len(stream.beginning) < answers.REPEATED:
                    stream.beginning += event.data
                self._connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.StreamEnded():
                self._answer(event.stream_id, self._streams.pop(event.stream_id))
            case h2.events.StreamReset():
                self._streams.pop(event.stream_id, None)
            case _:
                pass

    def _answer(self, number: int, stream: _Stream) -> None:
        kind = stream.headers.get("content-type", "")
        path = stream.headers.get(":path", "")
        common = [
            (":status", "200"),
            ("x-axoneme-pod", self._conversation.identity.pod),
            ("x-axoneme-namespace", self._conversation.identity.namespace),
        ]
        if kind.startswith("application/grpc"):
            message = _SERVING if path.startswith("/grpc.health.v1.Health/") else _EMPTY
            self._connection.send_headers(number, [*common, ("content-type", kind)])
            self._connection.send_data(number, message)
            self._connection.send_headers(
                number, [("grpc-status", "0"), ("grpc-message", "")], end_stream=True
            )
            return
        seen = Request(
            protocol="h2",
            method=stream.headers.get(":method", ""),
            path=path,
            headers=stream.headers,
            length=stream.length,
            body=answers.text(stream.beginning),
        )
        body = self._conversation.answer(seen)
        # An answer repeats little of the request, so one frame holds it unless the headers were huge.
        body = body[: self._connection.local_flow_control_window(number)]
        self._connection.send_headers(number, [*common, ("content-type", "application/json")])
        size = self._connection.max_outbound_frame_size
        for start in range(0, len(body), size):
            self._connection.send_data(number, body[start : start + size])
        self._connection.end_stream(number)

    def _flush(self) -> None:
        data = self._connection.data_to_send()
        if data:
            self._conversation.transport.write(data)
