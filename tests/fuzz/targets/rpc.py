"""JSON-RPC on the sockets of a node: what a broken client sends, and what a broken server answers."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import msgspec

from axoneme.agent.pods import Attach
from axoneme.agent.questions import Question
from axoneme.flows.flow import Item, ObserveRequest
from axoneme.rpc import NoParams, RpcError, Server
from axoneme.rpc.client import convert, final, parse
from fuzz.target import Target, says_why

_REQUESTS: tuple[Any, ...] = (
    {"jsonrpc": "2.0", "id": 1, "method": "status"},
    {"jsonrpc": "2.0", "id": "a", "method": "evaluate", "params": {
        "direction": "ingress", "subject": "a/b", "peer": {"identity": 300}, "protocol": "TCP", "port": 80}},
    {"jsonrpc": "2.0", "id": 2, "method": "attach", "params": {
        "container_id": "c", "netns": "/n", "ifname": "eth0", "namespace": "a", "pod": "b", "labels": {"a": "b"}}},
    {"jsonrpc": "2.0", "id": 3, "method": "observe", "params": {"filters": [{"port": [80]}], "last": 2}},
    {"jsonrpc": "2.0", "method": "status"},
)  # fmt: skip


def _request_seeds() -> Iterable[bytes]:
    yield from (json.dumps(each).encode() for each in _REQUESTS)
    yield b"".join(json.dumps(each).encode() + b"\n" for each in _REQUESTS)
    yield b"{" * 200 + b"\n"


class _Served:
    """A server in the loop of this process, started when the first input comes."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._folder = tempfile.TemporaryDirectory(prefix="fuzz-rpc-")
        self.path = Path(self._folder.name) / "s"
        server = Server(self.path)
        server.method("status", NoParams, self._echo)
        server.method("evaluate", Question, self._echo)
        server.method("attach", Attach, self._echo)
        server.stream("observe", ObserveRequest, self._items)
        ready = asyncio.Event()
        self.task = self.loop.create_task(server.serve(ready.set))
        self.loop.run_until_complete(ready.wait())

    async def _echo(self, params: object) -> object:
        return params

    async def _items(self, params: ObserveRequest) -> AsyncIterator[object]:
        yield params

    async def ask(self, data: bytes) -> bytes:
        """All that it answers to a client who sends this, and then listens."""
        reader, writer = await asyncio.open_unix_connection(self.path)
        try:
            writer.write(data)
            writer.write_eof()
            async with asyncio.timeout(5):
                return await reader.read()
        finally:
            writer.close()


_served: dict[int, _Served] = {}


def check_server(data: bytes) -> None:
    """Each line that wants an answer gets one in JSON, and the server goes on serving others."""
    served = _served.setdefault(os.getpid(), None) or _Served()  # type: ignore[arg-type]
    _served[os.getpid()] = served
    assert not served.task.done(), served.task
    answers = served.loop.run_until_complete(served.ask(data))
    assert not answers or answers.endswith(b"\n")
    for line in answers.splitlines():
        answer = msgspec.json.decode(line, type=dict[str, object])
        assert answer["jsonrpc"] == "2.0" and len(answer.keys() & {"result", "error", "item"}) == 1
        error = answer.get("error")
        assert not isinstance(error, dict) or error["code"] != -32603, error
    good = json.dumps(_REQUESTS[0]).encode() + b"\n"
    assert json.loads(served.loop.run_until_complete(served.ask(good)))["result"] == {}
    assert not served.task.done()


def _answer_seeds() -> Iterable[bytes]:
    yield json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"phase": "ready"}}).encode()
    yield json.dumps({"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": "m", "data": None}}).encode()
    flow = {"time": "t", "verdict": "FORWARDED", "IP": {"source": "10.0.0.1"}, "l4": {"TCP": {
        "source_port": 1, "destination_port": 2, "flags": {"SYN": True}}}, "source": {"identity": 5}}  # fmt: skip
    yield json.dumps({"jsonrpc": "2.0", "id": 1, "item": {"flow": flow, "node_name": "n"}}).encode()


def check_client(data: bytes) -> None:
    """An answer, or an error of the kind that every caller reports."""
    path = Path("/s")
    try:
        answer = parse(path, data + b"\n")
        if "item" in answer:
            convert(path, "m", answer["item"], Item)
        else:
            final(path, answer)
    except RpcError as error:
        says_why(error)


TARGETS = [
    Target("rpc-server", check_server, _request_seeds, json=True),
    Target("rpc-client", check_client, _answer_seeds, json=True),
]
