"""Asking a node, a relay, or whatever else speaks Hubble's API.

    async with connect("unix:///run/axoneme/hubble.sock") as client:
        async for response in client.flows(GetFlowsRequest(number=20, follow=True)):
            ...

Requests and replies are the messages of `axoneme.hubble.schema`. Whoever reads slowly holds up the
sender of that stream, and no other: about ``window`` bytes wait here for each.
"""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.config import Configuration
from grpclib.const import Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from axoneme.hubble.address import Address
from axoneme.hubble.methods import OBSERVER, PEER, Messages, Method
from axoneme.hubble.schema import message
from axoneme.rpc.address import short_name

_WINDOW: Final = 1 << 20
#: Bytes of all streams of a connection together: no limit, else streams that nobody reads would stop others.
_ALL: Final = (1 << 31) - 1
_PREFIX: Final = struct.Struct(">BI")


class HubbleError(Exception):
    """A call that failed: ``code`` is gRPC's name of why, as UNAVAILABLE or INVALID_ARGUMENT."""

    def __init__(self, address: str, code: str, why: str) -> None:
        super().__init__(f"{address}: {why} ({code})")
        self.address, self.code, self.why = address, code, why


class Client:
    """Made by `connect`. Every call may raise `HubbleError`; ``timeout``: seconds for the whole call."""

    def __init__(self, channel: Channel, address: str) -> None:
        self._channel = channel
        self.address = address

    def flows(self, request: Any, timeout: float | None = None) -> AsyncGenerator[Any]:
        """``observer.GetFlowsResponse`` messages."""
        return self._stream(OBSERVER, "GetFlows", request, timeout)

    def flow_bytes(self, request: Any, timeout: float | None = None) -> AsyncGenerator[bytes]:
        """The same, each as it came over the wire."""
        return self._stream(OBSERVER, "GetFlows", request, timeout, reply=bytes)

    async def bulks(self, name: str, request: Any) -> AsyncGenerator[list[bytes]]:
        """The replies to ``name``, one of the Observer's methods that stream, as bytes, and as many at once
        as have come; the first time none, when the server has taken the call up."""
        method = Method.find(OBSERVER, name)
        call = UnaryStreamMethod(self._channel, method.path, message(method.request), bytes)
        try:
            async with call.open() as stream:
                await stream.send_message(request, end=True)
                await stream.recv_initial_metadata()
                yield []
                async for bulk in _bulks(stream):
                    yield bulk
                await stream.recv_trailing_metadata()
        except _FAILURES as error:
            raise self._failure(error) from error

    def agent_events(self, request: Any, timeout: float | None = None) -> AsyncGenerator[Any]:
        """``observer.GetAgentEventsResponse`` messages."""
        return self._stream(OBSERVER, "GetAgentEvents", request, timeout)

    def peers(self, timeout: float | None = None) -> AsyncGenerator[Any]:
        """``peer.ChangeNotification`` messages: every peer that there is, then what changes."""
        return self._stream(PEER, "Notify", message("peer.NotifyRequest")(), timeout)

    async def status(self, timeout: float | None = None) -> Any:
        """An ``observer.ServerStatusResponse``."""
        return await self._call(OBSERVER, "ServerStatus", timeout)

    async def nodes(self, timeout: float | None = None) -> Any:
        """An ``observer.GetNodesResponse``."""
        return await self._call(OBSERVER, "GetNodes", timeout)

    async def namespaces(self, timeout: float | None = None) -> Any:
        """An ``observer.GetNamespacesResponse``."""
        return await self._call(OBSERVER, "GetNamespaces", timeout)

    async def _call(self, service: str, name: str, timeout: float | None) -> Any:
        method = Method.find(service, name)
        call = UnaryUnaryMethod(self._channel, method.path, message(method.request), message(method.reply))
        try:
            return await call(message(method.request)(), timeout=timeout)
        except _FAILURES as error:
            raise self._failure(error) from error

    async def _stream(
        self, service: str, name: str, request: Any, timeout: float | None, reply: Any = None
    ) -> AsyncGenerator[Any]:
        method = Method.find(service, name)
        reply = reply or message(method.reply)
        call = UnaryStreamMethod(self._channel, method.path, message(method.request), reply)
        try:
            async with call.open(timeout=timeout) as stream:
                await stream.send_message(request, end=True)
                async for each in stream:
                    yield each
        except _FAILURES as error:
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> HubbleError:
        if isinstance(error, GRPCError):
            return HubbleError(self.address, error.status.name, error.message or error.status.name)
        if isinstance(error, asyncio.TimeoutError):
            return HubbleError(self.address, Status.DEADLINE_EXCEEDED.name, "no answer in time")
        return HubbleError(self.address, Status.UNAVAILABLE.name, _said(error))


def _said(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


#: What a call over a connection may end with.
_FAILURES = (GRPCError, StreamTerminatedError, ProtocolError, OSError, asyncio.TimeoutError)


async def _bulks(stream: Any) -> AsyncGenerator[list[bytes]]:
    """What grpclib's ``recv_message`` would give one by one; it takes 20 times as long over it."""
    buffer, rest = stream._stream.buffer, b""
    while True:
        with stream._wrapper:  # ends the waiting when the connection does
            parts = [await buffer._unacked.get()]
        while not buffer._unacked.empty():
            parts.append(buffer._unacked.get_nowait())
        taken = sum(part.ack_size for part in parts)
        if taken:
            buffer._ack_callback(taken)
        messages, rest = _split(b"".join([rest, *(part.data for part in parts)]))
        if messages:
            yield messages
        if not parts[-1].ack_size:
            return


def _split(data: bytes) -> tuple[list[bytes], bytes]:
    """The whole messages of a stream, and what there is of the next one."""
    messages, at = [], 0
    while at + _PREFIX.size <= len(data):
        _, size = _PREFIX.unpack_from(data, at)
        end = at + _PREFIX.size + size
        if end > len(data):
            break
        messages.append(data[at + _PREFIX.size : end])
        at = end
    return messages, data[at:]


@asynccontextmanager
async def connect(
    address: str | Address,
    tls: ssl.SSLContext | None = None,
    server_name: str | None = None,
    window: int = _WINDOW,
) -> AsyncIterator[Client]:
    """A client of what listens at ``address``; it connects with the first call, and again when it has to.

    With ``tls`` the certificate there has to be made out to ``server_name``, or else to the address. Raises
    `axoneme.hubble.address.AddressError`.
    """
    to = Address.parse(address) if isinstance(address, str) else address
    if to.tls and tls is None:
        tls = ssl.create_default_context()
        tls.set_alpn_protocols(["h2"])
    config = Configuration(
        http2_connection_window_size=_ALL,
        http2_stream_window_size=window,
        ssl_target_name_override=server_name,
    )
    if to.path is not None:
        with short_name(to.path) as name:
            async with Channel(path=name, codec=Messages(), config=config) as channel:
                yield Client(channel, str(to))
        return
    async with Channel(to.host or "localhost", to.port, codec=Messages(), ssl=tls, config=config) as channel:
        yield Client(channel, str(to))
