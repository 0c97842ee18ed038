"""What the protocols of a TCP connection have in common, whichever the client chose."""

from __future__ import annotations

import asyncio
from typing import Protocol

from axoneme.sandbox.echo import answers
from axoneme.sandbox.echo.answers import Endpoint, Identity, Request


class Speaker(Protocol):
    """A protocol on one connection: gets bytes, and writes through the `Conversation` it was made with."""

    def receive(self, data: bytes) -> None: ...

    def end(self) -> None:
        """The client will send no more."""


class Conversation:
    """What a speaker knows of its connection."""

    __slots__ = ("identity", "peer", "protocol", "server", "transport")

    def __init__(self, identity: Identity, transport: asyncio.Transport, protocol: str) -> None:
        self.identity = identity
        self.transport = transport
        self.protocol = protocol
        self.server: Endpoint = answers.endpoint(transport.get_extra_info("sockname"))
        self.peer: Endpoint = answers.endpoint(transport.get_extra_info("peername"))

    def answer(self, request: Request) -> bytes:
        return answers.compose(self.identity, self.server, self.peer, request)
