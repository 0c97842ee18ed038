"""Names asked for through the DNS proxy against the same without it, in one run and in turn: one question at a
time (how long does an answer take?), and 64 (how many a second?); pods on one node, and on two through the
overlay. With names that are of no further interest, and with names that a toFQDNs rule selects, of which an
agent is told first (one that writes nothing). Then, in a sandbox with policies, by the whole agent: each name is
new, and has an address of its own, which is in the kernel before the answer is let out.

The name server and its clients are bench/dns_load.c. Run as root: `.venv/bin/python bench/dns_proxy.py [rounds]`.
"""

from __future__ import annotations

import json
import os
import pwd
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "tests" / "sandbox")]

import numpy as np
from network import ours, run_in, server
from runtime import Live, live_as
from two_nodes import Cluster

from axoneme.model.l7 import L7, L7Kind, NameMatch
from axoneme.proxy.following import read_report, write_plan
from axoneme.proxy.names import SOCKET, Names
from axoneme.proxy.plan import Listener, Plan, directory
from axoneme.sandbox.plan import IPV4_WORLD

SECONDS = 3
WINDOW = 64
#: Different names; in the third case each is told of once, and then while its answer is new.
NAMES = 1000
CLIENT, EGRESS, PORT = 300, 1, 10000
EVERY = NameMatch("**.bench.test", pattern=True)

PLAIN, PROXY, HELD = "no proxy", "proxy", "proxy, names of interest"

MANIFESTS = f"""
apiVersion: v1
kind: Pod
metadata: {{name: free}}
spec: {{containers: [{{name: c, image: i}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: bound, labels: {{app: bound}}}}
spec: {{containers: [{{name: c, image: i}}]}}
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {{name: names}}
spec:
  endpointSelector: {{matchLabels: {{app: bound}}}}
  egress:
    - toCIDR: [{IPV4_WORLD[2]}/32]
      toPorts: [{{ports: [{{port: "5300", protocol: UDP}}], rules: {{dns: [{{matchPattern: "*"}}]}}}}]
    - toFQDNs: [{{matchPattern: "*.bench.test"}}]
"""

#: Says yes to all that it is told.
AGENT = """
import asyncio, json, sys

async def serve(reader, writer):
    while line := await reader.readline():
        writer.write(json.dumps({"jsonrpc": "2.0", "id": json.loads(line)["id"], "result": {}}).encode() + b"\\n")

async def main():
    async with await asyncio.start_unix_server(serve, sys.argv[1], limit=1 << 24) as server:
        await server.serve_forever()

asyncio.run(main())
"""


class Proxy:
    """The process on the first node, and an agent for it."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self._cluster = cluster
        self._revision = 0
        config = folder / "agent.yaml"
        config.write_text(json.dumps({"node": "node1", "directory": str(folder)}))
        self._folder = directory(folder / "state", "dns")
        self._folder.mkdir(parents=True)
        self.plan(Names())
        namespace = cluster.nodes[0].namespace
        self._process = subprocess.Popen(
            run_in(namespace, sys.executable, "-m", "axoneme.proxy", "dns", str(config)),
            stderr=subprocess.DEVNULL,
        )
        self._agent = subprocess.Popen([sys.executable, "-c", AGENT, str(self._folder / SOCKET)])
        while not (self._folder / SOCKET).exists():
            time.sleep(0.01)
        os.chown(self._folder / SOCKET, pwd.getpwnam("nobody").pw_uid, -1)

    def plan(self, names: Names) -> None:
        self._revision += 1
        listener = Listener(PORT, "egress", L7(L7Kind.DNS, dns=(EVERY,)))
        write_plan(self._folder, Plan("node1", self._revision, (4, 6), "/nowhere", (listener,), names=names))

    def use(self, how: str) -> None:
        self.plan(Names((EVERY,)) if how == HELD else Names())
        while (report := read_report(self._folder)) is None or report.revision != self._revision:
            time.sleep(0.01)
        self._steer(0 if how == PLAIN else PORT)

    def _steer(self, port: int) -> None:
        """All that the client calls goes to this port of the node; 0: to nobody."""
        plane = self._cluster.nodes[0].plane
        key, value = np.zeros((), plane.policies.key), np.zeros((), plane.policies.value)
        key["prefix_length"], key["subject"], key["direction"] = 72, CLIENT, EGRESS
        value["verdict"], value["proxy_port"] = 1, port
        plane.policies.put(key, value)
        plane.raise_subjects([CLIENT])

    def memory(self) -> float:
        """PSS in MiB."""
        lines = Path(f"/proc/{self._process.pid}/smaps_rollup").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) / 1024

    def close(self) -> None:
        for each in (self._process, self._agent):
            each.kill()
            each.wait()


@contextmanager
def tool() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        made = f"{folder}/dns"
        subprocess.run(["gcc", "-O2", "-o", made, str(ROOT / "bench" / "dns_load.c")], check=True)
        yield made


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    print("| pods | | answers/s, 64 at a time | of no proxy's | an answer takes, µs: p50 · p99 | added |")
    print("|---|---|---|---|---|---|")
    with tool() as dns, ours(overlay=True) as (pods, cluster), tempfile.TemporaryDirectory() as folder:
        proxy = Proxy(cluster, Path(folder))
        try:
            for where, name in (("one node", "near"), ("two nodes", "far")):
                compare(where, dns, pods["client"][0], *pods[name], proxy, rounds)
            print(f"\nThe proxy's memory at the end: {proxy.memory():.0f} MiB (PSS).")
        finally:
            proxy.close()
        whole(dns)


def compare(
    where: str, dns: str, client: Path, target: Path, address: str, proxy: Proxy, rounds: int
) -> None:
    many: dict[str, list[float]] = {PLAIN: [], PROXY: [], HELD: []}
    single: dict[str, list[tuple[float, float]]] = {each: [] for each in many}
    lost = 0
    with server(target, dns, "server", address, "53"):
        for _ in range(rounds):
            for how, rates in many.items():
                proxy.use(how)
                for window in (1, WINDOW):
                    argv = (dns, "ask", address, "53", str(SECONDS), str(window), str(NAMES))
                    done = subprocess.run(run_in(client, *argv), check=True, capture_output=True, text=True)
                    rate, half, most, missing = map(float, done.stdout.split())
                    lost += int(missing)
                    if window == 1:
                        single[how].append((half, most))
                    else:
                        rates.append(rate)
    base = [statistics.median(each) for each in zip(*single[PLAIN], strict=True)]
    for how, rates in many.items():
        ratio = statistics.median(a / b for a, b in zip(rates, many[PLAIN], strict=True))
        half, most = (statistics.median(each) for each in zip(*single[how], strict=True))
        added = "" if how == PLAIN else f"{half - base[0]:.0f} · {most - base[1]:.0f}"
        print(
            f"| {where} | {how} | {statistics.median(rates):,.0f} | {ratio:.2f} | {half:.0f} · {most:.0f} | {added} |"
        )
    if lost:
        print(f"\n{lost} answers did not come within a second.\n")


def whole(dns: str) -> None:
    """From a pod without policies, and from one whose names are learnt by the agent."""
    how: dict[str, list[float]] = {}
    with live_as(Live, "dns", MANIFESTS, nodes=1) as runtime:
        runtime.policies_loaded(1)
        with server(runtime.outside, dns, "server", IPV4_WORLD[2], "5300"):
            for pod in ("free", "bound"):
                argv = (dns, "ask", IPV4_WORLD[2], "5300", str(SECONDS), "1", "131072")
                done = subprocess.run(
                    run_in(runtime.namespace(pod), *argv), check=True, capture_output=True, text=True
                )
                how[pod] = list(map(float, done.stdout.split()))
        learnt = len(runtime.agent("node1").call("names.list"))
    (_, half, most, _), (rate, half_bound, most_bound, lost) = how["free"], how["bound"]
    print(
        f"\nBy the whole agent, each name new: {rate:,.0f} answers/s one at a time; an answer takes "
        f"{half_bound:.0f} · {most_bound:.0f} µs (p50 · p99), {half_bound - half:.0f} · {most_bound - most:.0f} µs more than "
        f"without a policy. {learnt:,} addresses were in the kernel at the end; {lost:.0f} answers did not come "
        "within a second."
    )


if __name__ == "__main__":
    main()
