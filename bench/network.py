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

import yaml
from two_nodes import WORLD, Cluster, Namespaces

from axoneme.net.commands import ip
from axoneme.rpc import Client, RpcError

SECONDS = 2
PORT = 5001

ONE_NODE, OUTSIDE = "one node", "to the outside, masqueraded"
FOLLOWED = "one node, a follower reads every flow"
TRIPS, STREAM = "round trips/s", "one stream, Gbit/s"
RESET, ORDERLY = "connections/s, closed by reset", "connections/s, closed in order"
BUDGETS = {
    (ONE_NODE, TRIPS): "≥ 1.05",
    (ONE_NODE, STREAM): "≥ 1.10",
    (ONE_NODE, RESET): "≥ 0.95",
    (ONE_NODE, ORDERLY): "≥ 0.95",
    (FOLLOWED, RESET): "≥ 0.85",
    (FOLLOWED, ORDERLY): "≥ 0.85",
    (OUTSIDE, RESET): "≥ 0.90",
    (OUTSIDE, ORDERLY): "≥ 0.90",
}

Pods = dict[str, tuple[Path, str]]
Measure = Callable[[Path, Path, str], float]

FOLLOW = """
import socket, sys
follower = socket.socket(socket.AF_UNIX)
follower.connect(sys.argv[1])
follower.sendall(b'{"id":1,"method":"flows.observe","params":{"follow":true}}\\n')
while follower.recv(1 << 20):
    pass
"""


@contextmanager
def plain() -> Iterator[Pods]:
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
def ours(overlay: bool) -> Iterator[tuple[Pods, Cluster]]:
    cluster = Cluster(overlay, flows=131072)
    try:
        cluster.plug(1, "client", 10, 300, app="client")
        cluster.plug(1, "near", 11, 301, app="server")
        cluster.plug(2, "far", 10, 301, app="server")
        pods = {name: (pod.namespace, pod.addresses[4]) for name, pod in cluster.pods.items()}
        yield {**pods, "world": (cluster.world, WORLD[4])}, cluster
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


def load(tool: Path, mode: str) -> Measure:
    def measure(client: Path, target: Path, address: str) -> float:
        with server(target, str(tool), "server", str(PORT)):
            argv = run_in(client, str(tool), mode, address, str(PORT), str(SECONDS))
            return float(subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()[0])

    return measure


def stream(client: Path, target: Path, address: str) -> float:
    """Gbit/s."""
    with server(target, "iperf3", "-s", "-1"):
        argv = run_in(client, "iperf3", "-J", "-t", str(SECONDS), "-c", address)
        found = json.loads(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)
    return float(found["end"]["sum_received"]["bits_per_second"]) / 1e9


@contextmanager
def served(cluster: Cluster) -> Iterator[Client]:
    """The first node's flow server, which reads events and takes out what is over, as on every node."""
    folder = cluster.nodes[0].folder
    config = folder / "agent.yaml"
    store = {"path": str(cluster.folder / "store.db")}
    config.write_text(yaml.safe_dump({"node": "node1", "directory": str(folder), "store": store}))
    client = Client(folder / "flows.sock")
    with subprocess.Popen(
        [sys.executable, "-m", "axoneme.cli", "flows", "serve", "--config", config]
    ) as server:
        try:
            while not answers(client):
                time.sleep(0.05)
            yield client
        finally:
            server.terminate()


@contextmanager
def followed(client: Client, socket: Path) -> Iterator[Callable[[], str]]:
    """Somebody reads every flow as JSON; says what got lost."""
    before = client.call("status")
    with subprocess.Popen([sys.executable, "-c", FOLLOW, socket]) as reader:

        def losses() -> str:
            now = client.call("status")
            seen, lost = (now[key] - before[key] for key in ("seen_flows", "lost_flows"))
            return f"{seen:,} flows, {lost:,} lost"

        try:
            yield losses
        finally:
            reader.terminate()


def answers(client: Client) -> bool:
    try:
        return bool(client.call("status")["attached"])
    except RpcError:
        return False


def compare(path: str, what: str, mine: Pods, base: Pods, target: str, how: Measure, rounds: int) -> None:
    """One row: the two in turn."""
    got, reference = [], []
    for _ in range(rounds):
        got.append(how(mine["client"][0], *mine[target]))
        reference.append(how(base["client"][0], *base[target]))
    ratios = sorted(a / b for a, b in zip(got, reference, strict=True))
    form = ".1f" if "Gbit" in what else ",.0f"
    print(
        f"| {path} | {what} | {statistics.median(got):{form}} | {statistics.median(reference):{form}} | "
        f"{ratios[0]:.2f}, {statistics.median(ratios):.2f}, {ratios[-1]:.2f} | "
        f"{BUDGETS.get((path, what), '')} |",
        flush=True,
    )


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as folder:
        tool = Path(folder) / "load"
        subprocess.run(["clang-19", "-O2", "-o", tool, ROOT / "bench" / "load.c"], check=True)
        measures = {
            TRIPS: load(tool, "rr"),
            RESET: load(tool, "rst"),
            ORDERLY: load(tool, "fin"),
            STREAM: stream,
        }
        print("| path | what | ours | plain | ratio (min, median, max) | budget |")
        print("|---|---|---|---|---|---|")
        with (
            plain() as base,
            ours(overlay=False) as (native, cluster),
            ours(overlay=True) as (overlay, other),
            served(cluster) as flows,
            served(other),
        ):
            for namespace, _ in (*base.values(), *native.values(), *overlay.values()):
                # Else orderly closes use up the client's ports within seconds, on either side.
                subprocess.run(run_in(namespace, "sysctl", "-qw", "net.ipv4.tcp_tw_reuse=1"), check=True)
            for path, mine, target in (
                (ONE_NODE, native, "near"),
                ("two nodes, native", native, "far"),
                ("two nodes, overlay against plain routing", overlay, "far"),
                (OUTSIDE, native, "world"),
            ):
                for what, how in measures.items():
                    compare(path, what, mine, base, target, how, rounds)
            with followed(flows, cluster.nodes[0].folder / "flows.sock") as losses:
                for what in (RESET, ORDERLY):
                    compare(FOLLOWED, what, native, base, "near", measures[what], rounds)
                print(f"| {FOLLOWED} | events of these | {losses()} | | | |")


if __name__ == "__main__":
    main()
