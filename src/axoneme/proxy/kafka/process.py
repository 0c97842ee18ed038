"""The Kafka proxy as a process: sockets for what the plan says, and the connections that they take."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import struct
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

from axoneme.model.l7 import L7Kind
from axoneme.model.l7event import L7Event
from axoneme.proxy import sockets
from axoneme.proxy.events import EventSender
from axoneme.proxy.kafka.conversation import Conversation
from axoneme.proxy.kafka.judging import Names
from axoneme.proxy.kafka.relay import Budget, Relay
from axoneme.proxy.kafka.telling import Teller, Telling
from axoneme.proxy.plan import Listener, Plan, Report
from axoneme.proxy.process import Surroundings
from axoneme.proxy.sockets import End

log = logging.getLogger(__name__)

_RESET: Final = struct.pack("ii", 1, 0)
_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
#: For a server to take a connection, in seconds: clients give up sooner.
_CONNECT: Final = 30
#: When there are no descriptors left, in seconds.
_PAUSE: Final = 0.1
#: Connections of one client's address.
_MOST_CONNECTIONS: Final = 2000
#: Bytes that conversations hold: of all clients, of one.
_MOST_HELD: Final = 256 << 20
_MOST_HELD_OF_ONE: Final = 32 << 20


def start(surroundings: Surroundings) -> Coroutine[object, object, None]:
    """See `axoneme.proxy.process.Proxy`: nothing needs root."""
    return _run(surroundings)


async def _run(surroundings: Surroundings) -> None:
    proxy = KafkaProxy(surroundings)
    async with asyncio.TaskGroup() as tasks:
        try:
            async for plan in surroundings.following.plans():
                surroundings.following.report(proxy.use(plan, tasks))
        finally:
            proxy.close()


class KafkaProxy:
    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self._sender: EventSender | None = None
        self._listening: dict[int, _Listening] = {}
        #: For as long as somebody talks to them: another broker may have the address afterwards.
        self._brokers: WeakValueDictionary[End, Names] = WeakValueDictionary()
        self._clients: dict[str, Budget] = {}
        self._budget = Budget(_MOST_HELD)
        self.telling = Telling(self._send, asyncio.get_running_loop().call_soon)

    def use(self, plan: Plan, tasks: asyncio.TaskGroup) -> Report:
        """Does as the plan says; what has come of it."""
        if self._sender is None:
            self._sender = EventSender(self._surroundings.reachable(Path(plan.events)), plan.redaction)
        self._sender.redaction = plan.redaction
        wanted = {each.port: each for each in plan.listeners}
        for port, listening in list(self._listening.items()):
            if port not in wanted or wanted[port].direction != listening.listener.direction:
                self._listening.pop(port).close()
        errors: dict[int, str] = {}
        for port, listener in wanted.items():
            if listener.rules.kind is not L7Kind.KAFKA:
                errors[port] = f"rules for {listener.rules.kind.value}, which this proxy does not speak"
            elif port in self._listening:
                self._listening[port].use(listener)
            else:
                try:
                    self._listening[port] = _Listening(self, listener, plan.families, tasks)
                except OSError as error:
                    errors[port] = str(error)
        for port, reason in errors.items():
            log.error("port %d: %s", port, reason)
        return Report(plan.revision, tuple(sorted(self._listening)), errors)

    def names(self, server: End) -> Names:
        """What is known of a broker's topics: another broker's word about them counts for nothing."""
        return self._brokers.setdefault(server, Names())

    @contextmanager
    def one_more(self, client: End) -> Iterator[Budget]:
        """Counts a client's connection; what all of the client's may hold. Raises OSError where it has too
        many."""
        budget = self._clients.setdefault(client.address, Budget(_MOST_HELD_OF_ONE, self._budget))
        if budget.sharers >= _MOST_CONNECTIONS:
            raise OSError(errno.EMFILE, f"the client has {_MOST_CONNECTIONS} connections already")
        budget.sharers += 1
        try:
            yield budget
        finally:
            budget.sharers -= 1
            if not budget.sharers:
                del self._clients[client.address]

    def close(self) -> None:
        for each in self._listening.values():
            each.close()
        if self._sender is not None:
            self._sender.close()

    def _send(self, *events: L7Event) -> None:
        if self._sender is not None:
            self._sender.send(*events)


class _Listening:
    """One listener of the plan, and the connections that it has taken."""

    def __init__(
        self, proxy: KafkaProxy, listener: Listener, families: tuple[int, ...], tasks: asyncio.TaskGroup
    ) -> None:
        """Raises OSError."""
        self.listener = listener
        self._proxy = proxy
        self._relays: set[Relay] = set()
        self._sockets: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        try:
            for family in map(_FAMILIES.__getitem__, families):
                self._sockets.append(sockets.listener(family, listener.port, socket.SOCK_STREAM))
        except BaseException:
            self.close()
            raise
        self._tasks = tasks
        self._accepting = [tasks.create_task(self._accept(each)) for each in self._sockets]

    def use(self, listener: Listener) -> None:
        """The next request of each connection is judged by these rules."""
        self.listener = listener
        for relay in self._relays:
            if relay.conversation:
                relay.conversation.rules = listener.rules.kafka
                relay.conversation.audit = listener.audit

    def close(self) -> None:
        """Connections are reset: what holds for them now they find out when they come back."""
        for task in self._accepting:
            task.cancel()
        for each in self._sockets:
            each.close()
        for relay in list(self._relays):
            relay.reset()

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                taken, _ = await loop.sock_accept(listening)
            except OSError as error:
                log.error("port %d: no connection can be taken: %s", self.listener.port, error)
                await asyncio.sleep(_PAUSE)
            else:
                self._tasks.create_task(self._serve(taken))

    async def _serve(self, taken: socket.socket) -> None:
        """Relays one connection, to its end. Where that cannot begin, the client is reset: as if the server
        had refused it."""
        try:
            found = sockets.ends(taken)
            if found is None:
                taken.close()
            else:
                await self._relay(taken, *found)
        except OSError:
            with suppress(OSError):
                taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            taken.close()

    async def _relay(self, taken: socket.socket, client: End, server: End) -> None:
        """Raises OSError where it does not begin."""
        teller = Teller(self._proxy.telling, self.listener.direction, client, server)
        relay = Relay(teller.malformed)
        self._relays.add(relay)
        try:
            with self._proxy.one_more(client) as relay.budget:
                taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                onwards = await sockets.connect(client, server, self.listener.direction, _CONNECT)
                relay.conversation = Conversation(
                    self.listener.rules.kafka,
                    self._proxy.names(server),
                    relay.to_server,
                    relay.to_client,
                    teller.request,
                    teller.answer,
                    time.monotonic,
                    self.listener.audit,
                )
                await relay.begin(taken, onwards)
                await relay.done.wait()
        except OSError as error:  # TimeoutError is one
            teller.failed(f"no connection: {error.strerror or 'the server does not answer'}")
            raise
        finally:
            self._relays.discard(relay)
            relay.close()
