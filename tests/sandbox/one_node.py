"""One node: an agent in a network namespace of its own, over a store in a temporary folder."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from two_nodes import Namespaces

from axoneme.datapath import bpffs
from axoneme.net import netns
from axoneme.net.commands import ip
from axoneme.rpc import Client, RpcError
from axoneme.sandbox import cgroups
from axoneme.sources.sqlite import SqliteStore
from axoneme.sources.store import Put, Store


class Node:
    """A node with an agent that can be killed and started again."""

    def __init__(self, folder: Path, namespaces: Namespaces, more: dict[str, Any]) -> None:
        self.folder, self.namespaces = folder, namespaces
        self.namespace = namespaces.add("node")
        ip(
            [
                "link add eth0 type veth peer name beyond",
                "link set beyond up",
                "link set eth0 up",
                "addr add 172.31.0.1/24 dev eth0",
                "addr add fd00:a0::1/64 dev eth0 nodad",
            ],
            self.namespace,
        )
        config = {
            "node": "node1",
            "directory": str(folder),
            "store": {"path": str(folder / "store.db")},
            "cgroup": str(group(folder)),
            "cluster_pool": [
                {"cidr": "10.244.0.0/16", "node_prefix_length": 24},
                {"cidr": "fd00:10:244::/56", "node_prefix_length": 64},
            ],
            **more,
        }
        self.store = Path(config["store"]["path"])
        (folder / "agent.yaml").write_text(yaml.safe_dump(config))
        self.process: subprocess.Popen[bytes] | None = None
        self.client = Client(folder / "agent.sock")

    def start(self) -> tuple[float, float]:
        """Seconds until it is ready, and the CPU time that this took."""
        began = time.monotonic()
        with (self.folder / "agent.log").open("ab") as log:
            self.process = subprocess.Popen(
                ["nsenter", f"--net={self.namespace}", "--", sys.executable, "-m", "axoneme.cli", "agent",
                 "--config", str(self.folder / "agent.yaml")],
                stderr=log,
            )  # fmt: skip
        while True:
            with contextlib.suppress(RpcError):
                if self.client.call("status")["phase"] == "ready":
                    return time.monotonic() - began, self.cpu()
            assert self.process.poll() is None, (self.folder / "agent.log").read_text()
            time.sleep(0.002)

    def cpu(self) -> float:
        """Seconds of CPU that the agent has used."""
        assert self.process is not None
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> float:
        """MiB of proportional set size."""
        assert self.process is not None
        rollup = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        return int(rollup.split("Pss:")[1].split()[0]) / 1024

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def attach(self, name: str, namespace: Path) -> float:
        wish = {"container_id": name, "netns": str(namespace), "ifname": "eth0", "namespace": "default",
                "pod": name}  # fmt: skip
        began = time.monotonic()
        Client(self.folder / "agent.sock").call("endpoint.attach", wish)
        return time.monotonic() - began

    def detach(self, name: str) -> float:
        began = time.monotonic()
        self.client.call("endpoint.detach", {"container_id": name, "ifname": "eth0"})
        return time.monotonic() - began

    def write(self, objects: dict[str, dict[str, Any]]) -> float:
        """Puts objects into the store, all in one transaction; when they were written."""

        async def work(store: Store) -> None:
            await store.transact({}, [Put(key, json.dumps(value).encode()) for key, value in objects.items()])

        async def run() -> None:
            store = SqliteStore(self.store)
            try:
                await work(store)
            finally:
                await store.close()

        asyncio.run(run())
        return time.monotonic()

    def wait(self, condition: Callable[[], object], what: str, show: Callable[[], object]) -> None:
        """Until it holds; ``show`` says what is there instead."""
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, f"{what}: not within a minute; there is: {show()}"
            time.sleep(0.02)

    def wait_for_policies(self, count: int, since: float) -> float:
        """Milliseconds from ``since`` until the agent has enforced so many."""
        while self.client.call("status")["policies"] != count:
            pass
        return (time.monotonic() - since) * 1000


def group(folder: Path) -> Path:
    """The control group that stands for the machine's."""
    return cgroups.hierarchy() / "axoneme" / folder.name


@contextlib.contextmanager
def node(**more: Any) -> Iterator[Node]:
    """``more`` are fields of its configuration; FOLDER in them is its folder."""
    namespaces = Namespaces()
    with tempfile.TemporaryDirectory(prefix=f"test-axo-{os.getpid()}-") as name:
        made: Node | None = None
        try:
            fields = {
                key: value.replace("FOLDER", name) if isinstance(value, str) else value
                for key, value in more.items()
            }
            cgroups.make(group(Path(name)))
            made = Node(Path(name), namespaces, fields)
            yield made
        finally:
            if made:
                made.kill()
            namespaces.close()
            bpffs.unmount(Path(name) / "bpf")
            netns.release(Path(name) / "health")
            cgroups.remove(group(Path(name)))
