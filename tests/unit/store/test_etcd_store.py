"""What only the etcd store must stand: servers that go and come, certificates, answers of strangers."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from axoneme.sources.etcd import EtcdStore, Tls
from axoneme.sources.follow import Sync, follow
from axoneme.sources.store import Put, StoreError, Unavailable

from .conftest import free_ports, wait_until_healthy

pytestmark = pytest.mark.skipif(not shutil.which("etcd"), reason="etcd is not installed")

PATIENCE = 20.0


@contextmanager
def running(directory: Path, client: str, peer: str, *options: str) -> Iterator[None]:
    command = [
        *("etcd", "--data-dir", str(directory / "data"), "--unsafe-no-fsync", "--log-level", "error"),
        *("--heartbeat-interval", "10", "--election-timeout", "100"),
        *("--listen-client-urls", client, "--advertise-client-urls", client),
        *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
        *("--initial-cluster", f"default={peer}", *options),
    ]
    with (directory / "log").open("ab") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            if client.startswith("http:"):
                wait_until_healthy(client, directory / "log")
            yield
        finally:
            server.kill()


@asynccontextmanager
async def opened(urls: list[str], **options: Any) -> AsyncIterator[EtcdStore]:
    store = EtcdStore(urls, **options)
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def imposter(answer: bytes) -> AsyncIterator[str]:
    """The URL of a server that gives one answer to whatever it is asked; none if that is empty."""

    responding: set[asyncio.Task[None] | None] = set()

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        responding.add(asyncio.current_task())
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while answer:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"Content-Length: (\d+)", head)
                await reader.readexactly(int(length[1]) if length else 0)
                writer.write(answer)
            await reader.read()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(respond, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}"
        await asyncio.wait([task for task in responding if task])


@pytest.fixture
def addresses() -> tuple[str, str]:
    client, peer = free_ports(2)
    return f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"


async def test_following_goes_on_when_the_server_comes_back(
    tmp_path: Path, addresses: tuple[str, str]
) -> None:
    keys: list[str] = []
    syncs: list[int] = []

    async def consume(store: EtcdStore) -> None:
        async for news in follow(store, "n/", first_pause=0.01, longest_pause=0.1):
            if isinstance(news, Sync):
                syncs.append(news.revision)
            else:
                keys.extend(change.key for change in news)

    async def until(expected: list[str]) -> None:
        async with asyncio.timeout(PATIENCE):
            while keys != expected or not syncs:
                await asyncio.sleep(0.005)

    async with opened([addresses[0]]) as store:
        task = asyncio.create_task(consume(store))
        with running(tmp_path, *addresses):
            await store.put("n/a", b"")
            await until(["n/a"])
        with pytest.raises(Unavailable):
            await store.get("n/a")
        with running(tmp_path, *addresses):
            await store.put("n/b", b"")
            await until(["n/a", "n/b"])
        assert len(syncs) == 1  # it went on where it was
        task.cancel()
        await asyncio.wait({task})


async def test_a_dead_endpoint_is_passed_over(etcd: str) -> None:
    (port,) = free_ports(1)
    async with opened([f"http://127.0.0.1:{port}", etcd], namespace="dead/") as store:
        start = await store.put("a", b"1")
        async with aclosing(store.watch("", start)) as batches:
            await store.put("b", b"2")
            assert [change.key for change in await asyncio.wait_for(anext(batches), PATIENCE)] == ["b"]


async def test_an_answer_of_something_else_is_unavailable() -> None:
    answer = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 9\r\n\r\n<html>502"
    async with imposter(answer) as url, opened([url]) as store:
        with pytest.raises(Unavailable, match="HTTP status 502: b'<html>502'"):
            await store.get("a")
        with pytest.raises(Unavailable, match="502"):
            await anext(store.watch("a", 1))


async def test_a_server_that_never_answers_is_given_up() -> None:
    async with imposter(b"") as url, opened([url], timeout=0.05) as store:
        with pytest.raises(Unavailable, match=r"no answer within 0\.05 s"):
            await store.get("a")


async def test_too_many_operations_are_refused_with_the_servers_words(etcd: str) -> None:
    async with opened([etcd], namespace="many/") as store:
        with pytest.raises(StoreError, match="too many operations"):
            await store.transact({}, [Put(f"k/{number}", b"") for number in range(200)])


async def test_namespaces_do_not_see_each_other(etcd: str) -> None:
    async with opened([etcd], namespace="one/") as one, opened([etcd], namespace="two/") as two:
        await one.put("a", b"1")
        assert (await two.list("")).entries == []
        assert [entry.key for entry in (await one.list("")).entries] == ["a"]


# ---- certificates ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, a server's certificate and a client's, made with openssl."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    directory = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority")
    for name in ("server", "client"):
        subject = ("-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1")
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key")
        openssl("req", "-x509", *key, *signed, "-keyout", f"{name}.key", "-out", f"{name}.pem", *subject)
    return directory


async def test_tls_on_both_sides(tmp_path: Path, certificates: Path, addresses: tuple[str, str]) -> None:
    client, peer = addresses[0].replace("http:", "https:"), addresses[1]
    options = (
        *("--cert-file", str(certificates / "server.pem"), "--key-file", str(certificates / "server.key")),
        *("--client-cert-auth", "--trusted-ca-file", str(certificates / "ca.pem")),
    )
    ours = Tls(certificates / "ca.pem", certificates / "client.pem", certificates / "client.key")
    with running(tmp_path, client, peer, *options):
        async with opened([client], tls=ours) as store:
            start = await first_put(store)
            async with aclosing(store.watch("", start - 1)) as batches:
                assert [change.value for change in await asyncio.wait_for(anext(batches), PATIENCE)] == [b"1"]
        for tls in (None, Tls(certificates / "ca.pem")):
            async with opened([client], tls=tls) as stranger:
                with pytest.raises(Unavailable):
                    await stranger.get("a")


async def first_put(store: EtcdStore) -> int:
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await store.put("a", b"1")
            except Unavailable:
                await asyncio.sleep(0.02)


async def test_tls_files_that_do_not_fit_are_named(certificates: Path) -> None:
    async with opened(["https://127.0.0.1:1"], tls=Tls(certificates / "ca.key")) as store:
        with pytest.raises(StoreError, match=r"ca\.key.* cannot be used"):
            await store.get("a")
