"""Which nodes there are: ``peer.Peer``, from the shared state."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from axoneme.certificates.names import hubble_name
from axoneme.hubble.nodes import Nodes
from axoneme.hubble.schema import enum, message, serialized
from axoneme.hubble.serving import Service
from axoneme.model.state import NodeState

_TYPES: Final = ("PEER_ADDED", "PEER_DELETED", "PEER_UPDATED")


def full_name(node: str, cluster: str) -> str:
    """As Hubble writes it: with the cluster, unless that is the default one."""
    return node if cluster in ("", "default") else f"{cluster}/{node}"


@dataclass(frozen=True, slots=True)
class _Peer:
    name: str
    address: str
    server_name: str


@dataclass(frozen=True, slots=True)
class Peers:
    """``port`` is where every node serves Hubble's API, as this one does; 0 where that is no network's port.
    ``tls``: whether it is served with TLS there."""

    nodes: Nodes
    cluster: str
    port: int
    tls: bool

    def service(self) -> Service:
        return Service("peer.Peer", streams={"Notify": self.notify})

    async def notify(self, _: Any) -> AsyncGenerator[Sequence[bytes]]:
        known: dict[str, _Peer] = {}
        while True:
            version = self.nodes.version
            now = {name: self._peer(state) for name, state in self.nodes.all().items()}
            added = [now[name] for name in now.keys() - known.keys()]
            gone = [known[name] for name in known.keys() - now.keys()]
            other = [now[name] for name in now.keys() & known.keys() if now[name] != known[name]]
            known = now
            told = zip(_TYPES, (added, gone, other), strict=True)
            if news := [self._notification(type_, peer) for type_, peers in told for peer in peers]:
                yield news
            await self.nodes.after(version)

    def _peer(self, state: NodeState) -> _Peer:
        address = next(iter(state.internal_addresses or state.addresses), "")
        if self.port and address:
            address = f"[{address}]:{self.port}" if ":" in address else f"{address}:{self.port}"
        server_name = hubble_name(state.name, self.cluster) if self.tls else ""
        return _Peer(full_name(state.name, self.cluster), address, server_name)

    def _notification(self, type_: str, peer: _Peer) -> bytes:
        made = message("peer.ChangeNotification")(
            name=peer.name,
            address=peer.address,
            type=enum("peer.ChangeNotificationType")[type_],
            tls={"server_name": peer.server_name} if peer.server_name else None,
        )
        return serialized(made)
