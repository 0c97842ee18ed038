"""Questions to servers by UDP, in the clients' names.

A *line* is a socket from a client's address, at a port taken at random, to one server. Questions share it for
a few seconds, so that not each is a connection of its own for the datapath, each under an ID taken at random:
who forges an answer has to guess port, ID and question within that time. Nothing here grows without bound:
lines and questions that are too many displace the oldest.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

from axoneme.proxy.dns import message
from axoneme.proxy.dns.desk import Desk, Question
from axoneme.proxy.dns.outstanding import Outstanding
from axoneme.proxy.sockets import End, onwards, own_ports

#: Seconds for which an answer is waited for: longer than resolvers do (5 s).
PATIENCE: Final = 10.0
#: Questions without an answer, of all clients and of one.
MOST: Final = 4096
MOST_EACH: Final = 1024
#: Lines that are open, of all clients and of one, which may ask many servers.
LINES: Final = 1024
LINES_EACH: Final = 64
#: For how long, in seconds, and for how many questions at a time a line is used.
LIFE: Final = 5.0
SHARED: Final = 256
#: How often old ones are looked for, in seconds.
TICK: Final = 0.5
#: Answers taken from one line before others have their turn.
_TURN: Final = 32
_LARGEST: Final = 65535

#: Opens a socket in a client's name to a server; the arguments of `call`.
Call = Callable[[End, End, str], socket.socket]


def call(client: End, server: End, direction: str) -> socket.socket:
    """Raises OSError."""
    for port in own_ports(client):
        try:
            made = onwards(client, direction, socket.SOCK_DGRAM, port)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                continue
            raise
        try:
            made.connect(server)
        except BaseException:
            made.close()
            raise
        return made
    raise OSError(errno.EADDRINUSE, f"no port free for {client.address} to ask {server.address} from")


class _Line:
    __slots__ = ("asked", "born", "key", "socket")

    def __init__(self, key: _Key, made: socket.socket, born: float) -> None:
        self.key = key
        self.socket = made
        self.born = born
        self.asked: dict[int, Question] = {}


class _Key(NamedTuple):
    client: str
    server: End
    direction: str


class Upstream:
    def __init__(self, desk: Desk, call: Call = call, clock: Callable[[], float] = time.monotonic) -> None:
        self._desk = desk
        self._call = call
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._current: dict[_Key, _Line] = {}
        self._lines: OrderedDict[_Line, None] = OrderedDict()
        self._counts: Counter[str] = Counter()
        self._outstanding: Outstanding[tuple[_Line, int]] = Outstanding(MOST, MOST_EACH)
        self._buffer = bytearray(_LARGEST)
        self._view = memoryview(self._buffer)

    async def run(self) -> None:
        """Until cancelled; then all is closed."""
        try:
            while True:
                await asyncio.sleep(TICK)
                self.tidy()
        finally:
            for line in list(self._lines):
                self._close(line)

    def ask(self, question: Question) -> None:
        key = _Key(question.client.address, question.server, question.served.listener.direction)
        line = self._current.get(key)
        now = self._clock()
        if line is None or now - line.born > LIFE or len(line.asked) >= SHARED:
            try:
                line = self._open(key, question.client, now)
            except OSError as error:
                self._desk.failed(question, f"the server cannot be asked: {os.strerror(error.errno or 0)}")
                return
        number = _number()
        while number in line.asked:
            number = _number()
        displaced = self._outstanding.add((line, number), question.client.address, now)
        if displaced is not None:
            self._drop(*displaced, "too many questions without an answer")
        line.asked[number] = question
        try:
            line.socket.send(message.with_id(question.query.wire, number))
        except BlockingIOError:
            pass  # as if it had been lost on the way
        except OSError as error:
            self._fail(line, error)

    def tidy(self) -> None:
        """Gives up what is too old."""
        now = self._clock()
        for line, number in self._outstanding.before(now - PATIENCE):
            self._drop(line, number, "no answer")
        for line in [each for each in self._lines if not each.asked and now - each.born > LIFE]:
            self._close(line)

    def __len__(self) -> int:
        return len(self._outstanding)

    @property
    def lines(self) -> int:
        return len(self._lines)

    def _open(self, key: _Key, client: End, now: float) -> _Line:
        if self._counts[key.client] >= LINES_EACH:
            self._close(
                next(each for each in self._lines if each.key.client == key.client), "too many servers"
            )
        elif len(self._lines) >= LINES:
            self._close(next(iter(self._lines)))
        line = _Line(key, self._call(client, key.server, key.direction), now)
        self._current[key] = line
        self._lines[line] = None
        self._counts[key.client] += 1
        self._loop.add_reader(line.socket.fileno(), self._hear, line)
        return line

    def _close(self, line: _Line, reason: str = "too many clients") -> None:
        """With what is asked there."""
        self._loop.remove_reader(line.socket.fileno())
        line.socket.close()
        del self._lines[line]
        self._counts[line.key.client] -= 1
        if not self._counts[line.key.client]:
            del self._counts[line.key.client]
        if self._current.get(line.key) is line:
            del self._current[line.key]
        for number in list(line.asked):
            self._outstanding.discard((line, number))
            self._drop(line, number, reason)

    def _hear(self, line: _Line) -> None:
        for _ in range(_TURN):
            try:
                size = line.socket.recv_into(self._buffer)
            except BlockingIOError:
                return
            except OSError as error:
                self._fail(line, error)
                return
            wire = bytes(self._view[:size])
            number = message.id_of(wire) if size >= message.HEADER else -1
            question = line.asked.get(number)
            if question is None or not message.belongs(wire, question.query):
                continue  # late, or forged
            del line.asked[number]
            self._outstanding.discard((line, number))
            self._desk.answered(question, wire)
            if line not in self._lines:
                return

    def _fail(self, line: _Line, error: OSError) -> None:
        """The network says that the server cannot be reached, or does not listen."""
        for number in list(line.asked):
            self._outstanding.discard((line, number))
            self._desk.failed(line.asked.pop(number), f"the server: {os.strerror(error.errno or 0)}")

    def _drop(self, line: _Line, number: int, reason: str) -> None:
        with contextlib.suppress(KeyError):
            self._desk.dropped(line.asked.pop(number), reason)


def _number() -> int:
    return int.from_bytes(os.urandom(2))
