"""One real agent in a cluster that a driver makes up: 1,000 nodes, 50,000 pods, 2,000 identities, 1,000 policies.

Fills the shared state, starts the agent, then changes things at a steady pace and looks at what each kind of
change costs: the agent's CPU time, its writes to kernel tables, and the time until it has taken the change in.
Run as root: ``python bench/scale.py [seconds of churn]``. Prints a table.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent)]

from agent import pod, row
from one_node import Node, node

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
from axoneme.sources.sqlite import SqliteStore
from axoneme.sources.store import Delete, Put

NODES, PODS_A_NODE, IDENTITIES, POLICIES, CIDRS = 1000, 50, 2000, 1000, 10_000
APPS = 200
LOCAL = 20

Operation = Put | Delete


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
    first = number * (CIDRS // POLICIES)
    prefixes = [f"20.{n // 250}.{n % 250}.0/24" for n in range(first, first + CIDRS // POLICIES)]
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


def fill(agent: Node) -> None:
    operations: list[Operation] = [remote_node(host) for host in range(NODES)]
    operations += [identity(number) for number in range(IDENTITIES)]
    operations += [policy(number) for number in range(POLICIES)]
    operations += [
        remote_pod(host, number, (host * PODS_A_NODE + number) % IDENTITIES)
        for host in range(NODES)
        for number in range(PODS_A_NODE)
    ]
    names = [f"local-{number}" for number in range(LOCAL)]
    operations += [
        Put(f"objects/Pod/default/{name}", json.dumps(pod(name, f"app-{n % APPS}")).encode())
        for n, name in enumerate(names)
    ]
    asyncio.run(write(agent.store, operations))


def settled(agent: Node) -> dict[str, Any]:
    """The agent's status once it has nothing to do any more."""
    before: dict[str, Any] = {}
    while True:
        used = agent.cpu()
        time.sleep(0.3)
        now: dict[str, Any] = agent.client.call("status")
        if agent.cpu() - used < 0.02 and now["writes"] == before.get("writes"):
            return now
        before = now


def churn(
    agent: Node, what: str, rate: float, seconds: float, change: Callable[[int], Sequence[Operation]]
) -> None:
    """``change`` at ``rate`` a second; a row with what each change has cost."""
    before, cpu = settled(agent)["writes"], agent.cpu()
    count = max(10, round(rate * seconds))
    began = time.monotonic()

    async def run() -> None:
        store = SqliteStore(agent.store)
        try:
            for number in range(count):
                await store.transact({}, change(number))
                await asyncio.sleep(max(0.0, began + (number + 1) / rate - time.monotonic()))
        finally:
            await store.close()

    asyncio.run(run())
    elapsed = time.monotonic() - began
    used = agent.cpu() - cpu
    writes = settled(agent)["writes"]
    tables = ", ".join(f"{(writes[t] - before[t]) / count:.1f} {t}" for t in writes)
    row(
        f"{what}, {rate:g} a second",
        f"{used / elapsed:.1%} of a core, {used / count * 1000:.2f} ms each",
        tables,
    )


def latency(agent: Node) -> None:
    """From a policy's write to the agent's having enforced it."""
    times = []
    count = agent.client.call("status")["policies"]
    for number in range(POLICIES + 100, POLICIES + 120):
        asyncio.run(write(agent.store, [policy(number)]))
        times.append(agent.wait_for_policies(count + 1, time.monotonic()))
        count += 1
    row(
        "one policy more, with ten prefixes",
        f"{statistics.median(times):.1f} ms p50, {max(times):.1f} at most",
        "",
    )


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10
    print("| what | measured | kernel writes a change |")
    print("|---|---|---|")
    with node() as agent:
        began = time.monotonic()
        fill(agent)
        filled = time.monotonic() - began
        started, cpu = agent.start()
        row(
            "start over the filled state",
            f"{started:.1f} s, {cpu:.1f} s of CPU (filling it took {filled:.1f} s)",
            "",
        )
        times = []
        for number in range(LOCAL):
            name = f"local-{number}"
            times.append(agent.attach(name, agent.namespaces.add(name)) * 1000)
        row(f"attach {LOCAL} pods", f"{statistics.median(times):.1f} ms p50, {max(times):.1f} at most", "")
        status = settled(agent)
        row("entries", f"{status['policy_entries']:,} policies, {status['addresses']:,} addresses", "")
        row("memory of the agent", f"{agent.memory():.0f} MiB (PSS)", "")

        def pods(number: int) -> list[Operation]:
            return [remote_pod(number % NODES, PODS_A_NODE + number // NODES, number % IDENTITIES)]

        churn(agent, "a pod of a known identity comes", 50, seconds, pods)
        churn(agent, "and goes", 50, seconds, lambda n: [Delete(p.key) for p in pods(n)])
        churn(agent, "a policy comes", 5, seconds, lambda n: [policy(POLICIES + n)])
        churn(agent, "and goes", 5, seconds, lambda n: [Delete(policy(POLICIES + n).key)])
        churn(
            agent,
            "a new identity with a pod comes",
            1,
            seconds,
            lambda n: [identity(IDENTITIES + n), remote_pod(n, PODS_A_NODE + 1, IDENTITIES + n)],
        )
        latency(agent)
        row(
            "memory of the agent after all that",
            f"{agent.memory():.0f} MiB (PSS)",
            "≤ 200 MiB for all processes",
        )


if __name__ == "__main__":
    main()
