"""The sockets of one name server: UDP and TCP on every address of its namespace (RFC 7766)."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Collection
from pathlib import Path
from typing import Final

from axoneme.sandbox import wildcard
from axoneme.sandbox.dns.answering import Ask, Zone, respond
from axoneme.sandbox.wildcard import Control, Port

log = logging.getLogger(__name__)

_LARGEST: Final = 65535
#: So many datagrams are taken before the loop may serve others; so many are being answered at once.
_BURST: Final = 64
_AT_ONCE: Final = 1000
#: Seconds for which a connection may say nothing.
_SILENCE: Final = 10.0
_BACKLOG: Final = 512


class NameListeners:
    """Answers for one zone in one network namespace."""

    def __init__(self, namespace: Path, zone: Zone, ask: Ask, ready: asyncio.Event) -> None:
        """Nothing is answered before `ready`: a name that is not known yet is not a name that does not
        exist."""
        self._namespace = namespace
        self._zone = zone
        self._ask = ask
        self._ready = ready
        self._open: dict[Port, asyncio.Server | _Datagrams] = {}
        self._turn = asyncio.Lock()

    async def serve(self, ports: Collection[Port]) -> dict[Port, str]:
        await self._ready.wait()
        async with self._turn:
            for port in self._open.keys() - set(ports):
                self._open.pop(port).close()
            bound, failed = wildcard.bind(self._namespace, set(ports) - self._open.keys())
            for port, made in bound.items():
                if port.protocol == "UDP":
                    self._open[port] = _Datagrams(made, self)
                else:
                    self._open[port] = await asyncio.start_server(self._converse, sock=made, backlog=_BACKLOG)
            return failed

    def close(self) -> None:
        for listener in self._open.values():
            listener.close()
        self._open.clear()

    async def answer(self, wire: bytes, tcp: bool) -> bytes | None:
        try:
            return await respond(wire, tcp, self._zone, self._ask)
        except Exception:  # one query's trouble must not take the others along
            log.exception("a query could not be answered: %s", wire.hex())
            return None

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: queries with their lengths, answered one after the other."""
        try:
            while True:
                async with asyncio.timeout(_SILENCE):
                    size = int.from_bytes(await reader.readexactly(2), "big")
                    wire = await reader.readexactly(size)
                said = await self.answer(wire, tcp=True)
                if said is None:
                    return
                writer.write(len(said).to_bytes(2, "big") + said)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):  # TimeoutError is an OSError
            return
        finally:
            writer.close()


class _Datagrams:
    """Answers on one bound socket, which it owns from now on, until `close`."""

    def __init__(self, bound: socket.socket, listeners: NameListeners) -> None:
        self._socket = bound
        self._listeners = listeners
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop.add_reader(bound, self._take)

    def close(self) -> None:
        self._loop.remove_reader(self._socket)
        for task in self._tasks:
            task.cancel()
        self._socket.close()

    def _take(self) -> None:
        for _ in range(_BURST):
            try:
                wire, ancillary, _, sender = self._socket.recvmsg(_LARGEST, 64)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error that an earlier answer met; nobody waits for it here
                continue
            asked = wildcard.destination(ancillary)
            if asked is None or len(self._tasks) >= _AT_ONCE:
                continue
            task = self._loop.create_task(self._answer(wire, asked[1], sender))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, wire: bytes, source: Control, sender: tuple[str, int]) -> None:
        said = await self._listeners.answer(wire, tcp=False)
        if said is None:
            return
        try:
            self._socket.sendmsg([said], [source], 0, sender)
        except OSError:  # no route back, or a full queue: the client asks again
            return
