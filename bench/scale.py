"""One real agent in a cluster that a driver makes up: 1,000 nodes, 50,000 pods, 2,000 identities, 1,000 policies.

Fills the shared state, starts the agent and its flow server, sends traffic between a few real pods, and then
changes things at a steady pace: each kind of change alone, then all at once. It looks at what each change
costs (CPU time, writes to kernel tables) and at the time from its being written to the shared state until it
is in the kernel. All of it once more in a cluster of a tenth of the size: what is not proportional to the
change shows in the ratio of the two.

Run as root: ``python bench/scale.py [seconds for each kind of change]``. Prints a table.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "tests" / "faults"), str(ROOT / "tests" / "sandbox")]

from agent import pod
from checkers import Place, Report, between, compile_checker, under_traffic
from one_node import Node, node

from axoneme.datapath.maps import Table
from axoneme.datapath.schema import Schema
from axoneme.identity.addressbook import UNMANAGED
from axoneme.identity.arrays import key_array
from axoneme.identity.prefixes import parse_address
from axoneme.model.labels import Label, Labels
from axoneme.model.state import (
    EndpointState,
    IdentityState,
    NodeState,
    encode,
    endpoint_key,
    identity_key,
    node_key,
)
from axoneme.rpc import Client, RpcError
from axoneme.sources.sqlite import SqliteStore
from axoneme.sources.store import Delete, Put

PODS_A_NODE, APPS, LOCAL, PREFIXES = 50, 200, 20, 10
#: Pods that no policy selects, between which traffic runs.
SENDERS = 4
#: The number of the first policy that comes later: it selects pods of this node, as the others do.
MORE = 2000
#: Of each kind of change, so many at least.
FEWEST = 10

Operation = Put | Delete


@dataclass(frozen=True, slots=True)
class Size:
    nodes: int
    identities: int
    policies: int

    def __str__(self) -> str:
        return (
            f"{self.nodes:,} nodes, {self.nodes * PODS_A_NODE:,} pods, {self.identities:,} identities, "
            f"{self.policies:,} policies, {self.policies * PREFIXES:,} CIDRs"
        )


SIZES = (Size(1000, 2000, 1000), Size(100, 200, 100))


@dataclass(slots=True)
class Figures:
    """Numbers by what they are of; those of both sizes stand side by side in the end."""

    numbers: dict[str, float] = field(default_factory=dict)
    writes: dict[str, str] = field(default_factory=dict)


def labels(identity: int) -> Labels:
    own = {"app": f"app-{identity % APPS}", "version": f"v{identity // APPS}"}
    return Labels(
        [
            *(Label("k8s", key, value) for key, value in own.items()),
            Label("k8s", "io.kubernetes.pod.namespace", "default"),
            Label("k8s", "io.cilium.k8s.policy.cluster", "default"),
        ]
    )


def address(host: int, pod: int) -> str:
    return f"10.{100 + host // 256}.{host % 256}.{pod + 2}"


def remote_node(host: int) -> Put:
    underlay = f"172.30.{host // 250}.{host % 250 + 1}"
    return Put(
        node_key(f"far-{host}"),
        encode(
            NodeState(f"far-{host}", [underlay], [underlay], [f"10.{100 + host // 256}.{host % 256}.0/24"])
        ),
    )


def remote_pod(host: int, number: int, identity: int) -> Put:
    state = EndpointState(
        id=number + 1,
        node=f"far-{host}",
        identity=1000 + identity,
        addresses=[address(host, number)],
        namespace="default",
        pod=f"pod-{host}-{number}",
        workload_kind="Deployment",
        workload=f"app-{identity % APPS}",
        labels=labels(identity).texts(),
    )
    return Put(endpoint_key(f"far-{host}", number + 1), encode(state))


def identity(number: int) -> Put:
    return Put(identity_key(1000 + number), encode(IdentityState(labels(number).texts())))


def policy(number: int) -> Put:
    """Each names some peers by label and ten prefixes outside."""
    first = number * PREFIXES
    prefixes = [f"20.{n // 250}.{n % 250}.0/24" for n in range(first, first + PREFIXES)]
    document = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": f"policy-{number}", "namespace": "default"},
        "spec": {
            "podSelector": {"matchLabels": {"app": f"app-{number % APPS}"}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                {
                    "from": [{"podSelector": {"matchLabels": {"app": f"app-{number % 7}"}}}],
                    "ports": [{"port": 1000 + number}],
                }
            ],
            "egress": [{"to": [{"ipBlock": {"cidr": prefix}} for prefix in prefixes]}],
        },
    }
    return Put(f"objects/NetworkPolicy/default/policy-{number}", json.dumps(document).encode())


async def write(path: Path, operations: Sequence[Operation]) -> None:
    store = SqliteStore(path)
    try:
        for first in range(0, len(operations), 5000):
            await store.transact({}, operations[first : first + 5000])
    finally:
        await store.close()


def fill(agent: Node, size: Size) -> None:
    operations: list[Operation] = [remote_node(host) for host in range(size.nodes)]
    operations += [identity(number) for number in range(size.identities)]
    operations += [policy(number) for number in range(size.policies)]
    operations += [
        remote_pod(host, number, (host * PODS_A_NODE + number) % size.identities)
        for host in range(size.nodes)
        for number in range(PODS_A_NODE)
    ]
    apps = {f"local-{number}": f"app-{number % APPS}" for number in range(LOCAL)}
    apps |= {f"sender-{number}": "sender" for number in range(SENDERS)}
    operations += [
        Put(f"objects/Pod/default/{name}", json.dumps(pod(name, app)).encode()) for name, app in apps.items()
    ]
    asyncio.run(write(agent.store, operations))


# ---- looking ---------------------------------------------------------------------------------------


class Kernel:
    """The agent's address table, as the datapath reads it."""

    def __init__(self, agent: Node) -> None:
        schema = Schema.load()
        path = agent.folder / "bpf" / "maps" / "addresses"
        self._table = Table.pinned(path, schema.struct("prefix_key"), schema.struct("address"))

    def has(self, address: str) -> bool:
        """Whether it is a pod's: the longest match for any other address of a node's range is the range."""
        found = self._table.get(key_array([parse_address(address)], self._table.key)[0])
        return found is not None and int(found["identity"]) != UNMANAGED


class FlowServer:
    def __init__(self, agent: Node) -> None:
        self._log = (agent.folder / "flows.log").open("ab")
        self._process = subprocess.Popen(
            ["nsenter", f"--net={agent.namespace}", "--", sys.executable, "-m", "axoneme.cli", "flows", "serve",
             "--config", str(agent.folder / "agent.yaml")],
            stderr=self._log,
        )  # fmt: skip
        client = Client(agent.folder / "flows.sock")
        while True:
            try:
                if client.call("status")["names"] > LOCAL:
                    return
            except RpcError:
                pass
            assert self._process.poll() is None, "the flow server has ended"
            time.sleep(0.02)

    def memory(self) -> float:
        rollup = Path(f"/proc/{self._process.pid}/smaps_rollup").read_text()
        return int(rollup.split("Pss:")[1].split()[0]) / 1024

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()


def settled(agent: Node) -> dict[str, int]:
    """The agent's writes once it has nothing to do any more."""
    before: dict[str, int] = {}
    while True:
        used = agent.cpu()
        time.sleep(0.3)
        now: dict[str, int] = agent.client.call("status")["writes"]
        if agent.cpu() - used < 0.03 and now == before:
            return now
        before = now


# ---- changing --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of change, at ``rate`` a second. ``there`` says whether the n-th is in the kernel."""

    name: str
    rate: float
    change: Callable[[int], Sequence[Operation]]
    there: Callable[[int], bool]
    #: Where its numbers begin the second time, if what came the first time is still there.
    second: int = 0


def kinds(agent: Node, kernel: Kernel, size: Size) -> tuple[Kind, ...]:
    def pods(number: int) -> list[Put]:
        return [remote_pod(number % size.nodes, PODS_A_NODE + number // size.nodes, number % size.identities)]

    def pod_address(number: int) -> str:
        return address(number % size.nodes, PODS_A_NODE + number // size.nodes)

    def policies() -> int:
        count: int = agent.client.call("status")["policies"]
        return count

    # A change takes effect in the same step of the agent's loop in which it is counted.
    return (
        Kind("a pod of a known identity comes", 50, pods, lambda n: kernel.has(pod_address(n))),
        Kind("and goes", 50, lambda n: [Delete(p.key) for p in pods(n)], lambda n: not kernel.has(pod_address(n))),
        Kind("a policy with ten prefixes comes", 5, lambda n: [policy(MORE + n)], lambda n: policies() > size.policies + n),
        Kind("and goes again", 5, lambda n: [Delete(policy(MORE + n).key)], lambda n: policies() == size.policies),
        Kind(
            "a new identity with a pod comes", 1,
            lambda n: [identity(size.identities + n), remote_pod(n % size.nodes, PODS_A_NODE + 9 + n // size.nodes, size.identities + n)],
            lambda n: kernel.has(address(n % size.nodes, PODS_A_NODE + 9 + n // size.nodes)), size.nodes,
        ),
    )  # fmt: skip


async def steadily(agent: Node, kind: Kind, numbers: range, delays: list[float]) -> None:
    """Changes at their pace; milliseconds until each was in the kernel."""
    store = SqliteStore(agent.store)
    began = time.monotonic()
    try:
        for step, number in enumerate(numbers, 1):
            await store.transact({}, kind.change(number))
            written = time.monotonic()
            if kind.name != "and goes again" or step == len(numbers):
                while not kind.there(number) and time.monotonic() < written + 5:
                    await asyncio.sleep(0.0005)
                delays.append((time.monotonic() - written) * 1000)
            await asyncio.sleep(max(0.0, began + step / kind.rate - time.monotonic()))
    finally:
        await store.close()


def latency(figures: Figures, name: str, delays: list[float]) -> None:
    ordered = sorted(delays)
    figures.numbers[f"{name}: ms to the kernel, p50"] = statistics.median(ordered)
    if len(ordered) > 2:
        figures.numbers[f"{name}: ms to the kernel, p99"] = ordered[int(0.99 * (len(ordered) - 1))]
        figures.numbers[f"{name}: ms to the kernel, at most"] = ordered[-1]


def alone(agent: Node, kind: Kind, seconds: float, figures: Figures) -> None:
    before, cpu = settled(agent), agent.cpu()
    count = max(FEWEST, round(kind.rate * seconds))
    delays: list[float] = []
    asyncio.run(steadily(agent, kind, range(count), delays))
    used = agent.cpu() - cpu
    after = settled(agent)
    figures.numbers[f"{kind.name}: ms of CPU"] = used / count * 1000
    figures.writes[f"{kind.name}: ms of CPU"] = ", ".join(
        f"{(after[t] - before[t]) / count:.1f} {t}" for t in after
    )
    latency(figures, kind.name, delays)


def together(agent: Node, all_kinds: Sequence[Kind], seconds: float, figures: Figures) -> None:
    """Pods, policies and identities come at the same time."""
    coming = [kind for kind in all_kinds if kind.name.endswith("comes")]
    delays: list[list[float]] = [[] for _ in coming]
    cpu, began = agent.cpu(), time.monotonic()

    async def run() -> None:
        async with asyncio.TaskGroup() as tasks:
            for kind, each in zip(coming, delays, strict=True):
                numbers = range(kind.second, kind.second + max(2, round(kind.rate * seconds)))
                tasks.create_task(steadily(agent, kind, numbers, each))

    asyncio.run(run())
    elapsed = time.monotonic() - began
    figures.numbers["all at once: % of a core"] = (agent.cpu() - cpu) / elapsed * 100
    for kind, each in zip(coming, delays, strict=True):
        latency(figures, f"all at once, {kind.name}", each)


# ---- traffic ---------------------------------------------------------------------------------------


@contextmanager
def traffic(agent: Node, folder: Path) -> Iterator[Report]:
    """Streams of all kinds between all senders, every packet counted."""
    places = []
    for number in range(SENDERS):
        name = f"sender-{number}"
        namespace = agent.namespaces.add(name)
        wish = {
            "container_id": name,
            "netns": str(namespace),
            "ifname": "eth0",
            "namespace": "default",
            "pod": name,
        }
        found = agent.client.call("endpoint.attach", wish)
        places.append(Place(name, namespace, tuple(each["address"] for each in found["addresses"])))
    streams = [s for a in places for b in places if a is not b for s in between(a, b)]
    with under_traffic(compile_checker(folder), "churn", places, streams) as report:
        yield report


def measure(size: Size, seconds: float) -> tuple[Figures, Report]:
    figures = Figures()
    numbers = figures.numbers
    with node() as agent, tempfile.TemporaryDirectory() as folder:
        fill(agent, size)
        numbers["start over the filled state: s"], numbers["start: s of CPU"] = agent.start()
        flows = FlowServer(agent)
        try:
            times = []
            for number in range(LOCAL):
                name = f"local-{number}"
                times.append(agent.attach(name, agent.namespaces.add(name)) * 1000)
            numbers[f"attach of {LOCAL} pods: ms, p50"] = statistics.median(times)
            kernel = Kernel(agent)
            with traffic(agent, Path(folder)) as report:
                settled(agent)
                numbers["memory of the agent: MiB (PSS)"] = agent.memory()
                every = kinds(agent, kernel, size)
                for kind in every:
                    alone(agent, kind, seconds, figures)
                together(agent, every, 3 * seconds, figures)
                settled(agent)
                numbers["memory of the agent after all that: MiB (PSS)"] = agent.memory()
                numbers["memory of the flow server: MiB (PSS)"] = flows.memory()
                numbers["memory of both: MiB (PSS), budget 200"] = agent.memory() + flows.memory()
        finally:
            flows.close()
    return figures, report


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10
    (large, lost_of_large), (small, lost_of_small) = (measure(size, seconds) for size in SIZES)
    print("| what | large | a tenth of it | ratio | kernel writes a change |")
    print("|---|---|---|---|---|")
    for name, number in large.numbers.items():
        other = small.numbers[name]
        ratio = f"{number / other:.1f}" if other else ""
        print(f"| {name} | {number:.1f} | {other:.1f} | {ratio} | {large.writes.get(name, '')} |")
    print(f"| packets sent meanwhile | {lost_of_large.sent:,} | {lost_of_small.sent:,} | | |")
    print(f"| of these lost | {lost_of_large.lost} | {lost_of_small.lost} | | |")
    print(f"\nLarge: {SIZES[0]}, {LOCAL + SENDERS} pods on the node.")


if __name__ == "__main__":
    main()
