"""The gRPC server and the client over real sockets: plain, with mutual TLS, with those who do not behave."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from axoneme.certificates.authority import Authority
from axoneme.certificates.files import Files
from axoneme.hubble.address import Address
from axoneme.hubble.client import Client, HubbleError, connect
from axoneme.hubble.credentials import client_context
from axoneme.hubble.schema import message
from axoneme.hubble.serving import CallError, Server, Service

REQUEST = message("observer.GetFlowsRequest")
RESPONSE = message("observer.GetFlowsResponse")


class Flows:
    """Sends ``number`` replies in bulks of 100; counts what it was asked for."""

    def __init__(self) -> None:
        self.bulks = 0
        self.left = asyncio.Event()

    async def flows(self, request: Any) -> AsyncGenerator[Sequence[bytes]]:
        if request.whitelist:
            raise CallError("INVALID_ARGUMENT", "filter pod: nothing of the kind")
        one = RESPONSE(node_name="n" * 500).SerializeToString()
        try:
            for _ in range(request.number // 100):
                self.bulks += 1
                yield [one] * 100
                await asyncio.sleep(0)
            while request.follow:
                await asyncio.sleep(3600)
        finally:
            self.left.set()

    async def status(self, _: Any) -> Any:
        return message("observer.ServerStatusResponse")(num_flows=7)

    def server(self) -> Server:
        service = Service("observer.Observer", {"ServerStatus": self.status}, {"GetFlows": self.flows})
        return Server([service], "hubble-server-version")


@contextlib.asynccontextmanager
async def serving(server: Server, address: Address, files: Files | None = None) -> AsyncIterator[Address]:
    ready: asyncio.Future[Address] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(server.serve(address, files, ready.set_result))
    try:
        await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
        yield ready.result()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task


def issued(authority: Authority, folder: Path) -> Files:
    """The files of a node, and their authority's."""
    folder.mkdir(exist_ok=True)
    chain, key = authority.issue("node", ["n1.default.hubble-grpc.cilium.io"], ["127.0.0.1"], 1)
    files = Files.in_directory(folder)
    for path, content in (
        (files.certificate, chain),
        (files.key, key),
        (files.authority, (authority.folder / "ca.crt").read_bytes()),
    ):
        draft = path.with_suffix(".draft")
        draft.write_bytes(content)
        draft.rename(path)
    return files


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority(tmp_path / "ca")
    made.init("default")
    return made


async def count(client: Client, request: Any) -> int:
    return len([each async for each in client.flows(request)])


async def test_streams_arrive_whole_and_calls_are_answered(tmp_path: Path) -> None:
    path = tmp_path / ("long" * 30) / "hubble.sock"
    path.parent.mkdir()
    async with serving(Flows().server(), Address(path=path)) as address, connect(address) as client:
        assert (await client.status()).num_flows == 7
        assert await count(client, REQUEST(number=20_000)) == 20_000
        assert path.stat().st_mode & 0o777 == 0o660


async def test_errors_say_what_is_wrong(tmp_path: Path) -> None:
    address = Address(path=tmp_path / "hubble.sock")
    async with connect(address) as client:
        with pytest.raises(HubbleError, match="UNAVAILABLE"):
            await client.status()
        async with serving(Flows().server(), address):
            with pytest.raises(HubbleError, match="nothing of the kind") as error:
                await count(client, REQUEST(whitelist=[{"source_pod": ["x"]}]))
            assert error.value.code == "INVALID_ARGUMENT"
            with pytest.raises(HubbleError) as error:
                await client.namespaces()
            assert error.value.code == "UNIMPLEMENTED"
            with pytest.raises(HubbleError) as error:
                await anext(client.flows(REQUEST(follow=True), timeout=0.05))
            assert error.value.code == "DEADLINE_EXCEEDED"
            huge = REQUEST(whitelist=[{"source_pod": ["x" * (5 << 20)]}])
            with pytest.raises(HubbleError, match="at most") as error:
                await count(client, huge)


async def test_who_does_not_read_holds_up_only_himself(tmp_path: Path) -> None:
    flows = Flows()
    async with serving(flows.server(), Address(path=tmp_path / "s")) as address, connect(address) as client:
        stuck = client.flows(REQUEST(number=10_000_000))
        await anext(stuck)
        settled, before = 0, -1
        while settled < 20:  # until nothing more is asked of the service
            settled, before = (settled + 1 if flows.bulks == before else 0), flows.bulks
            await asyncio.sleep(0.01)
        assert flows.bulks * 100 * 500 < 8 << 20
        async with connect(address) as other:
            assert await count(other, REQUEST(number=1000)) == 1000
        flows.left.clear()
        await stuck.aclose()
        await asyncio.wait_for(flows.left.wait(), 10)


async def test_a_client_that_leaves_ends_its_stream(tmp_path: Path) -> None:
    flows = Flows()
    async with serving(flows.server(), Address(path=tmp_path / "s")) as address:
        async with connect(address) as client:
            stream = client.flows(REQUEST(number=100, follow=True))
            await anext(stream)
        await asyncio.wait_for(flows.left.wait(), 10)


async def test_garbage_is_hung_up_on(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with serving(Flows().server(), Address(path=path)) as address:
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"GET / HTTP/1.1\r\n\r\n" * 10)
        await asyncio.wait_for(reader.read(), 10)
        writer.close()
        async with connect(address) as client:
            assert (await client.status()).num_flows == 7


async def test_nothing_leaves_the_machine_without_tls() -> None:
    with pytest.raises(ValueError, match="can be reached from other machines"):
        await Flows().server().serve(Address("", 0))


async def test_both_ends_show_a_certificate(tmp_path: Path, authority: Authority) -> None:
    files = issued(authority, tmp_path / "node")
    name = "n1.default.hubble-grpc.cilium.io"
    where = Address("127.0.0.1", 0, tls=True)
    async with serving(Flows().server(), where, files) as address:
        async with connect(address, client_context(files), name) as client:
            assert await count(client, REQUEST(number=1000)) == 1000
        async with connect(address, client_context(files), "n2.default.hubble-grpc.cilium.io") as client:
            with pytest.raises(HubbleError, match="certificate verify failed"):
                await client.status()
        anonymous = ssl.create_default_context(cafile=str(files.authority))
        anonymous.set_alpn_protocols(["h2"])
        async with connect(address, anonymous, name) as client:
            with pytest.raises(HubbleError):
                await client.status()


async def test_other_files_are_taken_up_by_the_next_connection(tmp_path: Path, authority: Authority) -> None:
    files = issued(authority, tmp_path / "node")
    name = "n1.default.hubble-grpc.cilium.io"
    async with serving(Flows().server(), Address("127.0.0.1", 0, tls=True), files) as address:
        old = client_context(files)
        async with connect(address, old, name) as client:
            stream = client.flows(REQUEST(number=100, follow=True))
            await anext(stream)
            authority.rotate(at_once=True)
            issued(authority, tmp_path / "node")
            new = client_context(files)
            async with asyncio.timeout(20):
                while not await _works(address, new, name):
                    await asyncio.sleep(0.02)
            assert not await _works(address, old, name)
            assert len([await anext(stream) for _ in range(99)]) == 99  # who was there stays
            await stream.aclose()


async def test_nobody_resumes_a_session_instead_of_showing_a_certificate(
    tmp_path: Path, authority: Authority
) -> None:
    files = issued(authority, tmp_path / "node")
    name = "n1.default.hubble-grpc.cilium.io"
    async with serving(Flows().server(), Address("127.0.0.1", 0, tls=True), files) as address:
        old = client_context(files)

        def shake_hands(session: ssl.SSLSession | None = None) -> tuple[ssl.SSLSession | None, bool | None]:
            with (
                socket.create_connection(("127.0.0.1", address.port)) as plain,
                old.wrap_socket(plain, server_hostname=name, session=session) as tls,
            ):
                assert tls.recv(1)  # with it tickets have come, if there are any
                return tls.session, tls.session_reused

        session, _ = await asyncio.to_thread(shake_hands)
        if session is not None and session.has_ticket:
            assert (await asyncio.to_thread(shake_hands, session))[1] is False
        older = client_context(files)
        older.minimum_version = ssl.TLSVersion.TLSv1_2
        older.maximum_version = ssl.TLSVersion.TLSv1_2
        assert not await _works(address, older, name)


async def _works(address: Address, context: ssl.SSLContext, name: str) -> bool:
    async with connect(address, context, name) as client:
        try:
            await client.status()
        except HubbleError:
            return False
        return True


async def test_an_address_that_is_taken_is_an_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        await Flows().server().serve(Address("127.0.0.1", taken.getsockname()[1]))
