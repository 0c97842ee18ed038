"""Flows of a cluster, by its relay."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Any, Final

import msgspec.structs

from axoneme.certificates.files import CertificateError
from axoneme.flows.flow import Flow, ObserveRequest
from axoneme.flows.flowfilter import FilterError
from axoneme.hubble import asking, decode
from axoneme.hubble.client import HubbleError, connect
from axoneme.hubble.schema import enum, message
from axoneme.relay.merged import instant
from axoneme.rpc import INVALID, UNAVAILABLE, RpcError
from axoneme.ui.feed import Gaps

#: Seconds until a relay that has gone is asked again.
_RETRY: Final = 1.0
_PATIENCE: Final = 5.0
_RELAY: Final = "relay"


class Relayed:
    """A `Feed`. ``credentials`` are asked anew for each connection; None: the relay is on this machine."""

    def __init__(
        self, address: str, server_name: str, credentials: Callable[[], ssl.SSLContext] | None
    ) -> None:
        self._address = address
        self._server_name = server_name or None
        self._credentials = credentials
        self._nodes: list[str] = []

    def nodes(self) -> list[str]:
        return self._nodes

    def heard(self) -> None:
        return None

    async def find_nodes(self) -> None:
        """Asks the relay whose flows it has; it may have none just now, or not answer."""
        try:
            async with self._client() as client:
                told = await client.nodes(_PATIENCE)
        except HubbleError:
            return
        self._nodes = sorted(each.name.rpartition("/")[2] for each in told.nodes)

    async def past(
        self, request: ObserveRequest, gaps: Gaps, newest: dict[str, str]
    ) -> AsyncGenerator[Flow, None]:
        if request.last == 0:
            return
        wanted = _request(msgspec.structs.replace(request, follow=False))
        try:
            async with self._client() as client, aclosing(client.flows(wanted)) as responses:
                async for response in responses:
                    flow = self._taken(response, gaps)
                    if flow:
                        newest[_RELAY] = flow.time
                        yield flow
            gaps.tell(_RELAY, None)
        except HubbleError as error:
            _tell(gaps, error)

    async def live(
        self, request: ObserveRequest, gaps: Gaps, seen: Mapping[str, str]
    ) -> AsyncGenerator[list[Flow], None]:
        """A relay that goes away is waited for, and asked for what was missed."""
        newest = seen.get(_RELAY, "")
        while True:
            known = newest  # servers find the place of a moment only roughly
            since = instant(newest) if newest else request.since or time.time_ns()
            wanted = _request(msgspec.structs.replace(request, since=since, last=None, follow=True))
            try:
                async with self._client() as client, aclosing(client.bulks("GetFlows", wanted)) as bulks:
                    async for bulk in bulks:
                        gaps.tell(_RELAY, None)
                        taken = (self._taken(each, gaps) for each in self._parsed(bulk))
                        flows = [flow for flow in taken if flow and flow.time > known]
                        if flows:
                            newest = flows[-1].time
                            yield flows
            except HubbleError as error:
                _tell(gaps, error)
            await asyncio.sleep(_RETRY)

    async def recorded(self) -> tuple[int, int] | None:
        """From the oldest flow on that the relay's nodes have."""
        first = message("observer.GetFlowsRequest")(number=1, first=True)
        try:
            async with self._client() as client, aclosing(client.flows(first, _PATIENCE)) as responses:
                async for response in responses:
                    if response.HasField("flow"):
                        return response.flow.time.ToNanoseconds(), time.time_ns()
        except HubbleError:
            pass  # who does not answer has nothing to show just now
        return None

    def _client(self) -> Any:
        try:
            tls = self._credentials() if self._credentials else None
        except CertificateError as error:  # until they are there again the relay is as good as gone
            raise HubbleError(self._address, "UNAVAILABLE", str(error)) from error
        return connect(self._address, tls, self._server_name)

    @staticmethod
    def _parsed(bulk: Iterable[bytes]) -> Iterable[Any]:
        kind = message("observer.GetFlowsResponse")
        return (kind.FromString(each) for each in bulk)

    def _taken(self, response: Any, gaps: Gaps) -> Flow | None:
        if response.HasField("node_status"):
            told = response.node_status
            connected = told.state_change == enum("relay.NodeState")["NODE_CONNECTED"]
            for node in (each.rpartition("/")[2] for each in told.node_names):
                why = RpcError(UNAVAILABLE, told.message or "it does not answer the relay")
                gaps.tell(node, None if connected else why)
                if connected and node not in self._nodes:
                    self._nodes = sorted([*self._nodes, node])
            return None
        item = decode.item(response)
        if item and item.lost_events:
            gaps.lost += item.lost_events.num_events_lost
        return item.flow if item else None


def _request(wanted: ObserveRequest) -> Any:
    try:
        return asking.request(wanted)
    except FilterError as error:
        raise RpcError(INVALID, str(error)) from error


def _tell(gaps: Gaps, error: HubbleError) -> None:
    """`RpcError` where the question itself is wrong."""
    if error.code in ("INVALID_ARGUMENT", "UNIMPLEMENTED"):
        raise RpcError(INVALID, error.why)
    gaps.tell(_RELAY, RpcError(UNAVAILABLE, str(error)))
