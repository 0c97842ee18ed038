"""Which nodes there are to ask: as the shared state says, a node's peer service, or a sandbox's folders.

Each source yields all peers by name, at once and whenever they have changed, and never ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from axoneme.certificates.names import hubble_name
from axoneme.hubble.address import Address, AddressError
from axoneme.hubble.client import Client, HubbleError
from axoneme.hubble.schema import enum
from axoneme.model.state import NODES, NodeState, decode
from axoneme.sources.follow import Sync, follow
from axoneme.sources.store import Store

log = logging.getLogger(__name__)

#: A node's socket, in its folder.
SOCKET: Final = "hubble.sock"
#: Seconds between two looks at a folder, and until a peer service that has gone is asked again.
_LOOK_EVERY: Final = 1.0
#: Where clusters have no name: it does not stand in names of nodes.
_NO_CLUSTER: Final = "default"


@dataclass(frozen=True, slots=True)
class Peer:
    """``server_name``: what its certificate is made out to; None where it speaks without TLS."""

    name: str
    address: Address
    server_name: str | None = None


Peers = AsyncGenerator[Mapping[str, Peer]]


async def fixed(addresses: Mapping[str, str], cluster: str) -> Peers:
    """Nodes at addresses that a configuration names. Raises `AddressError`."""
    yield {name: _peer(name, Address.parse(text), cluster) for name, text in addresses.items()}
    await asyncio.Event().wait()


async def in_folders(nodes: Path) -> Peers:
    """Every folder is a node, with a socket in it once it runs."""
    known: list[str] | None = None
    while True:
        found = sorted(path.parent.name for path in nodes.glob(f"*/{SOCKET}"))
        if found != known:
            known = found
            yield {name: Peer(name, Address(path=nodes / name / SOCKET)) for name in found}
        await asyncio.sleep(_LOOK_EVERY)


async def in_store(store: Store, cluster: str, port: int) -> Peers:
    """The nodes of the shared state, at the first of the addresses by which other nodes reach them."""
    known: dict[str, Peer] = {}
    async with aclosing(follow(store, NODES)) as news:
        async for changes in news:
            if isinstance(changes, Sync):
                yield dict(known)
                continue
            for change in changes:
                known.pop(change.key, None)
                if change.value is None:
                    continue
                try:
                    node = decode(change.value, NodeState, change.key)
                except ValueError as error:
                    log.warning("%s; this node is not asked", error)
                    continue
                if node.internal_addresses:
                    at = Address(node.internal_addresses[0], port)
                    known[change.key] = _peer(node.name, at, cluster)
            yield {peer.name: peer for peer in known.values()}


async def of_service(connect: Callable[[], Any], where: str) -> Peers:
    """As a node's peer service tells them; ``connect`` gives the context of a `Client` of it. While it does
    not answer, they stay as they were."""
    told = ""
    while True:
        try:
            async with AsyncExitStack() as stack:
                client: Client = await stack.enter_async_context(connect())
                async for peers in _notified(client):
                    told = ""
                    yield peers
        except (HubbleError, OSError, ValueError) as error:
            if told != str(error):
                log.warning("peer service at %s: %s; the nodes that are known stay", where, error)
            told = str(error)
        await asyncio.sleep(_LOOK_EVERY)


async def _notified(client: Client) -> Peers:
    kinds = enum("peer.ChangeNotificationType")
    known: dict[str, Peer] = {}
    async with aclosing(client.peers()) as changes:
        async for change in changes:
            if change.type == kinds["PEER_DELETED"]:
                known.pop(change.name, None)
            else:
                try:
                    address = Address.parse(change.address)
                except AddressError as error:
                    log.warning("peer %s: %s; it is not asked", change.name, error)
                    continue
                server_name = change.tls.server_name if change.HasField("tls") else None
                known[change.name] = Peer(change.name, address, server_name)
            yield dict(known)


def _peer(node: str, address: Address, cluster: str) -> Peer:
    """With TLS where the way to it leaves the machine."""
    name = node if cluster == _NO_CLUSTER else f"{cluster}/{node}"
    plain = address.local and not address.tls
    return Peer(name, address, None if plain else hubble_name(node, cluster))
