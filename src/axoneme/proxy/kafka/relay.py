"""A `Conversation` between two sockets, none of which is read faster than the other takes it."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Callable
from typing import Final

from axoneme.proxy.kafka.conversation import Conversation
from axoneme.proxy.kafka.wire import Malformed

#: Bytes for one side that it has not taken yet, above which the other side has to wait.
_HIGH: Final = 1 << 20
_RESET: Final = struct.pack("ii", 1, 0)


class Budget:
    """Bytes that some conversations hold, all together; they count for a wider one as well."""

    def __init__(self, most: int, wider: Budget | None = None) -> None:
        self._most = most
        self._wider = wider
        self._held = 0
        self.sharers = 0

    def add(self, size: int) -> None:
        self._held += size
        if self._wider is not None:
            self._wider.add(size)

    @property
    def exceeded(self) -> bool:
        return self._held > self._most or (self._wider is not None and self._wider.exceeded)


class Relay:
    """Both sides of a client's connection. ``done`` is set when it is over."""

    def __init__(self, malformed: Callable[[str], None]) -> None:
        self.budget = Budget(0)
        self._malformed = malformed
        self._held = 0
        self._client = _Side(self._from_client, self._client_ended, self._steer, self.close)
        self._server = _Side(self._from_server, self.close, self._steer, self.close)
        self.conversation: Conversation | None = None
        self.done = asyncio.Event()

    async def begin(self, client: socket.socket, server: socket.socket) -> None:
        """Takes the sockets over; ``conversation`` and ``budget`` are set before. Raises OSError."""
        if self.done.is_set():  # it was reset before it has begun
            server.close()
            raise ConnectionResetError(errno.ECONNRESET, "its listener is gone")
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self._server, sock=server)
        await loop.create_connection(lambda: self._client, sock=client)

    def to_client(self, data: bytes | memoryview) -> None:
        self._client.write(data)

    def to_server(self, data: bytes | memoryview) -> None:
        self._server.write(data)

    def reset(self) -> None:
        """Ends both at once."""
        self._client.reset()
        self._server.reset()
        self.close()

    def _from_client(self, data: bytes) -> None:
        assert self.conversation
        self._step(self.conversation.from_client, data)

    def _from_server(self, data: bytes) -> None:
        assert self.conversation
        self._step(self.conversation.from_server, data)

    def _step(self, work: Callable[[bytes], None], data: bytes) -> None:
        assert self.conversation
        try:
            work(data)
        except Malformed as error:
            self._malformed(str(error))
            self.close()
            return
        held = self.conversation.held
        self.budget.add(held - self._held)
        self._held = held
        if held and self.budget.exceeded:
            self._malformed("too much waits to be judged, or for answers before it")
            self.close()
            return
        self._steer()

    def _steer(self) -> None:
        """Lets a side be read, or not."""
        assert self.conversation
        blocked = self._client.blocked
        self._client.read(not (self.conversation.full or self._server.blocked or blocked))
        self._server.read(not blocked)

    def _client_ended(self) -> None:
        self._server.finish()

    def close(self) -> None:
        """What was said before is delivered."""
        self.budget.add(-self._held)
        self._held = 0
        self._client.close()
        self._server.close()
        self.done.set()


class _Side(asyncio.Protocol):
    def __init__(
        self,
        received: Callable[[bytes], None],
        ended: Callable[[], None],
        changed: Callable[[], None],
        lost: Callable[[], None],
    ) -> None:
        self._received = received
        self.closeed = ended
        self._changed = changed
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._reading = True
        #: It does not take what was sent to it.
        self.blocked = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.set_write_buffer_limits(high=_HIGH)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received(data)

    def eof_received(self) -> bool:
        self.closeed()
        return True  # it may still be spoken to

    def pause_writing(self) -> None:
        self.blocked = True
        self._changed()

    def resume_writing(self) -> None:
        self.blocked = False
        self._changed()

    def connection_lost(self, error: Exception | None) -> None:
        self._lost()

    def write(self, data: bytes | memoryview) -> None:
        if self._transport and not self._transport.is_closing():
            self._transport.write(data)

    def read(self, wanted: bool) -> None:
        if wanted != self._reading and self._transport and not self._transport.is_closing():
            self._reading = wanted
            if wanted:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def finish(self) -> None:
        if self._transport and not self._transport.is_closing():
            self._transport.write_eof()

    def close(self) -> None:
        if self._transport:
            self._transport.close()

    def reset(self) -> None:
        if self._transport:
            raw = self._transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._transport.abort()
