"""The relay as a server: Hubble's Observer over all nodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import Any, Final

import axoneme
from axoneme.hubble.client import HubbleError
from axoneme.hubble.methods import OBSERVER
from axoneme.hubble.schema import message
from axoneme.hubble.serving import Service
from axoneme.relay.gathering import Counts, Gathering, Limits
from axoneme.relay.pool import Node, Pool, State

#: Names of nodes in a status; there may be thousands.
_NAMED: Final = 10


class Observer:
    """``name``: the relay's own."""

    def __init__(self, pool: Pool, limits: Limits, name: str) -> None:
        self._pool = pool
        self._limits = limits
        self._name = name
        self.counts = Counts()

    def service(self) -> Service:
        return Service(
            OBSERVER,
            answers={
                "ServerStatus": self._status,
                "GetNodes": self._nodes,
                "GetNamespaces": self._namespaces,
            },
            streams={
                "GetFlows": lambda request: self._gather("GetFlows", request),
                "GetAgentEvents": lambda request: self._gather("GetAgentEvents", request),
            },
        )

    def _gather(self, method: str, request: Any) -> AsyncGenerator[Sequence[bytes]]:
        return Gathering(self._pool, method, request, self._limits, self.counts, self._name).bulks()

    async def _status(self, _: Any) -> Any:
        """Sums over the nodes that answer; those that do not are named."""
        connected = await self._refreshed()
        away = [node for node in self._pool.nodes.values() if node.state is not State.NODE_CONNECTED]
        statuses = [node.status for node in connected]
        reply = message("observer.ServerStatusResponse")(
            num_flows=sum(each.num_flows for each in statuses),
            max_flows=sum(each.max_flows for each in statuses),
            seen_flows=sum(each.seen_flows for each in statuses),
            uptime_ns=max((each.uptime_ns for each in statuses), default=0),
            flows_rate=sum(each.flows_rate for each in statuses),
            unavailable_nodes=sorted(node.peer.name for node in away)[:_NAMED],
            version=axoneme.__version__,
        )
        reply.num_connected_nodes.value = len(connected)
        reply.num_unavailable_nodes.value = len(away)
        return reply

    async def _nodes(self, _: Any) -> Any:
        await self._refreshed()
        reply = message("observer.GetNodesResponse")()
        for _, node in sorted(self._pool.nodes.items()):
            told = reply.nodes.add(name=node.peer.name, address=str(node.peer.address), state=node.state)
            told.tls.enabled = node.peer.server_name is not None
            told.tls.server_name = node.peer.server_name or ""
            if node.status is not None and node.state is State.NODE_CONNECTED:
                told.version = node.status.version
                told.uptime_ns = node.status.uptime_ns
                told.num_flows = node.status.num_flows
                told.max_flows = node.status.max_flows
                told.seen_flows = node.status.seen_flows
        return reply

    async def _namespaces(self, _: Any) -> Any:
        """Those of all nodes that answer."""
        replies = await asyncio.gather(
            *(node.namespaces() for node in self._pool.connected()), return_exceptions=True
        )
        found: set[tuple[str, str]] = set()
        for reply in replies:
            if isinstance(reply, HubbleError):
                continue
            if isinstance(reply, BaseException):
                raise reply
            found |= {(each.cluster, each.namespace) for each in reply.namespaces}
        made = message("observer.GetNamespacesResponse")()
        for cluster, namespace in sorted(found):
            made.namespaces.add(cluster=cluster, namespace=namespace)
        return made

    async def _refreshed(self) -> list[Node]:
        """The nodes that are connected, with what they say just now, or said last."""
        await self._pool.settled()

        async def refresh(node: Node) -> None:
            with suppress(HubbleError):
                await node.refresh()

        await asyncio.gather(*map(refresh, self._pool.connected()))
        return self._pool.connected()
