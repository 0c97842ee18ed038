"""A sandbox that is only files: a directory with a store and nodes' sockets, and `axo` to run in it."""

from __future__ import annotations

import asyncio
import io
import json
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from axoneme.cli.root import run
from axoneme.model.state import EndpointState, IdentityState, encode, endpoint_key, identity_key
from axoneme.rpc import Server
from axoneme.sandbox import layout
from axoneme.sandbox.layout import Layout
from axoneme.sandbox.objects import ObjectKey
from axoneme.sources.sqlite import SqliteStore

Document = dict[str, Any]


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def cells(self) -> list[list[str]]:
        return [line.split() for line in self.lines]


Axo = Callable[..., Result]


@pytest.fixture
def axo(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Axo:
    """Runs `axo` with these arguments; ``stdin`` is what it reads."""
    monkeypatch.delenv("AXO_SANDBOX", raising=False)

    def call(*arguments: str, stdin: str = "") -> Result:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        code = run(arguments)
        said = capsys.readouterr()
        return Result(code, said.out, said.err)

    return call


class Sandbox:
    """The files of a sandbox named ``default``."""

    def __init__(self, nodes: tuple[str, ...] = ("node1", "node2")) -> None:
        self.layout = Layout("default")
        self.layout.directory.mkdir(parents=True)
        for node in nodes:
            self.layout.node(node).directory.mkdir(parents=True)
        self.put_raw({})

    def put_raw(self, values: dict[str, bytes]) -> None:
        async def work() -> None:
            store = SqliteStore(self.layout.store)
            for key, value in values.items():
                await store.put(key, value)
            await store.close()

        asyncio.run(work())

    def put(self, document: Document) -> None:
        """An object, as it is."""
        metadata = document["metadata"]
        key = ObjectKey(document["kind"], metadata.get("namespace", ""), metadata["name"])
        self.put_raw({key.path(): json.dumps(document).encode()})

    def get(self, kind: str, name: str, namespace: str = "default") -> Document | None:
        async def work() -> bytes | None:
            store = SqliteStore(self.layout.store)
            entry = await store.get(ObjectKey(kind, namespace, name).path())
            await store.close()
            return entry.value if entry else None

        value = asyncio.run(work())
        return None if value is None else json.loads(value)

    def need(self, kind: str, name: str, namespace: str = "default") -> Document:
        found = self.get(kind, name, namespace)
        assert found is not None, f"{kind} {namespace}/{name}"
        return found

    def pod(self, name: str, namespace: str = "default", **more: Any) -> None:
        """A running pod with the label ``app``, its name, and an address."""
        ready = {"type": "Ready", "status": "True"}
        container = {
            "name": "main",
            "ready": True,
            "restartCount": 2,
            "state": {"running": {"startedAt": "x"}},
        }
        self.put(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": name,
                    "namespace": namespace,
                    "uid": f"uid-{name}",
                    "labels": {"app": name},
                    "creationTimestamp": "2026-01-01T00:00:00Z",
                    **more,
                },
                "spec": {"containers": [{"name": "main", "image": "i"}], "nodeName": "node1"},
                "status": {
                    "phase": "Running",
                    "podIP": "10.0.0.9",
                    "podIPs": [{"ip": "10.0.0.9"}],
                    "conditions": [ready],
                    "containerStatuses": [container],
                },
            }
        )

    def endpoint(self, id_: int, pod: str, address: str, node: str = "node1", identity: int = 1000) -> None:
        """An endpoint in the default namespace, and its identity."""
        labels = [f"k8s:app={pod}", "k8s:io.kubernetes.pod.namespace=default"]
        state = EndpointState(
            id_, node, identity, [address], "default", pod, f"uid-{pod}", labels=labels, state="ready"
        )
        self.put_raw(
            {
                endpoint_key(node, id_): encode(state),
                identity_key(identity): encode(IdentityState(labels)),
            }
        )


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    monkeypatch.setattr(layout, "ROOT", tmp_path / "sandboxes")
    return Sandbox()


# ---- servers on the sandbox's sockets ------------------------------------------------------------------


class Params(msgspec.Struct):
    """Any parameters: those that a test looks at."""

    filters: list[Any] = []
    not_filters: list[Any] = []
    last: int | None = None
    follow: bool = False
    since: int | None = None
    until: int | None = None
    direction: str = ""
    subject: str = ""
    peer: dict[str, Any] = {}
    protocol: str = ""
    port: int = 0
    namespace: str = ""
    pod: str = ""
    container: str = ""
    tail: int | None = None
    objects: dict[str, Any] = {}


Answer = Callable[[Params], object]
Stream = Callable[[Params], AsyncIterator[object]]


@contextmanager
def serving(
    path: Path, methods: dict[str, Answer] | None = None, streams: dict[str, Stream] | None = None
) -> Iterator[None]:
    """A server on ``path`` while the context lasts."""
    up = threading.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        server = Server(path)
        for name, answer in (methods or {}).items():

            async def handle(params: Params, answer: Answer = answer) -> object:
                return answer(params)

            server.method(name, Params, handle)
        for name, stream in (streams or {}).items():
            server.stream(name, Params, stream)
        await server.serve(up.set)

    task = loop.create_task(serve())

    def work() -> None:
        try:
            loop.run_until_complete(task)
        except asyncio.CancelledError:
            pass
        finally:
            loop.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert up.wait(10), f"no server on {path}"
    try:
        yield
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(10)
        assert not thread.is_alive()
