"""Where proxies tell what they have seen: the receiving end of `axoneme.proxy.events`.

What a proxy says is not trusted with this process: reports have a bound, wait in a queue that has one, and
whoever says something that is none is hung up on. While the queue is full nothing is read; the proxies notice
and count what they lose.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pwd
import socket
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from axoneme.model.l7event import MOST, L7Event, L7Report
from axoneme.rpc.address import short_name

log = logging.getLogger(__name__)

#: Bytes of a report; the longest that `axoneme.proxy.events` makes are shorter than what it may send.
_LONGEST: Final = 1 << 21
#: Events that may wait, and reports that are read before others get their turn.
_WAITING: Final = 8192
_AT_ONCE: Final = 64
_PROXIES: Final = 32


class Listening:
    """``lost``: events that proxies said they could not deliver, since the start."""

    def __init__(self, path: Path, user: str) -> None:
        """Makes the socket, for ``user`` alone to connect to; OSError when it cannot be made."""
        self._path = path
        self._events: deque[L7Event] = deque()
        self._decode = msgspec.json.Decoder(L7Report).decode
        self._connections: set[socket.socket] = set()
        self._paused = False
        self.lost = 0
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.unlink(missing_ok=True)
        with short_name(draft) as name:
            self._listener.bind(name)
        draft.chmod(0o600)
        with suppress(KeyError):  # no such user: no proxies run here
            owner = pwd.getpwnam(user)
            os.chown(draft, owner.pw_uid, owner.pw_gid)
        self._listener.listen(_PROXIES)
        draft.rename(path)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Takes connections while the context lasts."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._listener, self._accept)
        try:
            yield
        finally:
            loop.remove_reader(self._listener)
            for connection in list(self._connections):
                self._hang_up(connection)
            self._listener.close()

    def take(self, most: int) -> list[L7Event]:
        """The events that came first, at most so many."""
        taken = [self._events.popleft() for _ in range(min(most, len(self._events)))]
        if self._paused and len(self._events) < _WAITING // 2:
            self._paused = False
            for connection in self._connections:
                self._watch(connection)
        return taken

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        if len(self._connections) >= _PROXIES:
            connection.close()
            return
        connection.setblocking(False)
        self._connections.add(connection)
        if not self._paused:
            self._watch(connection)

    def _watch(self, connection: socket.socket) -> None:
        asyncio.get_running_loop().add_reader(connection, self._read, connection)

    def _read(self, connection: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            if len(self._events) >= _WAITING:
                self._paused = True
                for each in self._connections:
                    asyncio.get_running_loop().remove_reader(each)
                return
            try:
                message = connection.recv(_LONGEST)
                if not message:
                    raise ConnectionResetError
                report = self._decode(message)
            except BlockingIOError:
                return
            except OSError:
                self._hang_up(connection)
                return
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                log.warning("%s: a proxy says what is no report: %s", self._path, error)
                self._hang_up(connection)
                return
            self._events.extend(report.events[:MOST])
            self.lost += max(0, report.lost)

    def _hang_up(self, connection: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(connection)
        self._connections.discard(connection)
        connection.close()
