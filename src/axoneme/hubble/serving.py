"""A gRPC server for Hubble's services: on a unix socket, or on TCP with mutual TLS.

    server = Server([observer_service, peer_service], version_header="hubble-server-version")
    await server.serve(Address.parse(":4244"), files)

Streams are sent in bulk: a service yields many replies at once, already bytes, and they go out as one write
of framed messages (gRPC over HTTP/2, "Length-Prefixed-Message"). One message a write costs a Python server
some 95 us of CPU, in bulk it is about 3. A client that does not read holds up its own stream, and nothing
else: no more than one such bulk waits for it here.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Final, TypeVar

import grpclib.server
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message import DecodeError
from grpclib.const import Cardinality, Handler, Status
from grpclib.events import SendInitialMetadata, listen
from grpclib.exceptions import GRPCError
from grpclib.health.check import ServiceStatus
from grpclib.health.service import OVERALL, Health
from grpclib.health.v1 import health_pb2
from grpclib.reflection.service import ServerReflection
from grpclib.reflection.v1 import reflection_pb2 as reflection_v1
from grpclib.reflection.v1alpha import reflection_pb2 as reflection_v1alpha

import axoneme
from axoneme.certificates.files import Files
from axoneme.hubble.address import Address
from axoneme.hubble.credentials import ServerCredentials
from axoneme.hubble.methods import Messages, Method
from axoneme.hubble.schema import message, pool
from axoneme.rpc.listening import unix_listener

T = TypeVar("T")

# It tells of every call that a client has ended.
logging.getLogger("grpclib").setLevel(logging.WARNING)

#: Bytes of a request; gRPC's own limit.
_LONGEST: Final = 4 << 20
_PREFIX: Final = struct.Struct(">BI")

#: By which Hubble's clients ask for health.
_HEALTH_NAME: Final = "hubble.server.Observer"


class CallError(Exception):
    """Ends a call with one of gRPC's status codes, as INVALID_ARGUMENT."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


#: A message for a message; and bulks of serialized replies.
Answer = Callable[[Any], Awaitable[Any]]
Stream = Callable[[Any], AsyncGenerator[Sequence[bytes]]]


@dataclass(frozen=True, eq=False)
class Service:
    """``name`` as ``observer.Observer``; its methods by name. Those of the schema that are missing here are
    answered with UNIMPLEMENTED."""

    name: str
    answers: Mapping[str, Answer] = field(default_factory=dict)
    streams: Mapping[str, Stream] = field(default_factory=dict)

    def __mapping__(self) -> dict[str, Handler]:
        """What grpclib asks for."""
        described = pool().FindServiceByName(self.name)
        return dict(self._handler(method.name) for method in described.methods)

    def _handler(self, name: str) -> tuple[str, Handler]:
        method = Method.find(self.name, name)
        if method.streams:
            handle, cardinality = self._streaming(method, self.streams.get(name)), Cardinality.UNARY_STREAM
        else:
            handle, cardinality = self._answering(method, self.answers.get(name)), Cardinality.UNARY_UNARY
        return method.path, Handler(handle, cardinality, message(method.request), message(method.reply))

    def _answering(self, method: Method, answer: Answer | None) -> Callable[[Any], Awaitable[None]]:
        async def handle(stream: Any) -> None:
            with _failures():
                reply = await _known(answer, method)(await _request(stream, method))
            await stream.send_message(reply)

        return handle

    def _streaming(self, method: Method, bulks_of: Stream | None) -> Callable[[Any], Awaitable[None]]:
        async def handle(stream: Any) -> None:
            with _failures():
                known = _known(bulks_of, method)
                request = await _request(stream, method)
                await stream.send_initial_metadata()
                async with aclosing(known(request)) as bulks:
                    async for bulk in bulks:
                        # Not `send_message`: that is one at a time.
                        await stream._stream.send_data(framed(bulk))

        return handle


class Server:
    """``version_header``: the metadata by which Hubble's clients learn whom they talk to."""

    def __init__(self, services: Sequence[Service], version_header: str) -> None:
        self._services = services
        self._version = {version_header: axoneme.__version__}
        #: What is answered to those who ask for the server's health.
        self.health = ServiceStatus()
        self.health.set(True)

    async def serve(
        self, address: Address, files: Files | None = None, ready: Callable[[Address], None] = lambda _: None
    ) -> None:
        """Until cancelled; ``ready`` is told the address, with the port that it got in place of 0. Plain
        where only this machine can reach it, else with TLS.

        ValueError where TLS would be needed and there are no ``files``; `CertificateError` where they cannot
        be used; OSError where somebody else has the address.
        """
        if address.path is not None:
            with unix_listener(address.path, 0o660) as listener:
                await self._serve(listener, None, lambda: ready(address))
            return
        credentials = None
        if not address.local or address.tls:
            if files is None:
                raise ValueError(
                    f"{address} can be reached from other machines, and there are no certificates for it: "
                    f"name some, or listen at 127.0.0.1:{address.port}"
                )
            credentials = ServerCredentials(files)
        with _tcp_listener(address) as listener:
            reached = replace(address, port=listener.getsockname()[1])
            await self._serve(listener, credentials, lambda: ready(reached))

    async def _serve(
        self,
        listener: socket.socket,
        credentials: ServerCredentials | None,
        ready: Callable[[], None],
    ) -> None:
        server = grpclib.server.Server(self._all_services(), codec=Messages())
        listen(server, SendInitialMetadata, self._introduce)
        context = credentials.context if credentials else None
        await server.start(sock=listener, ssl=context)
        ready()
        try:
            if credentials:
                await credentials.follow()
            await asyncio.Event().wait()
        finally:
            server.close()

    async def _introduce(self, event: SendInitialMetadata) -> None:
        event.metadata.update(self._version)

    def _all_services(self) -> list[Any]:
        """With those that every gRPC server has, by which general clients find their way."""
        checked: list[Any] = [*self._services, _Named(_HEALTH_NAME)]
        health = Health({OVERALL: [self.health], **{each: [self.health] for each in checked}})
        return list(ServerReflection.extend([*self._services, health], pool=_described()))


@cache
def _described() -> Any:
    """The pool of all messages, with those of health and reflection, which grpclib has elsewhere."""
    made = pool()
    for file in (health_pb2, reflection_v1, reflection_v1alpha):
        made.Add(FileDescriptorProto.FromString(file.DESCRIPTOR.serialized_pb))
    return made


class _Named:
    """A name to ask the health of, which is no service."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __mapping__(self) -> dict[str, None]:
        return {f"/{self._name}/": None}


async def _request(stream: Any, method: Method) -> Any:
    """The message that a call begins with: like grpclib's ``recv_message``, but no client can make this
    process keep more than `_LONGEST` bytes."""
    raw = stream._stream
    compressed, size = _PREFIX.unpack(await raw.recv_data(_PREFIX.size) or bytes(_PREFIX.size))
    if compressed:
        raise GRPCError(Status.UNIMPLEMENTED, "compressed requests are not understood")
    if size > _LONGEST:
        raise GRPCError(Status.RESOURCE_EXHAUSTED, f"a request of {size} bytes; {_LONGEST} at most")
    try:
        return message(method.request).FromString(await raw.recv_data(size))
    except DecodeError as error:
        raise GRPCError(Status.INVALID_ARGUMENT, f"no {method.request}: {error}") from None


def _known(served: T | None, method: Method) -> T:
    if served is None:
        raise CallError("UNIMPLEMENTED", f"{method.path} is not served here")
    return served


@contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except CallError as error:
        raise GRPCError(Status[error.code], str(error)) from error


def framed(messages: Sequence[bytes]) -> bytes:
    """As they stand in a stream of gRPC, one behind the other."""
    pack = _PREFIX.pack
    return b"".join([part for each in messages for part in (pack(0, len(each)), each)])


def _tcp_listener(address: Address) -> socket.socket:
    if not address.host and socket.has_dualstack_ipv6():
        return socket.create_server(("", address.port), family=socket.AF_INET6, dualstack_ipv6=True)
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    return socket.create_server((address.host, address.port), family=family)
