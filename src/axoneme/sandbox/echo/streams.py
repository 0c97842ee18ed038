"""One TCP connection: listens to the first bytes, then lets the right protocol speak.

The client decides: an HTTP method makes it HTTP/1.1, the preface of HTTP/2 makes it HTTP/2, and
everything else is plain bytes, which come back as they are after a first line that says who answers.
"""

from __future__ import annotations

import asyncio
from typing import Final, cast

from axoneme.sandbox.echo import answers
from axoneme.sandbox.echo.answers import Identity, Request
from axoneme.sandbox.echo.conversation import Conversation, Speaker

HTTP2_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # RFC 9113, 3.4
_METHODS: Final = tuple(
    f"{name} ".encode()
    for name in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT")
)


class EchoStream(asyncio.Protocol):
    """The connection itself, for asyncio. ``protocol`` is tcp or sctp."""

    def __init__(self, identity: Identity, protocol: str = "tcp") -> None:
        self._identity = identity
        self._protocol = protocol
        self._heard = b""
        self._conversation: Conversation | None = None
        self._speaker: Speaker | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A client may be gone before we look: then there is no peer to speak of.
        if transport.get_extra_info("peername") is None:
            transport.close()
            return
        self._conversation = Conversation(self._identity, cast(asyncio.Transport, transport), self._protocol)

    def data_received(self, data: bytes) -> None:
        if self._speaker is None:
            self._heard += data
            if self._conversation is None or _undecided(self._heard):
                return
            self._speaker = _speaker_for(self._heard, self._conversation)
            data, self._heard = self._heard, b""
        self._speaker.receive(data)

    def eof_received(self) -> bool:
        if self._conversation is None:
            return False
        if self._speaker is None and self._heard:
            self._speaker = _Plain(self._conversation)
            self._speaker.receive(self._heard)
        if self._speaker is not None:
            self._speaker.end()
        return False  # what has been written is still sent, then asyncio closes

    def pause_writing(self) -> None:
        # The client does not read what it makes us say: stop listening to it.
        if self._conversation is not None:
            self._conversation.transport.pause_reading()

    def resume_writing(self) -> None:
        if self._conversation is not None and not self._conversation.transport.is_closing():
            self._conversation.transport.resume_reading()


class _Plain:
    """Bytes come back; the first line in front of them says who answers."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._introduced = False

    def receive(self, data: bytes) -> None:
        if not self._introduced:
            self._introduced = True
            seen = Request(protocol=self._conversation.protocol, length=len(data), body=answers.text(data))
            self._conversation.transport.write(self._conversation.answer(seen))
        self._conversation.transport.write(data)

    def end(self) -> None:
        pass


def _undecided(heard: bytes) -> bool:
    return any(len(heard) < len(start) and start.startswith(heard) for start in (HTTP2_PREFACE, *_METHODS))


def _speaker_for(heard: bytes, conversation: Conversation) -> Speaker:
    # Imported when first spoken: most sandboxes never see HTTP/2, whose library is the larger part.
    if heard.startswith(HTTP2_PREFACE):
        from axoneme.sandbox.echo.http2 import Http2

        return Http2(conversation)
    if heard.startswith(_METHODS):
        from axoneme.sandbox.echo.http1 import Http1

        return Http1(conversation)
    return _Plain(conversation)
