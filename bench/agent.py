"""What the agent takes: to start, to plug pods in, to restart over them, to enforce policies.

One agent in a network namespace of its own, over a store in a temporary folder; pods are empty network
namespaces. Run as root: ``python bench/agent.py [pods]``. Prints a table.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests" / "sandbox")]

from two_nodes import Namespaces

from axoneme.datapath import bpffs
from axoneme.net.commands import ip
from axoneme.rpc import Client, RpcError
from axoneme.sources.sqlite import SqliteStore
from axoneme.sources.store import Put, Store

POLICIES = 1000
SUBJECTS = 20


class Node:
    """A node with an agent that can be killed and started again."""

    def __init__(self, folder: Path, namespaces: Namespaces) -> None:
        self.folder, self.namespaces = folder, namespaces
        self.namespace = namespaces.add("node")
        ip(
            ["link add eth0 type veth peer name beyond", "link set beyond up", "link set eth0 up", "addr add 172.31.0.1/24 dev eth0",
             "addr add fd00:a0::1/64 dev eth0 nodad"],
            self.namespace,
        )  # fmt: skip
        self.store = folder / "store.db"
        config = {
            "node": "node1",
            "directory": str(folder),
            "store": {"path": str(self.store)},
            "cluster_pool": [
                {"cidr": "10.244.0.0/16", "node_prefix_length": 24},
                {"cidr": "fd00:10:244::/56", "node_prefix_length": 64},
            ],
        }
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

    def wait_for_policies(self, count: int, since: float) -> float:
        """Milliseconds from ``since`` until the agent has enforced so many."""
        while self.client.call("status")["policies"] != count:
            pass
        return (time.monotonic() - since) * 1000


def pod(name: str, app: str) -> dict[str, Any]:
    return {
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": app}},
        "spec": {"containers": []},
    }


def policy(number: int) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": f"policy-{number}", "namespace": "default"},
        "spec": {
            "podSelector": {"matchLabels": {"app": f"app-{number % SUBJECTS}"}},
            "ingress": [
                {
                    "from": [{"podSelector": {"matchLabels": {"app": f"app-{number % 7}"}}}],
                    "ports": [{"port": 1000 + number}],
                }
            ],
        },
    }


def policy_key(number: int) -> str:
    return f"objects/NetworkPolicy/default/policy-{number}"


@contextlib.contextmanager
def node() -> Iterator[Node]:
    namespaces = Namespaces()
    with tempfile.TemporaryDirectory(prefix="bench-axo-") as name:
        made: Node | None = None
        try:
            made = Node(Path(name), namespaces)
            yield made
        finally:
            if made:
                made.kill()
            namespaces.close()
            bpffs.unmount(Path(name) / "bpf")


def row(what: str, value: str, budget: str) -> None:
    print(f"| {what} | {value} | {budget} |", flush=True)


def milliseconds(times: list[float]) -> str:
    ordered = sorted(each * 1000 for each in times)
    return (
        f"{statistics.median(ordered):.1f} ms p50, {ordered[-1]:.1f} ms at most, first {times[0] * 1000:.1f}"
    )


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    print("| what | measured | budget |")
    print("|---|---|---|")
    with node() as agent:
        seconds, cpu = agent.start()
        row("agent start to ready, empty node", f"{seconds:.2f} s, {cpu:.2f} s of CPU", "≤ 1 s")
        names = [f"pod-{number}" for number in range(count + 18)]
        agent.write(
            {f"objects/Pod/default/{name}": pod(name, f"app-{n % SUBJECTS}") for n, name in enumerate(names)}
        )
        places = {name: agent.namespaces.add(name) for name in names}
        times = [agent.attach(name, places[name]) for name in names[:count]]
        row(
            f"attach, the agent's part, pods 1 to {count}",
            milliseconds(times),
            "≤ 15 ms p50, the first included",
        )
        with ThreadPoolExecutor(18) as pool:
            began = time.monotonic()
            list(pool.map(lambda name: agent.attach(name, places[name]), names[count:]))
            row("18 pods at once", f"{time.monotonic() - began:.2f} s", "≤ 0.5 s")
        row(f"memory of the agent, {count + 18} pods", f"{agent.memory():.0f} MiB (PSS)", "part of ≤ 110 MiB")
        agent.kill()
        seconds, cpu = agent.start()
        row(f"restart with {count + 18} pods, until ready", f"{seconds:.2f} s, {cpu:.2f} s of CPU",
            "≤ 2 s, ≤ 1 s of CPU (77 pods)")  # fmt: skip
        before = agent.cpu()
        since = agent.write({policy_key(n): policy(n) for n in range(POLICIES)})
        value = agent.wait_for_policies(POLICIES, since)
        row(f"{POLICIES} policies at once, {SUBJECTS} kinds of pods, enforced",
            f"{value / 1000:.2f} s, {agent.cpu() - before:.2f} s of CPU", "≤ 1 s, ≤ 1 s of CPU")  # fmt: skip
        more = []
        for number in range(POLICIES, POLICIES + 20):
            since = agent.write({policy_key(number): policy(number)})
            more.append(agent.wait_for_policies(number + 1, since) / 1000)
        row(f"one policy more, {POLICIES} loaded, enforced", milliseconds(more), "≤ 5 ms")
        times = [agent.detach(name) for name in names]
        row("detach, the agent's part", milliseconds(times), "≤ 30 ms")


if __name__ == "__main__":
    main()
