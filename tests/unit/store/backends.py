"""The stores that the contract is tested against, and what the tests need to do to them."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from axoneme.sources.sqlite import SqliteStore
from axoneme.sources.store import Store

SOURCE = Path(__file__).parents[3] / "src"
TESTS = Path(__file__).parents[2]


class Backend(Protocol):
    """One shared state, to which any number of stores can be opened."""

    name: str

    def open(self) -> Store: ...

    async def forget(self, store: Store) -> None:
        """Makes the store forget every change so far."""
        ...

    def arguments(self) -> list[str]:
        """What `open_from` in another process makes the same backend of."""
        ...


class Sqlite:
    name = "sqlite"
    keep = 3000

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self) -> Store:
        return SqliteStore(self.path, keep=self.keep)

    async def forget(self, store: Store) -> None:
        for _ in range(self.keep + 100):
            await store.put("elsewhere", b"")

    def arguments(self) -> list[str]:
        return ["sqlite", str(self.path)]


class Etcd:
    name = "etcd"

    def __init__(self, url: str, namespace: str) -> None:
        self.url = url
        self.namespace = namespace

    def open(self) -> Store:
        from axoneme.sources.etcd import EtcdStore

        return EtcdStore([self.url], namespace=self.namespace)

    async def forget(self, store: Store) -> None:
        revision = await store.put("elsewhere", b"")
        body = f'{{"revision": "{revision}"}}'.encode()
        urllib.request.urlopen(f"{self.url}/v3/kv/compaction", body).close()

    def arguments(self) -> list[str]:
        return ["etcd", self.url, self.namespace]


def open_from(arguments: list[str]) -> Backend:
    kind, *rest = arguments
    return Sqlite(Path(rest[0])) if kind == "sqlite" else Etcd(*rest)


@asynccontextmanager
async def process(backend: Backend, job: str, *arguments: object) -> AsyncIterator[subprocess.Popen[bytes]]:
    """Another process that runs ``job`` of `jobs` on the same state; ended with the context."""
    command = [sys.executable, "-m", "unit.store.jobs", job, *map(str, arguments), "--", *backend.arguments()]
    environment = {"PYTHONPATH": f"{SOURCE}:{TESTS}"}
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        try:
            yield running
        finally:
            running.kill()


Opener = Callable[[], Store]
