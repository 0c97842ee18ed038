"""The echo server's UDP: each datagram is answered with one, from the address that was asked."""

from __future__ import annotations

import asyncio
import socket
from typing import Final

from axoneme.sandbox.echo import answers
from axoneme.sandbox.echo.answers import Endpoint, Identity, Request
from axoneme.sandbox.wildcard import destination

_LARGEST: Final = 65536

#: So many datagrams are answered before the loop may serve others.
_BURST: Final = 64


class EchoDatagrams:
    """Answers on one bound socket, which it owns from now on, until `close`."""

    def __init__(self, bound: socket.socket, identity: Identity, loop: asyncio.AbstractEventLoop) -> None:
        self._socket = bound
        self._identity = identity
        self._loop = loop
        self._port: int = bound.getsockname()[1]
        loop.add_reader(bound, self._answer_waiting)

    def close(self) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _answer_waiting(self) -> None:
        for _ in range(_BURST):
            try:
                data, ancillary, _, sender = self._socket.recvmsg(_LARGEST, 64)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error that an earlier answer met; nobody waits for it here
                continue
            asked = destination(ancillary)
            if asked is None:
                continue
            request = Request(protocol="udp", length=len(data), body=answers.text(data))
            server = answers.endpoint((asked[0], self._port))
            answer = answers.compose(self._identity, server, _peer(sender), request)
            try:
                self._socket.sendmsg([answer], [asked[1]], 0, sender)
            except OSError:  # no route back, or a full queue: UDP may lose
                continue


def _peer(sender: tuple[str, int]) -> Endpoint:
    return answers.endpoint(sender)
