"""What the agent takes: to start, to plug pods in, to restart over them, to enforce policies.

One agent in a network namespace of its own, over a store in a temporary folder; pods are empty network
namespaces. Run as root: ``python bench/agent.py [pods]``. Prints a table.
"""

from __future__ import annotations

import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests" / "sandbox")]

from one_node import node

POLICIES = 1000
SUBJECTS = 20


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
