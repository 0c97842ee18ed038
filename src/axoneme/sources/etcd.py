"""The store of many machines: etcd, over its JSON gateway.

The gateway is part of every etcd since 3.4 and speaks HTTP and JSON, so all we need is an HTTP client;
gRPC would bring 40 MB of library and generated code for the same calls. aiohttp is imported when the
first call is made. etcd's own model is the one of `axoneme.sources.store`, so what is left to do here
is translating, telling the kinds of failure apart, and noticing a dead connection.

etcd gives out leases in whole seconds, no shorter than its election timeout allows; `Lease.ttl` is what
it granted. It takes at most 128 operations in a transaction (``--max-txn-ops``) and 1.5 MB in a request.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from axoneme.sources import etcd_messages as messages
from axoneme.sources.store import (
    Change,
    Changes,
    Compacted,
    Conflict,
    Delete,
    Entry,
    Lease,
    LeaseExpired,
    Listing,
    Put,
    StoreError,
    Unavailable,
    distinct,
)

if TYPE_CHECKING:
    import ssl

    import aiohttp

R = TypeVar("R", bound=msgspec.Struct)

#: Keys in one answer to a listing.
_PAGE = 1000

#: Bytes of one answer on a watch: the events of many transactions, of 1.5 MB each, may be in it.
_LONGEST_LINE = 1 << 28

_CLOSED = "etcd: the store has been closed"


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM: the authority that vouches for the servers, and who we are to them."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


class EtcdStore:
    """A `Store` in an etcd cluster.

    ``endpoints`` are URLs such as ``https://10.0.0.1:2379``; the first that takes a connection is
    used until it fails. ``namespace`` stands before every key in etcd, so that several of us can
    share one. ``timeout`` is in seconds, for each call.
    """

    def __init__(
        self, endpoints: Sequence[str], *, namespace: str = "", tls: Tls | None = None, timeout: float = 5.0
    ) -> None:
        if not endpoints:
            raise ValueError("etcd: no endpoint is given; at least one URL is needed")
        self._endpoints = [endpoint.rstrip("/") for endpoint in endpoints]
        self._namespace = namespace.encode()
        self._tls = tls
        self._timeout = timeout
        self._session: aiohttp.ClientSession | None = None
        self._streams: set[aiohttp.StreamReader] = set()
        self._closed = False

    # ---- reading ---------------------------------------------------------------------------------

    async def get(self, key: str) -> Entry | None:
        answer = await self._call("kv/range", messages.Range(self._key(key)), messages.RangeAnswer)
        return self._entry(answer.kvs[0]) if answer.kvs else None

    async def list(self, prefix: str) -> Listing:
        start, end = self._range(prefix)
        revision, entries = 0, list[Entry]()
        while True:
            request = messages.Range(start, end, limit=_PAGE, revision=revision)
            try:
                answer = await self._call("kv/range", request, messages.RangeAnswer)
            except _Failed as error:
                if error.code != _OUT_OF_RANGE:
                    raise
                # The snapshot has been compacted under our hands: begin anew.
                start, revision, entries = self._range(prefix)[0], 0, []
                continue
            revision = revision or answer.header.revision
            entries += map(self._entry, answer.kvs)
            if not answer.more:
                return Listing(entries, revision)
            if not answer.kvs or answer.kvs[-1].key < start:
                raise Unavailable("etcd: kv/range: there is more, it says, and gives nothing")
            start = answer.kvs[-1].key + b"\0"

    async def watch(self, prefix: str, after: int) -> AsyncGenerator[Changes, None]:
        start, end = self._range(prefix)
        request = messages.Watch(messages.WatchCreate(start, end, start_revision=after + 1))
        async with self._stream("watch", request) as lines:
            async for line in lines:
                answer = _understood("watch", line, messages.WatchAnswer)
                if answer.error:
                    raise Unavailable(f"etcd: watch of {prefix}: {answer.error.message}")
                result = answer.result
                if result.compact_revision or (result.created and result.header.revision < after):
                    raise Compacted(after, result.compact_revision)
                if result.canceled:
                    raise Unavailable(f"etcd: watch of {prefix}: {result.cancel_reason or 'cancelled'}")
                if result.events:
                    yield [self._change(event) for event in result.events]

    # ---- writing ---------------------------------------------------------------------------------

    async def put(self, key: str, value: bytes, lease: Lease | None = None) -> int:
        return await self.transact({}, (Put(key, value, lease),))

    async def delete(self, key: str) -> bool:
        answer = await self._call(
            "kv/deleterange", messages.DeleteRange(self._key(key)), messages.DeleteAnswer
        )
        return answer.deleted > 0

    async def transact(self, expect: Mapping[str, int], operations: Sequence[Put | Delete]) -> int:
        distinct(operations)
        leases = [op.lease for op in operations if isinstance(op, Put) and op.lease]
        request = messages.Transaction(
            compare=[messages.Compare(self._key(key), revision) for key, revision in expect.items()],
            success=[self._operation(operation) for operation in operations],
            failure=[messages.Operation(request_range=messages.Range(self._key(key))) for key in expect],
        )
        try:
            answer = await self._call("kv/txn", request, messages.TransactionAnswer)
        except _Failed as error:
            if error.code == _NOT_FOUND and leases:
                raise LeaseExpired(leases[0]) from error
            raise
        if answer.succeeded:
            return answer.header.revision
        found = [each.response_range.kvs for each in answer.responses]
        if len(found) != len(expect):
            raise Unavailable(f"etcd: kv/txn: {len(found)} answers to {len(expect)} questions")
        for (key, revision), kvs in zip(expect.items(), found, strict=True):
            now = kvs[0].mod_revision if kvs else 0
            if now != revision:
                raise Conflict(key, revision, now)
        raise StoreError(f"etcd: a transaction on {', '.join(expect)} failed though all is as expected")

    # ---- leases ----------------------------------------------------------------------------------

    async def grant(self, ttl: float) -> Lease:
        answer = await self._call("lease/grant", messages.Grant(max(1, math.ceil(ttl))), messages.LeaseAnswer)
        return Lease(answer.id, float(answer.ttl))

    async def keep_alive(self, lease: Lease) -> None:
        answer = await self._call("lease/keepalive", messages.LeaseId(lease.id), messages.KeepAliveAnswer)
        if answer.result.ttl <= 0:
            raise LeaseExpired(lease)

    async def revoke(self, lease: Lease) -> None:
        try:
            await self._call("lease/revoke", messages.LeaseId(lease.id), messages.Nothing)
        except _Failed as error:
            if error.code != _NOT_FOUND:
                raise

    # ---- translating -----------------------------------------------------------------------------

    def _key(self, key: str) -> bytes:
        return self._namespace + key.encode()

    def _range(self, prefix: str) -> tuple[bytes, bytes]:
        """The first key that counts and the first that does not."""
        start = self._key(prefix)
        # UTF-8 has no byte 0xff, so what is put before it stays below.
        return start or b"\0", start + b"\xff"

    def _name(self, key: bytes) -> str:
        return key[len(self._namespace) :].decode(errors="backslashreplace")  # no key of ours, then

    def _entry(self, pair: messages.Pair) -> Entry:
        return Entry(self._name(pair.key), pair.value, pair.mod_revision)

    def _change(self, event: messages.Event) -> Change:
        value = None if event.type == "DELETE" else event.kv.value
        return Change(self._name(event.kv.key), value, event.kv.mod_revision)

    def _operation(self, operation: Put | Delete) -> messages.Operation:
        key = self._key(operation.key)
        if isinstance(operation, Delete):
            return messages.Operation(request_delete_range=messages.DeleteRange(key))
        lease = operation.lease.id if operation.lease else 0
        return messages.Operation(request_put=messages.PutRequest(key, operation.value, lease))

    # ---- talking ---------------------------------------------------------------------------------

    async def _call(self, path: str, request: msgspec.Struct, kind: type[R]) -> R:
        status, body = await self._exchange(path, request)
        if status != 200:
            raise _failure(path, status, body)
        return _understood(path, body, kind)

    async def _exchange(self, path: str, request: msgspec.Struct) -> tuple[int, bytes]:
        """Status and body of the answer."""
        import aiohttp

        limit = aiohttp.ClientTimeout(total=self._timeout)
        try:
            async with await self._post(path, request, limit) as response:
                return response.status, await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unavailable(error) from error

    @asynccontextmanager
    async def _stream(self, path: str, request: msgspec.Struct) -> AsyncIterator[AsyncIterator[bytes]]:
        import aiohttp

        limit = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout)
        try:
            async with await self._post(path, request, limit) as response:
                if response.status != 200:
                    raise _failure(path, response.status, await response.read())
                if response.connection and response.connection.transport:
                    _probe(response.connection.transport)
                self._streams.add(response.content)
                try:
                    yield _lines(response)
                finally:
                    self._streams.discard(response.content)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unavailable(error) from error

    async def _post(
        self, path: str, request: msgspec.Struct, limit: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        """Asks the current endpoint, and the others as long as no connection can be made."""
        import aiohttp

        session = self._open()
        body = msgspec.json.encode(request)
        for left in reversed(range(len(self._endpoints))):
            try:
                url = f"{self._endpoints[0]}/v3/{path}"
                return await session.post(url, data=body, timeout=limit, headers=_HEADERS)
            except aiohttp.ClientConnectionError as error:
                self._endpoints.append(self._endpoints.pop(0))
                # Once the request may have left, asking another could do it twice.
                if not left or not isinstance(error, aiohttp.ClientConnectorError):
                    raise
        raise AssertionError("unreachable")

    def _open(self) -> aiohttp.ClientSession:
        if self._closed:
            raise Unavailable(_CLOSED)
        if not self._session:
            import aiohttp

            connector = aiohttp.TCPConnector(limit=0, ssl=self._ssl())
            self._session = aiohttp.ClientSession(connector=connector)
        return self._session

    def _ssl(self) -> ssl.SSLContext | bool:
        if not self._tls:
            return True
        import ssl

        try:
            context = ssl.create_default_context(cafile=self._tls.ca)
            if self._tls.certificate:
                context.load_cert_chain(self._tls.certificate, self._tls.key)
        except OSError as error:  # which ssl.SSLError is, too
            raise StoreError(f"etcd: the TLS files {self._tls} cannot be used: {error}") from error
        return context

    def _unavailable(self, error: Exception) -> Unavailable:
        reason = f"no answer within {self._timeout:g} s" if isinstance(error, TimeoutError) else str(error)
        return Unavailable(f"etcd: {', '.join(self._endpoints)}: {reason or type(error).__name__}")

    async def close(self) -> None:
        """Ends the watches too, with `Unavailable`."""
        self._closed = True
        for stream in self._streams:
            stream.set_exception(Unavailable(_CLOSED))
        if self._session:
            await self._session.close()


# ---- failures ------------------------------------------------------------------------------------

# Of gRPC:
_NOT_FOUND = 5
_OUT_OF_RANGE = 11
_PASSING = frozenset({1, 4, 8, 13, 14})  # cancelled, deadline, exhausted, internal, unavailable

#: A member that has lost its cluster must say so, not go on with what it last knew.
_HEADERS = {"Grpc-Metadata-hasleader": "true"}


class _Failed(StoreError):
    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def _understood(path: str, body: bytes, kind: type[R]) -> R:
    try:
        return messages.decode(body, kind)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        # It may be of an etcd that is to come, or of something else at that address.
        raise Unavailable(f"etcd: {path}: an answer that is not understood: {error}") from error


def _failure(path: str, status: int, body: bytes) -> StoreError:
    try:
        error = msgspec.json.decode(body, type=messages.Error)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Something that stands before etcd, or is none.
        return Unavailable(f"etcd: {path}: HTTP status {status}: {body[:200]!r}")
    if error.code in _PASSING:
        return Unavailable(f"etcd: {path}: {error.message}")
    return _Failed(f"etcd: {path}: {error.message}", error.code)


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The lines of a body that has no end."""
    parts: list[bytes] = []
    size = 0
    async for piece in response.content.iter_any():
        *complete, rest = piece.split(b"\n")
        for end in complete:
            yield b"".join((*parts, end))
            parts.clear()
            size = 0
        parts.append(rest)
        size += len(rest)
        if size > _LONGEST_LINE:
            raise Unavailable(f"etcd: {response.url}: a line of over {_LONGEST_LINE} bytes")
    raise Unavailable(f"etcd: {response.url}: the stream ended")


def _probe(transport: asyncio.BaseTransport) -> None:
    """Lets the kernel find out within half a minute that nobody is at the other end of a silent stream."""
    connection = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
