from __future__ import annotations

import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from axoneme.sources.store import Store

from .backends import Backend, Etcd, Opener, Sqlite


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an etcd of our own."""
    program = shutil.which("etcd")
    if not program:
        pytest.skip("etcd is not installed")
    directory = tmp_path_factory.mktemp("etcd")
    client, peer = (f"http://127.0.0.1:{port}" for port in free_ports(2))
    command = [
        *(program, "--data-dir", str(directory / "data"), "--unsafe-no-fsync", "--log-level", "error"),
        # The shortest lease depends on the election timeout.
        *("--heartbeat-interval", "10", "--election-timeout", "100"),
        *("--listen-client-urls", client, "--advertise-client-urls", client),
        *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
        *("--initial-cluster", f"default={peer}"),
    ]
    with (directory / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as running:
        try:
            wait_until_healthy(client, directory / "log")
            yield client
        finally:
            running.kill()


@pytest.fixture(params=["sqlite", "etcd"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    if request.param == "sqlite":
        return Sqlite(tmp_path / "store.db")
    return Etcd(request.getfixturevalue("etcd"), f"{request.node.name}/")


@pytest.fixture
async def opener(backend: Backend) -> AsyncIterator[Opener]:
    """Opens stores on the backend, as many processes would, and closes them in the end."""
    opened: list[Store] = []

    def open_one() -> Store:
        opened.append(backend.open())
        return opened[-1]

    yield open_one
    for store in opened:
        await store.close()


@pytest.fixture
def store(opener: Opener) -> Store:
    return opener()


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def wait_until_healthy(url: str, log: Path) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=1) as answer:
                if b"true" in answer.read():
                    return
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise TimeoutError(f"etcd did not become healthy:\n{log.read_text()}")
        time.sleep(0.02)
