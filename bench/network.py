"""Pods over our datapath against the same pods over plain veth routing, in one run and in turn.

Round trips, new connections (with flow events written, as always) and one stream: on one node, and between two
nodes by routes and through the overlay (whose baseline is plain routing too). Prints a table of the
median of the rounds, ours, plain, and the ratio round by round. Run as root:
`.venv/bin/python bench/network.py [rounds]`.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests" / "sandbox")]

from two_nodes import WORLD, Cluster, Namespaces

from axoneme.net.commands import ip

SECONDS = 2
PORT = 5001


@contextmanager
def plain() -> Iterator[dict[str, tuple[Path, str]]]:
    """Three pods on two nodes and a world, routed by the kernel alone: name -> namespace and address."""
    namespaces = Namespaces()
    try:
        world = namespaces.add("plain-world")
        ip(
            [
                "link add br0 type bridge",
                "link set br0 up",
                "addr add 172.31.0.254/24 dev br0",
                f"addr add {WORLD[4]}/32 dev lo",
                "route add 10.244.1.0/24 via 172.31.0.1",
            ],
            world,
        )
        pods = {}
        for number in (1, 2):
            node = namespaces.add(f"plain-node{number}")
            ip(
                [
                    f"link add n{number} type veth peer name eth0 netns {node}",
                    f"link set n{number} master br0 up",
                ],
                world,
            )
            ip(
                [
                    "link set eth0 up",
                    f"addr add 172.31.0.{number}/24 dev eth0",
                    "route add default via 172.31.0.254",
                    f"route add 10.244.{3 - number}.0/24 via 172.31.0.{3 - number}",
                ],
                node,
            )
            for name, host in (("client", 10), ("near", 11)) if number == 1 else (("far", 10),):
                pod = namespaces.add(f"plain-{name}")
                address = f"10.244.{number}.{host}"
                ip(
                    [
                        f"link add v{host} type veth peer name eth0 netns {pod}",
                        f"addr add 10.244.{number}.{host + 100}/32 dev v{host}",
                        f"link set v{host} up",
                        f"route add {address} dev v{host}",
                    ],
                    node,
                )
                ip(
                    [
                        f"addr add {address}/32 dev eth0",
                        "link set eth0 up",
                        f"route add 10.244.{number}.{host + 100} dev eth0",
                        f"route add default via 10.244.{number}.{host + 100}",
                    ],
                    pod,
                )
                pods[name] = (pod, address)
        pods["world"] = (world, WORLD[4])
        yield pods
    finally:
        namespaces.close()


@contextmanager
def ours(overlay: bool) -> Iterator[dict[str, tuple[Path, str]]]:
    cluster = Cluster(overlay)
    try:
        cluster.plug(1, "client", 10, 300, app="client")
        cluster.plug(1, "near", 11, 301, app="server")
        cluster.plug(2, "far", 10, 301, app="server")
        pods = {name: (pod.namespace, pod.addresses[4]) for name, pod in cluster.pods.items()}
        yield {**pods, "world": (cluster.world, WORLD[4])}
    finally:
        cluster.close()


def run_in(namespace: Path, *argv: str) -> list[str]:
    return ["nsenter", f"--net={namespace}", "--", *argv]


@contextmanager
def server(namespace: Path, *argv: str) -> Iterator[None]:
    process = subprocess.Popen(run_in(namespace, *argv), stdout=subprocess.DEVNULL)
    try:
        time.sleep(0.3)
        yield
    finally:
        process.terminate()
        process.wait()


def load(tool: Path, mode: str) -> Callable[[Path, Path, str], float]:
    def measure(client: Path, target: Path, address: str) -> float:
        with server(target, str(tool), "server", str(PORT)):
            argv = run_in(client, str(tool), mode, address, str(PORT), str(SECONDS))
            return float(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)

    return measure


def stream(client: Path, target: Path, address: str) -> float:
    """Gbit/s."""
    with server(target, "iperf3", "-s", "-1"):
        argv = run_in(client, "iperf3", "-J", "-t", str(SECONDS), "-c", address)
        found = json.loads(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)
    return float(found["end"]["sum_received"]["bits_per_second"]) / 1e9


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as folder:
        tool = Path(folder) / "load"
        subprocess.run(["clang-19", "-O2", "-o", tool, ROOT / "bench" / "load.c"], check=True)
        measures = {
            "round trips/s": load(tool, "rr"),
            "connections/s, closed by reset": load(tool, "rst"),
            "connections/s, closed in order": load(tool, "fin"),
            "one stream, Gbit/s": stream,
        }
        print("| path | what | ours | plain | ratio (min, median, max) |")
        print("|---|---|---|---|---|")
        with plain() as base, ours(overlay=False) as native, ours(overlay=True) as overlay:
            for namespace, _ in (*base.values(), *native.values(), *overlay.values()):
                # Else orderly closes use up the client's ports within seconds, on either side.
                subprocess.run(run_in(namespace, "sysctl", "-qw", "net.ipv4.tcp_tw_reuse=1"), check=True)
            cases = [
                ("one node", native, "near"),
                ("two nodes, native", native, "far"),
                ("two nodes, overlay", overlay, "far"),
                ("to the outside, masqueraded", native, "world"),
            ]
            for path, mine, target in cases:
                for what, measure in measures.items():
                    got, reference = [], []
                    for _ in range(rounds):
                        got.append(measure(mine["client"][0], *mine[target]))
                        reference.append(measure(base["client"][0], *base[target]))
                    ratios = sorted(a / b for a, b in zip(got, reference, strict=True))
                    form = ".1f" if "Gbit" in what else ",.0f"
                    print(
                        f"| {path} | {what} | {statistics.median(got):{form}} | "
                        f"{statistics.median(reference):{form}} | "
                        f"{ratios[0]:.2f}, {statistics.median(ratios):.2f}, {ratios[-1]:.2f} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
