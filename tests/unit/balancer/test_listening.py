"""Who may use the API: by the socket, over loopback, and over TLS with certificates of both sides."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from axoneme.balancer.client import ApiError, Client
from axoneme.balancer.config import ApiConfig, load
from axoneme.balancer.reports import StatusReport
from axoneme.balancer.server import serve
from axoneme.model.balancer import Backend
from axoneme.sources.config import ConfigError
from balancer.test_api import FILE, Desk


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    path = tmp_path / "lb.yaml"
    path.write_text(FILE)
    return Desk(path)


@asynccontextmanager
async def served(desk: Desk, config: ApiConfig, path: Path) -> AsyncIterator[None]:
    task = asyncio.ensure_future(serve(desk, config, path))
    try:
        async with asyncio.timeout(20):
            while not task.done():
                try:
                    await asyncio.to_thread(Client(path).get, "/v1/status", StatusReport)
                    break
                except ApiError:
                    await asyncio.sleep(0.01)
            if config.listen:
                await _listens(*config.address() or ("", 0))
        yield
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def _listens(host: str, port: int) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection(host, port)
        except OSError:
            await asyncio.sleep(0.01)
        else:
            writer.close()
            return


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


async def test_the_socket_is_its_owners_and_goes_with_the_process(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / ("a" * 100) / "api.sock"  # longer than a socket's name can be
    async with served(desk, ApiConfig(), path):
        assert path.stat().st_mode & 0o777 == 0o600
        drain = {"drain": True}
        made = await asyncio.to_thread(Client(path).patch, "/v1/services/web/backends/a", drain, Backend)
        assert made.drain
        with pytest.raises(ApiError, match="there is no service other"):
            await asyncio.to_thread(Client(path).get, "/v1/services/other", StatusReport)
    assert not path.exists()
    with pytest.raises(ApiError, match="no load balancer answers"):
        Client(path).get("/v1/status", StatusReport)


async def test_beyond_loopback_both_sides_show_certificates(desk: Desk, tmp_path: Path) -> None:
    for name in ("server", "client", "stranger"):
        command = (
            f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 "
            f"-subj /CN={name} -addext subjectAltName=IP:127.0.0.1 -keyout {name}.key -out {name}.pem"
        )
        subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    port = free_port()
    config = ApiConfig(
        listen=f"127.0.0.1:{port}",
        certificate=str(tmp_path / "server.pem"),
        key=str(tmp_path / "server.key"),
        client_ca=str(tmp_path / "client.pem"),
    )

    async def ask(name: str, most: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED) -> int:
        context = ssl.create_default_context(cafile=tmp_path / "server.pem")
        context.maximum_version = most
        if name:
            context.load_cert_chain(tmp_path / f"{name}.pem", tmp_path / f"{name}.key")
        url = f"https://127.0.0.1:{port}/v1/status"
        async with aiohttp.ClientSession() as session, session.get(url, ssl=context) as response:
            return response.status

    async with served(desk, config, tmp_path / "api.sock"):
        assert await ask("client") == 200
        for name in ("", "stranger"):
            with pytest.raises((aiohttp.ClientError, ssl.SSLError, OSError)):
                await ask(name)
        with pytest.raises((aiohttp.ClientError, ssl.SSLError, OSError)):
            await ask("client", ssl.TLSVersion.TLSv1_2)  # whose sessions are resumed without a certificate


@pytest.mark.parametrize(
    ("api", "told"),
    [
        ("{listen: '192.0.2.1:9180'}", "it needs certificate and key, and client_ca"),
        ("{listen: '192.0.2.1:9180', certificate: a, key: b}", "it needs certificate and key, and client_ca"),
        ("{listen: '127.0.0.1'}", "an address and a port belong here"),
        ("{listen: 'localhost:80'}", "an address and a port belong here"),
        ("{listen: '127.0.0.1:80', key: b}", "certificate and key belong together"),
    ],
)
def test_what_would_be_open_to_everybody_is_refused(tmp_path: Path, api: str, told: str) -> None:
    path = tmp_path / "lb.yaml"
    path.write_text(f"api: {api}\n{FILE}")
    with pytest.raises(ConfigError, match=told):
        load(path)


async def test_an_address_that_is_taken_is_told(desk: Desk, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = ApiConfig(listen=f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(ConfigError, match=r"api: 127\.0\.0\.1"):
            await serve(desk, config, tmp_path / "api.sock")
