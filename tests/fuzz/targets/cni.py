"""Container runtimes' requests, as the agent gets them from ``axo-cni``."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

from axoneme.agent.api import Readiness
from axoneme.agent.cniserver import CniServer
from axoneme.agent.cnisocket import PROTOCOL
from axoneme.agent.pods import Attach, Attached, Detach
from axoneme.cni.request import Code
from fuzz.target import Target

_CONFIG = {
    "cniVersion": "1.1.0",
    "name": "net",
    "type": "axo-cni",
    "socket": "/s",
    "labels": {"app": "web"},
    "namespace": "shop",
    "args": {"cni": {"labels": [{"key": "a", "value": "b"}]}},
    "cni.dev/valid-attachments": [{"containerID": "c", "ifname": "eth0"}],
}
_RESULT = {
    "ips": [{"address": "10.0.0.1/32", "gateway": "169.254.1.1"}],
    "interfaces": [{"name": "eth0"}],
    "routes": [{"dst": "0.0.0.0/0"}],
}
_VARIABLES = (
    "CNI_CONTAINERID=c1",
    "CNI_IFNAME=eth0",
    "CNI_NETNS=/run/netns/c1",
    "CNI_PATH=/opt/cni/bin",
    "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;AXO_LABELS=a=b,c=d",
)


def _seeds() -> Iterable[bytes]:
    for command in ("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"):
        config = _CONFIG | ({"prevResult": _RESULT} if command == "CHECK" else {})
        head = "\0".join((f"CNI_COMMAND={command}", *_VARIABLES))
        yield PROTOCOL + head.encode() + b"\0\0" + json.dumps(config).encode()


class _Pods:
    """Takes all that it is asked to attach."""

    async def attach(self, wish: Attach) -> Attached:
        assert all(isinstance(text, str) for text in (wish.namespace, wish.pod, wish.netns, wish.ifname))
        return Attached([], "02:00:00:00:00:01", 1500, "axo1", 300, 1)

    async def detach(self, wish: Detach) -> None: ...

    def sweep(self, *_: object) -> None: ...

    def exhausted(self) -> str:
        return ""

    broken = False


class _Endpoints:
    def __init__(self) -> None:
        self.records: dict[object, object] = {}


def check(data: bytes) -> None:
    """An answer in the specification's form, whatever was asked; the agent itself never fails."""
    readiness, pods, endpoints = Readiness(), _Pods(), _Endpoints()
    readiness.reached("")
    server = CniServer(Path("/s"), readiness, pods, endpoints)  # type: ignore[arg-type]
    runtime, agent = socket.socketpair()
    with runtime:
        runtime.sendall(data)
        runtime.shutdown(socket.SHUT_WR)
        _LOOP.run_until_complete(server._client(agent))
        written = runtime.recv(1 << 20)
    code, text = written[0], written[1:]
    if code:
        answer = json.loads(text)
        assert isinstance(answer["code"], int) and answer["msg"] and answer["cniVersion"]
        assert answer["code"] != Code.FAILED or data[:1] != PROTOCOL, answer
    elif text:
        assert json.loads(text)["cniVersion"]


_LOOP = asyncio.new_event_loop()


def _bodies() -> Iterator[bytes]:
    yield from (seed.partition(b"\0\0")[2] for seed in _seeds())


def check_config(data: bytes) -> None:
    """The same with a network configuration that is JSON, however odd."""
    for command in ("ADD", "CHECK", "GC"):
        check(PROTOCOL + "\0".join((f"CNI_COMMAND={command}", *_VARIABLES)).encode() + b"\0\0" + data)


TARGETS = [Target("cni", check, _seeds), Target("cni-config", check_config, _bodies, json=True)]
