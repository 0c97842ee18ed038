"""Services by the whole agent: from Service and EndpointSlice objects in the shared state to the kernel's tables.

One agent in a network namespace of its own, over a store in a temporary folder. Objects are written into an
empty store while it runs; then one backend after another goes and comes; then the agent is started over the
tables that it left. "Programmed" is seen in the kernel: every frontend, every slot. Meanwhile somebody asks
the agent for its status all the time, as one whose pod waits for it: the longest answer is how long the
agent listens to nobody. Run as root: ``python bench/services_agent.py [services...]``. Prints a table.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "tests" / "faults"), str(ROOT / "tests" / "sandbox")]

from one_node import Node, node
from scale import write

from axoneme.datapath.maps import Table
from axoneme.datapath.schema import Schema
from axoneme.services.arrays import key_array
from axoneme.services.rows import place
from axoneme.sources.sqlite import SqliteStore
from axoneme.sources.store import Put

COUNTS = (1000, 10_000)
BACKENDS, PORT, TARGET = 10, 80, 8080
#: Changes of one slice.
CHANGES = 40
#: Seconds.
LONGEST = 120.0
TABLES = ("frontends", "services", "slots", "backends", "source_ranges", "maglev")
FIRST_SERVICE, FIRST_POD = IPv4Address("10.96.0.1"), IPv4Address("10.128.0.1")
BUDGETS = {
    "from nothing: s": {1000: "≤ 0.3", 10_000: "≤ 2"},
    "memory: MiB (PSS)": {10_000: "≤ 200, with the flow server"},
}


def metadata(kind: str, name: str, number: int, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "namespace": "default",
        "uid": f"{kind}-0000-4000-8000-{number:012}",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        **more,
    }


def service(number: int, kind: str) -> Put:
    """``kind`` of Service; its annotation chooses Maglev for what callers from outside reach."""
    name, app = f"service-{number}", {"app": f"app-{number}"}
    port: dict[str, Any] = {"name": "http", "port": PORT, "protocol": "TCP", "targetPort": TARGET}
    if kind == "NodePort":
        port["nodePort"] = 30_000 + number
    address = str(FIRST_SERVICE + number)
    spec = {
        "type": kind,
        "selector": app,
        "ports": [port],
        "clusterIP": address,
        "clusterIPs": [address],
        "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack",
        "sessionAffinity": "None",
        "internalTrafficPolicy": "Cluster",
    }
    about = metadata("Service", name, number, labels=app)
    document = {"apiVersion": "v1", "kind": "Service", "metadata": about, "spec": spec}
    return Put(f"objects/Service/default/{name}", json.dumps(document).encode())


def slice_(number: int, backends: int) -> Put:
    name, owner = f"service-{number}-x7k2p", f"service-{number}"
    endpoints = [
        {
            "addresses": [str(FIRST_POD + number * BACKENDS + n)],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "nodeName": f"far-{n}",
            "targetRef": {"kind": "Pod", "namespace": "default", "name": f"app-{number}-6f9c-{n}"},
        }
        for n in range(backends)
    ]
    labels = {"kubernetes.io/service-name": owner, "app": f"app-{number}"}
    document = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata("EndpointSlice", name, number, labels=labels),
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": TARGET, "protocol": "TCP"}],
        "endpoints": endpoints,
    }
    return Put(f"objects/EndpointSlice/default/{name}", json.dumps(document).encode())


class Kernel:
    """The agent's service tables, as the datapath reads them."""

    def __init__(self, agent: Node) -> None:
        self._schema, self._folder = Schema.load(), agent.folder / "bpf" / "maps"

    def _table(self, name: str, key: str, value: str) -> Table:
        """Anew each time: a table that grows is another."""
        return Table.pinned(self._folder / name, self._schema.struct(key), self._schema.struct(value))

    def backends(self, numbers: range) -> list[int]:
        """How many each of these services has; 0 for one that is not there."""
        with self._table("frontends", "frontend_key", "frontend") as table:
            places = [place(FIRST_SERVICE + number, PORT, 6) for number in numbers]
            found, frontends = table.read(key_array("frontends", places, table.key))
        counts = np.zeros(len(numbers), np.int64)
        path = self._folder / "services"
        with Table.pinned(path, np.dtype("<u4"), self._schema.struct("service")) as table:
            _, services = table.read(frontends["service"][found])
        counts[found] = services["backends"]
        return counts.tolist()


@contextmanager
def asked(agent: Node, pause: float = 0.005) -> Iterator[list[float]]:
    """Seconds that each answer took, of one who asks all the time."""
    took: list[float] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            began = time.monotonic()
            agent.client.call("endpoint.list")
            took.append(time.monotonic() - began)
            done.wait(pause)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield took
    finally:
        done.set()
        thread.join()


def until(kernel: Kernel, numbers: range, backends: int, pause: float) -> None:
    deadline = time.monotonic() + LONGEST
    while any(count != backends for count in kernel.backends(numbers)):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(numbers)} services do not all have {backends} backends")
        time.sleep(pause)


def written(agent: Node) -> int:
    writes = agent.client.call("status")["writes"]
    return sum(writes.get(table, 0) for table in TABLES)


async def changes(agent: Node, kernel: Kernel, count: int) -> list[float]:
    """Milliseconds for each slice that changes, until the kernel has it."""
    store = SqliteStore(agent.store)
    delays = []
    try:
        for step in range(CHANGES):
            number, backends = count // 2 + step // 2, BACKENDS - 1 + step % 2
            await store.transact({}, [slice_(number, backends)])
            began = time.monotonic()
            until(kernel, range(number, number + 1), backends, 0.0005)
            delays.append((time.monotonic() - began) * 1000)
            await asyncio.sleep(0.05)
    finally:
        await store.close()
    return delays


def measure(count: int, kind: str = "ClusterIP", **more: Any) -> dict[str, str]:
    figures: dict[str, str] = {}
    numbers = range(count)
    objects = [*(service(n, kind) for n in numbers), *(slice_(n, BACKENDS) for n in numbers)]
    with node(**more) as agent:
        agent.start()
        kernel = Kernel(agent)
        with asked(agent) as answers:
            cpu, began = agent.cpu(), time.monotonic()
            asyncio.run(write(agent.store, objects))
            stored = time.monotonic() - began
            until(kernel, numbers, BACKENDS, 0.02)
            took = time.monotonic() - began
        figures["from nothing: s"] = f"{took:.2f}"
        figures["of these, until all is in the store: s"] = f"{stored:.2f}"
        figures["from nothing: s of CPU"] = f"{agent.cpu() - cpu:.2f}"
        figures["from nothing: writes"] = f"{written(agent):,}"
        figures["meanwhile, a question to the agent: ms, p50"] = f"{statistics.median(answers) * 1e3:.1f}"
        figures["meanwhile, a question to the agent: ms, at most"] = f"{max(answers) * 1e3:.0f}"
        time.sleep(1)
        before, cpu = written(agent), agent.cpu()
        delays = asyncio.run(changes(agent, kernel, count))
        figures["one backend more or less: ms, p50"] = f"{statistics.median(delays):.1f}"
        figures["one backend more or less: ms, at most"] = f"{max(delays):.1f}"
        figures["one backend more or less: ms of CPU"] = f"{(agent.cpu() - cpu) / CHANGES * 1e3:.1f}"
        figures["one backend more or less: writes"] = f"{(written(agent) - before) / CHANGES:.1f}"
        figures["memory: MiB (PSS)"] = f"{agent.memory():.0f}"
        agent.kill()
        seconds, cpu = agent.start()
        figures["restart: s"], figures["restart: s of CPU"] = f"{seconds:.2f}", f"{cpu:.2f}"
        figures["restart: writes"] = f"{written(agent):,}"
        figures["memory after a restart: MiB (PSS)"] = f"{agent.memory():.0f}"
    return figures


def main() -> None:
    counts = [int(each) for each in sys.argv[1:]] or list(COUNTS)
    columns = {f"{count:,}": measure(count) for count in counts}
    maglev = {"algorithm": "maglev"}
    columns["1,000 NodePorts with Maglev"] = measure(1000, "NodePort", load_balancing=maglev)
    print("| services of ten backends | " + " | ".join(columns) + " | budget |")
    print("|---|" + "---|" * (len(columns) + 1))
    for what in next(iter(columns.values())):
        budget = ", ".join(f"{count:,}: {text}" for count, text in BUDGETS.get(what, {}).items())
        print(f"| {what} | " + " | ".join(each[what] for each in columns.values()) + f" | {budget} |")


if __name__ == "__main__":
    main()
