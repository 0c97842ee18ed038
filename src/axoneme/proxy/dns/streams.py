"""Clients that ask by TCP (RFC 7766): any number of questions, answered in any order.

Each client's connection has one of its own to the server, which is opened for the first question that may be
asked. When the server closes it, the client's is closed too, as it would be without a proxy.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

from axoneme.proxy import sockets
from axoneme.proxy.dns import message
from axoneme.proxy.dns.desk import Desk, Question, Served
from axoneme.proxy.sockets import End

log = logging.getLogger(__name__)

#: Connections, of all clients and of one; further ones are closed.
MOST: Final = 1024
MOST_EACH: Final = 128
#: Questions of one connection without an answer; the next ones are not read meanwhile.
PIPELINE: Final = 128
#: Bytes of them: queries are small, but may be padded.
PIPELINED: Final = 1 << 16
#: Seconds without a word after which a connection is closed, and for which a server is waited for.
IDLE: Final = 30.0
PATIENCE: Final = 10.0
#: Bytes of answers that a client has not taken; then it has to do without.
_UNREAD: Final = 1 << 20
#: Seconds for which the last answers wait to be taken.
_LINGER: Final = 5.0

#: Opens a connection in a client's name to a server.
Connect = Callable[[End, End, str], Awaitable[socket.socket]]


async def connect(client: End, server: End, direction: str) -> socket.socket:
    """Raises OSError."""
    return await sockets.connect(client, server, direction, PATIENCE)


class Streams:
    """One listener's socket for one family; `counts` are those of the process."""

    def __init__(
        self,
        served: Served,
        family: socket.AddressFamily,
        desk: Desk,
        counts: Counter[str],
        connect: Connect = connect,
    ) -> None:
        """Raises OSError."""
        self._served = served
        self._desk = desk
        self._counts = counts
        self._connect = connect
        self._socket = sockets.listener(family, served.listener.port, socket.SOCK_STREAM)

    async def run(self) -> None:
        """Until cancelled, which ends all connections."""
        loop = asyncio.get_running_loop()
        with self._socket:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    try:
                        taken, _ = await loop.sock_accept(self._socket)
                    except OSError as error:
                        log.warning("port %d: %s", self._served.listener.port, error)
                        await asyncio.sleep(0.1)
                        continue
                    tasks.create_task(self._serve(taken))

    async def _serve(self, taken: socket.socket) -> None:
        try:
            found = sockets.ends(taken)
        except OSError:
            found = None
        if found is None or self._counts.total() >= MOST or self._counts[found[0].address] >= MOST_EACH:
            taken.close()
            return
        client, server = found
        self._counts[client.address] += 1
        try:
            await Session(self._served, self._desk, client, server, self._connect).run(taken)
        except Exception:
            log.exception("a connection of %s has ended", client.address)
        finally:
            self._counts[client.address] -= 1
            if not self._counts[client.address]:
                del self._counts[client.address]


class _Over(Exception):
    """The session has come to its end."""


class Session:
    """One client's connection."""

    def __init__(self, served: Served, desk: Desk, client: End, server: End, connect: Connect) -> None:
        self._served = served
        self._desk = desk
        self._client, self._server = client, server
        self._connect = connect
        self._asked: dict[int, Question] = {}
        self._unsent: list[bytes] | None = None  # while the connection to the server is being made
        self._upstream: asyncio.StreamWriter | None = None
        self._unanswered = 0
        self._bytes = 0  # of what is unanswered
        self._room = asyncio.Event()

    async def run(self, taken: socket.socket) -> None:
        """Until it is over; closes it."""
        reader, self._writer = await asyncio.open_connection(sock=taken)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._listen(reader, tasks))
        except* (_Over, OSError, asyncio.IncompleteReadError):
            pass
        finally:
            for question in self._asked.values():
                if not question.query.transfer:  # nobody knows whether that is complete
                    self._desk.dropped(question, "the connection has ended")
            self._asked.clear()
            if self._upstream is not None:
                self._upstream.close()
            await _closed(self._writer)

    async def _listen(self, reader: asyncio.StreamReader, tasks: asyncio.TaskGroup) -> None:
        """What the client says, to its last word; then what it has asked is waited for."""
        while wire := await _message(reader):
            await self._fewer_than(PIPELINE, PIPELINED - len(wire))
            self._unanswered += 1
            self._bytes += len(wire)
            reply = self._reply(len(wire))
            question = self._desk.take(wire, self._served, self._client, self._server, "TCP", reply)
            if question is not None:
                self._ask(question, tasks)
            elif len(wire) < message.HEADER or wire[2] & 0x80:
                raise _Over  # it does not speak DNS, and was not answered
        async with asyncio.timeout(PATIENCE):
            await self._fewer_than(1)
        raise _Over

    async def _fewer_than(self, many: int, size: int = PIPELINED) -> None:
        """Unanswered questions, of at most ``size`` bytes."""
        while self._unanswered >= many or self._bytes > size:
            self._room.clear()
            await self._room.wait()

    def _ask(self, question: Question, tasks: asyncio.TaskGroup) -> None:
        number = int.from_bytes(os.urandom(2))
        while number in self._asked:
            number = int.from_bytes(os.urandom(2))
        self._asked[number] = question
        framed = _framed(message.with_id(question.query.wire, number))
        if self._upstream is not None:
            self._upstream.write(framed)
        elif self._unsent is not None:
            self._unsent.append(framed)
        else:
            self._unsent = [framed]
            tasks.create_task(self._speak(self._unsent))

    async def _speak(self, unsent: list[bytes]) -> None:
        """What the server says."""
        made = await self._connect(self._client, self._server, self._served.listener.direction)
        reader, self._upstream = await asyncio.open_connection(sock=made)
        self._upstream.write(b"".join(unsent))
        while True:
            async with asyncio.timeout(IDLE + PATIENCE):
                size = int.from_bytes(await reader.readexactly(2))
                wire = await reader.readexactly(size)
            number = message.id_of(wire) if size >= message.HEADER else -1
            question = self._asked.get(number)
            if question is None:
                continue  # it has been given up
            if not question.query.transfer:  # of which there may be more
                del self._asked[number]
            if not message.belongs(wire, question.query):
                self._desk.failed(question, "the server has answered something else")
            else:
                self._desk.answered(question, wire)

    def _reply(self, size: int) -> Callable[[bytes], None]:
        """For one question of so many bytes: takes its answer, or, of a zone, one after the other."""
        answered = False

        def reply(wire: bytes) -> None:
            nonlocal answered
            if not answered:
                answered = True
                self._unanswered -= 1
                self._bytes -= size
                self._room.set()
            self._write(wire)

        return reply

    def _write(self, wire: bytes) -> None:
        if not self._writer.is_closing():
            self._writer.write(_framed(wire))
            if self._writer.transport.get_write_buffer_size() > _UNREAD:
                self._writer.transport.abort()


async def _message(reader: asyncio.StreamReader) -> bytes:
    """The next one; empty when there is none to come. Raises TimeoutError when it is too slow."""
    try:
        async with asyncio.timeout(IDLE):
            size = int.from_bytes(await reader.readexactly(2))
            return await reader.readexactly(size)
    except asyncio.IncompleteReadError:
        return b""


async def _closed(writer: asyncio.StreamWriter) -> None:
    """Closes it, when what is written has been taken, or nobody has taken it for too long."""
    writer.close()
    try:
        async with asyncio.timeout(_LINGER):
            await writer.wait_closed()
    except OSError:
        writer.transport.abort()


def _framed(wire: bytes) -> bytes:
    return len(wire).to_bytes(2) + wire
