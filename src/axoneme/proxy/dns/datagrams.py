"""Clients that ask by UDP."""

from __future__ import annotations

import asyncio
import logging
import socket
from functools import partial
from typing import Final

from axoneme.proxy.dns.desk import Desk, Served
from axoneme.proxy.dns.upstream import Upstream
from axoneme.proxy.sockets import Answers, End, listener, received

log = logging.getLogger(__name__)

#: A query is smaller; what is longer is cut, and then malformed.
_LARGEST: Final = 4096
#: Queries taken from one socket before others have their turn.
_TURN: Final = 64
#: Asked for as the room for queries that wait; the kernel gives net.core.rmem_max at most.
_ROOM: Final = 4 << 20


class Datagrams:
    """One listener's sockets for one family."""

    def __init__(
        self, served: Served, family: socket.AddressFamily, desk: Desk, upstream: Upstream, answers: Answers
    ) -> None:
        """Raises OSError."""
        self._served = served
        self._desk = desk
        self._upstream = upstream
        self._answers = answers
        self._socket = listener(family, served.listener.port, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket.fileno(), self._hear)

    def close(self) -> None:
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()

    def _hear(self) -> None:
        for _ in range(_TURN):
            try:
                found = received(self._socket, _LARGEST)
            except BlockingIOError:
                return
            except OSError as error:
                log.warning("port %d: %s", self._served.listener.port, error)
                return
            if found is None:
                continue  # for the listener itself: there is nobody behind it
            wire, client, server = found
            reply = partial(self._reply, client, server)
            question = self._desk.take(wire, self._served, client, server, "UDP", reply)
            if question is not None:
                self._upstream.ask(question)

    def _reply(self, client: End, server: End, wire: bytes) -> None:
        try:
            self._answers.send(wire, client, server)
        except OSError as error:  # as if it had been lost on the way; the client asks again
            log.debug("an answer to %s is lost: %s", client.address, error)
