"""Asking the name servers of the world, from a pod's own network."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from axoneme.net import netns

#: Seconds until the next server is asked, or the same once more.
_PATIENCE: Final = 2.0
_LARGEST: Final = 65535
_PORT: Final = 53


class Forwarder:
    """Asks `servers`, one after the other, twice each at most; `namespace` holds the network to ask from."""

    def __init__(self, namespace: Path, servers: Sequence[str]) -> None:
        self._namespace = namespace
        self._servers = tuple(servers)

    async def ask(self, wire: bytes, tcp: bool) -> bytes | None:
        """The answer to a query, with the query's number; None when there is none."""
        number = os.urandom(2)  # of our own, and with a port of its own: neither is easily guessed
        question = number + wire[2:]
        for server in (*self._servers, *self._servers):
            try:
                async with asyncio.timeout(_PATIENCE):
                    said = await self._over(
                        socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM, server, question
                    )
            except (OSError, EOFError):  # TimeoutError is an OSError
                continue
            return wire[:2] + said[2:]
        return None

    async def _over(self, kind: int, server: str, question: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in server else socket.AF_INET
        with netns.open_socket(self._namespace, family, kind) as opened:
            await loop.sock_connect(opened, (server, _PORT))
            if kind == socket.SOCK_STREAM:
                await loop.sock_sendall(opened, len(question).to_bytes(2, "big") + question)
                size = int.from_bytes(await _exactly(opened, 2), "big")
                return _checked(await _exactly(opened, size), question)
            await loop.sock_sendall(opened, question)
            while True:
                said = await loop.sock_recv(opened, _LARGEST)
                if _answers(said, question):
                    return said


async def _exactly(opened: socket.socket, size: int) -> bytes:
    loop = asyncio.get_running_loop()
    said = b""
    while len(said) < size:
        part = await loop.sock_recv(opened, size - len(said))
        if not part:
            raise EOFError("the server has closed the connection")
        said += part
    return said


def _checked(said: bytes, question: bytes) -> bytes:
    if not _answers(said, question):
        raise EOFError("the server answers something else")
    return said


def _answers(said: bytes, question: bytes) -> bool:
    return len(said) >= 12 and said[:2] == question[:2] and bool(said[2] & 0x80)
