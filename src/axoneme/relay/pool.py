"""A connection to every node, which is watched: who answers is known before somebody asks for flows.

A node is asked for its status again and again. One that refuses, has gone, or does not answer in time is
*unavailable* until it does; nobody waits for it meanwhile.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import ssl
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any, Final

from axoneme.hubble.client import Client, HubbleError, connect
from axoneme.relay.peers import Peer, Peers

log = logging.getLogger(__name__)

#: Bytes of a stream that wait here: what a client that does not read makes every node's stream hold.
_WINDOW: Final = 1 << 17


class State(enum.IntEnum):
    """Hubble's numbers (relay.NodeState)."""

    UNKNOWN_NODE_STATE = 0
    NODE_CONNECTED = 1
    NODE_UNAVAILABLE = 2
    NODE_GONE = 3
    NODE_ERROR = 4


@dataclass(frozen=True, slots=True)
class Change:
    node: str
    state: State
    why: str = ""


@dataclass(frozen=True, slots=True)
class Patience:
    """In seconds: until a call is given up; between two looks at a node that answers, and at one that does
    not."""

    call: float = 3.0
    look: float = 10.0
    retry: float = 2.0


#: The TLS of a connection that is to be made now. Raises `axoneme.certificates.files.CertificateError`.
Credentials = Callable[[], ssl.SSLContext]


class Node:
    """``status``: an ``observer.ServerStatusResponse``, the last that it gave; ``why`` it is unavailable."""

    def __init__(self, peer: Peer, credentials: Credentials, patience: Patience) -> None:
        self.peer = peer
        self.state = State.UNKNOWN_NODE_STATE
        self.why = ""
        self.status: Any = None
        self._credentials = credentials
        self._patience = patience
        self._client: Client | None = None
        self._doubted = asyncio.Event()

    async def watch(self, tell: Callable[[Change], None]) -> None:
        """Until cancelled."""
        peer, patience = self.peer, self._patience
        while True:
            try:
                async with connect(peer.address, self._tls(), peer.server_name, _WINDOW) as client:
                    while True:
                        self._doubted.clear()
                        self.status = await self._ask(client.status())
                        self._client = client
                        self._become(State.NODE_CONNECTED, "", tell)
                        await _either(self._doubted, patience.look)
            except (HubbleError, OSError, ValueError) as error:
                why = error.why if isinstance(error, HubbleError) else str(error)
                self._client = None
                self._become(State.NODE_UNAVAILABLE, why, tell)
            await asyncio.sleep(patience.retry)

    def _tls(self) -> ssl.SSLContext | None:
        if self.peer.server_name:
            return self._credentials()
        if not self.peer.address.local:
            raise ValueError(f"{self.peer.address} is another machine, and is said to speak without TLS")
        return None

    async def bulks(self, name: str, request: Any) -> AsyncGenerator[list[bytes]]:
        """Replies of a method that streams, as `Client.bulks` has them. `HubbleError`; then it is looked at
        whether the node is still there."""
        client = self._need()
        try:
            async with aclosing(client.bulks(name, request)) as bulks:
                yield await self._ask(anext(bulks))
                async for bulk in bulks:
                    yield bulk
        except HubbleError:
            self._doubted.set()
            raise

    async def refresh(self) -> None:
        """Asks for its status; where there is no answer it stays as it was. `HubbleError`."""
        self.status = await self._ask(self._need().status())

    async def namespaces(self) -> Any:
        """An ``observer.GetNamespacesResponse``. `HubbleError`."""
        return await self._ask(self._need().namespaces())

    def _need(self) -> Client:
        if self._client is None:
            raise HubbleError(str(self.peer.address), "UNAVAILABLE", self.why or "not connected yet")
        return self._client

    async def _ask(self, call: Any) -> Any:
        try:
            async with asyncio.timeout(self._patience.call):
                return await call
        except TimeoutError:
            self._doubted.set()
            seconds = f"no answer within {self._patience.call:g} s"
            raise HubbleError(str(self.peer.address), "DEADLINE_EXCEEDED", seconds) from None

    def _become(self, state: State, why: str, tell: Callable[[Change], None]) -> None:
        if (state, why) == (self.state, self.why):
            return
        told, self.state, self.why = self.state, state, why
        if state is not told:
            log.info("%s at %s: %s%s", self.peer.name, self.peer.address, state.name, why and f": {why}")
            tell(Change(self.peer.name, state, why))


class Pool:
    """All nodes by name, while `run` runs."""

    def __init__(self, credentials: Credentials, patience: Patience | None = None) -> None:
        self.nodes: dict[str, Node] = {}
        #: Whether it is known which nodes there are.
        self.informed = False
        self.patience = patience or Patience()
        self._credentials = credentials
        self._listeners: set[Callable[[Change], None]] = set()

    async def run(self, peers: Peers) -> None:
        """Follows the peers, for ever."""
        watching: dict[str, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as tasks, aclosing(peers):
            async for known in peers:
                for name, node in list(self.nodes.items()):
                    if known.get(name) != node.peer:
                        watching.pop(name).cancel()
                        del self.nodes[name]
                        if name not in known:
                            log.info("%s has gone", name)
                            self._tell(Change(name, State.NODE_GONE, "it has left the cluster"))
                for name, peer in known.items():
                    if name not in self.nodes:
                        self.nodes[name] = node = Node(peer, self._credentials, self.patience)
                        watching[name] = tasks.create_task(node.watch(self._tell))
                self.informed = True

    def connected(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.state is State.NODE_CONNECTED]

    async def settled(self) -> None:
        """Until every node has answered, or not in time: soon after the start, and otherwise at once."""
        if self._all_known():
            return
        changed = asyncio.Event()
        with self.listening(lambda _: changed.set()):
            try:
                async with asyncio.timeout(self.patience.call):
                    while not self._all_known():
                        await _either(changed, 0.1)  # peers that come tell nobody
                        changed.clear()
            except TimeoutError:
                pass

    def _all_known(self) -> bool:
        return self.informed and all(node.state for node in self.nodes.values())

    @contextmanager
    def listening(self, listener: Callable[[Change], None]) -> Iterator[None]:
        """It is told of every change while the context lasts."""
        self._listeners.add(listener)
        try:
            yield
        finally:
            self._listeners.discard(listener)

    def _tell(self, change: Change) -> None:
        for listener in list(self._listeners):
            listener(change)


async def _either(event: asyncio.Event, seconds: float) -> None:
    """Until the event, at most so long."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
