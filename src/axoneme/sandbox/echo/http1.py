"""The echo server's HTTP/1.1 (h11 keeps the state of the connection)."""

from __future__ import annotations

import h11

from axoneme.sandbox.echo import answers
from axoneme.sandbox.echo.answers import Request
from axoneme.sandbox.echo.conversation import Conversation


class Http1:
    """Answers each request with 200 and the answer as JSON; keeps the connection as the client asks."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._connection = h11.Connection(h11.SERVER)
        self._request: h11.Request | None = None
        self._beginning = b""
        self._length = 0

    def receive(self, data: bytes) -> None:
        self._connection.receive_data(data)
        try:
            self._progress()
        except h11.RemoteProtocolError as failure:
            self._refuse(failure)

    def end(self) -> None:
        pass

    def _progress(self) -> None:
        while True:
            event = self._connection.next_event()
            match event:
                case h11.Request():
                    self._request, self._beginning, self._length = event, b"", 0
                    if self._connection.they_are_waiting_for_100_continue:
                        self._send(h11.InformationalResponse(status_code=100, headers=[]))
                case h11.Data():
                    self._length += len(event.data)
                    if len(self._beginning) < answers.REPEATED:
                        self._beginning += bytes(event.data)
                case h11.EndOfMessage():
                    self._answer()
                case _:  # needs more data, or the connection ends
                    return

    def _answer(self) -> None:
        request = self._request
        if request is None:
            return
        body = self._conversation.answer(
            Request(
                protocol="http/1.1",
                method=request.method.decode("ascii"),
                path=request.target.decode("ascii"),
                headers=answers.joined(
                    (name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers
                ),
                length=self._length,
                body=answers.text(self._beginning),
            )
        )
        self._respond(200, "application/json", b"" if request.method == b"HEAD" else body, len(body))
        if self._connection.our_state is h11.MUST_CLOSE:
            self._conversation.transport.close()
        else:
            self._connection.start_next_cycle()

    def _respond(self, status: int, kind: str, body: bytes, length: int) -> None:
        headers = [
            ("content-type", kind),
            ("content-length", str(length)),
            ("x-axoneme-pod", self._conversation.identity.pod),
            ("x-axoneme-namespace", self._conversation.identity.namespace),
        ]
        self._send(h11.Response(status_code=status, headers=headers))
        if body:
            self._send(h11.Data(data=body))
        self._send(h11.EndOfMessage())

    def _refuse(self, failure: h11.RemoteProtocolError) -> None:
        if self._connection.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            body = f"not HTTP/1.1: {failure}\n".encode()
            self._respond(failure.error_status_hint, "text/plain", body, len(body))
        self._conversation.transport.close()

    def _send(self, event: h11.Response | h11.InformationalResponse | h11.Data | h11.EndOfMessage) -> None:
        data = self._connection.send(event)
        if data:
            self._conversation.transport.write(data)
