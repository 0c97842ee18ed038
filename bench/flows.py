"""From the packet to whoever follows: real connections at given rates, and a client that reads every flow.

One node with its agent and its flow server; two pods; every connection is an exchange of one byte. Each row: the
connections, what was lost where (in the kernel's ring, in the flow server's; missing: connections of which the client
never heard), the CPU time that the flow server and the agent took, as a share of one core, that of the
client, and the time from the kernel's stamp of a new connection until the client had read it. Load, server, flow
server and client share the machine. Then what a flow server with a million flows has in memory. Run as root:
`.venv/bin/python bench/flows.py [seconds]`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests" / "sandbox"), str(ROOT / "tests")]

from one_node import Node, node

import gotools
from axoneme.rpc import Client, RpcError

PORT = 5001
FULL = 0
MILLION = 1_000_000
#: How connections are closed, and how many a second are asked for.
RATES = (("fin", 1000), ("fin", 10000), ("fin", FULL), ("rst", FULL))

#: Reads lines from its input, or from the socket that it is told, which it asks for flows first; by the end of
#: its input or by SIGTERM it says, as JSON, of how many new connections (lines with its first argument in them)
#: it has read, what it was told to be lost, and the percentiles of their age in ms.
READER = """
import json, os, re, signal, socket, sys, time
import numpy as np
mark = sys.argv[1].encode()
if len(sys.argv) > 2:
    follower = socket.socket(socket.AF_UNIX)
    follower.connect(sys.argv[2])
    follower.sendall(b'{"id":1,"method":"flows.observe","params":{"follow":true}}\\n')
    source = follower.fileno()
else:
    source = 0
ended, stamp, lost = [], re.compile(rb'"time":"([^Z"]+)Z"'), 0
signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
times, ages, rest, new, flows = [], [], b"", 0, 0
try:
    while data := os.read(source, 1 << 20):
        now = time.time_ns()
        whole, _, rest = (rest + data).rpartition(b"\\n")
        fresh = [line for line in whole.split(b"\\n") if mark in line]
        flows += whole.count(b'"Summary":')
        if b"lost_events" in whole:
            lost += sum(map(int, re.findall(rb'"num_events_lost":"?(\\d+)', whole)))
        times.extend(found[1] for line in fresh if (found := stamp.search(line)))
        ages.extend([now] * len(fresh))
except KeyboardInterrupt:
    pass
made = np.array([each.decode() for each in times], "datetime64[ns]").astype(np.int64)
late = (np.array(ages, np.int64) - made) / 1e6
at = np.percentile(late, [50, 99, 100]).tolist() if len(late) else [0, 0, 0]
print(json.dumps({"new": len(made), "flows": flows, "lost": lost, "p50": at[0], "p99": at[1], "most": at[2]}))
"""


@dataclass(frozen=True, slots=True)
class Follower:
    """``commands`` are a pipeline whose last part is a `READER`."""

    title: str
    commands: Sequence[Sequence[str | Path]]


def followers(place: Node) -> list[Follower]:
    reader = [sys.executable, "-c", READER]
    ours, hubbles = '"event":"new"', '"trace_reason":"NEW"'
    axo = [sys.executable, "-m", "axoneme.cli", "observe", "-f", "-o", "json"]
    hubble = [gotools.build("hubble"), "observe", "-f", "-o", "jsonpb"]
    return [
        Follower("reader of flows.sock", [[*reader, ours, place.folder / "flows.sock"]]),
        Follower(
            "axo observe -f -o json", [[*axo, "--config", place.folder / "agent.yaml"], [*reader, ours]]
        ),
        Follower(
            "hubble observe -f -o jsonpb",
            [[*hubble, "--server", f"unix://{place.folder}/hubble.sock"], [*reader, hubbles]],
        ),
    ]


def cpu(pid: int) -> float:
    """Seconds of CPU of a process, all threads: exact, unlike the ticks of /proc/PID/stat."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def memory(pid: int) -> float:
    """MiB of proportional set size."""
    return int(Path(f"/proc/{pid}/smaps_rollup").read_text().split("Pss:")[1].split()[0]) / 1024


@contextmanager
def flow_server(place: Node) -> Iterator[tuple[int, Client]]:
    client = Client(place.folder / "flows.sock")
    argv = [sys.executable, "-m", "axoneme.cli", "flows", "serve", "--config", place.folder / "agent.yaml"]
    with (place.folder / "flows.log").open("ab") as log, subprocess.Popen(argv, stderr=log) as process:
        try:
            while not (answers(client) and (place.folder / "hubble.sock").exists()):
                time.sleep(0.05)
            yield process.pid, client
        finally:
            process.terminate()


def answers(client: Client) -> bool:
    try:
        return bool(client.call("status")["attached"])
    except RpcError:
        return False


@contextmanager
def following(follower: Follower) -> Iterator[list[subprocess.Popen[bytes]]]:
    running: list[subprocess.Popen[bytes]] = []
    try:
        for command in follower.commands:
            source = running[-1].stdout if running else subprocess.DEVNULL
            running.append(subprocess.Popen(command, stdin=source, stdout=subprocess.PIPE))
        yield running
    finally:
        for process in running:
            process.terminate()
            process.wait()


def inside(namespace: Path, *argv: object) -> list[str]:
    return ["nsenter", f"--net={namespace}", "--", *map(str, argv)]


@dataclass(frozen=True, slots=True)
class Bench:
    place: Node
    tool: Path
    client: Path  # a pod's namespace
    address: str  # of the pod that is called

    def row(self, follower: Follower, mode: str, rate: int, seconds: int) -> None:
        with flow_server(self.place) as (server, asked):
            before = asked.call("status")
            with following(follower) as running:
                while asked.call("status")["readers"] < 1:
                    time.sleep(0.05)
                pids = {"server": [server], "client": [each.pid for each in running]}
                assert self.place.process is not None
                pids["agent"] = [self.place.process.pid]
                used = {who: sum(map(cpu, each)) for who, each in pids.items()}
                argv = [self.tool, mode, self.address, PORT, seconds, *([rate] if rate else [])]
                began = time.monotonic()
                done = subprocess.run(inside(self.client, *argv), check=True, capture_output=True, text=True)
                took = time.monotonic() - began
                shares = {who: (sum(map(cpu, each)) - used[who]) / took for who, each in pids.items()}
                made = int(done.stdout.split()[3])
                settle(asked, [server, *pids["client"]])
                after = asked.call("status")
                running[0].terminate()
                found = json.loads(running[-1].communicate()[0])
        in_kernel = after["lost_flows"] - before["lost_flows"]
        print(
            f"| {follower.title} | {'full' if rate == FULL else f'{rate:,}'}, {mode} | {made / took:,.0f} "
            f"| {found['flows'] / took:,.0f} | {in_kernel:,} | {found['lost'] - in_kernel:,} | {made - found['new']:,} "
            f"| {shares['server']:.1%} | {shares['agent']:.1%} | {shares['client']:.1%} "
            f"| {found['p50']:.0f} | {found['p99']:.0f} | {found['most']:.0f} |",
            flush=True,
        )

    def million(self) -> None:
        """Fills a flow server for a million flows, and says what that took."""
        config = self.place.folder / "agent.yaml"
        kept = config.read_text()
        config.write_text(f"{kept}flow_history: {{flows: {MILLION}}}\n")
        try:
            with flow_server(self.place) as (server, asked):
                empty = memory(server)
                while asked.call("status")["num_flows"] - asked.call("status")["num_drops"] < MILLION:
                    argv = [self.tool, "rst", self.address, PORT, 5]
                    subprocess.run(inside(self.client, *argv), check=True, stdout=subprocess.DEVNULL)
                full = memory(server)
                print(
                    f"\nA flow server with {MILLION:,} flows: {full:.0f} MiB (PSS), of which the flows are "
                    f"{full - empty:.0f} MiB (budget: 150)."
                )
        finally:
            config.write_text(kept)


def settle(asked: Client, pids: Sequence[int]) -> None:
    """Until nothing new comes, and server and client have nothing more to do than to look."""
    seen, used, idle = -1, 0.0, False
    while not idle:
        time.sleep(1)
        now, busy = asked.call("status")["seen_flows"], sum(map(cpu, pids))
        idle = now == seen and busy - used < 0.2
        seen, used = now, busy


def pod(name: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default", "labels": {"app": name}}
    return {"kind": "Pod", "metadata": metadata, "spec": {"containers": []}}


def main() -> None:
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    with tempfile.TemporaryDirectory() as folder, node() as place:
        tool = Path(folder) / "load"
        subprocess.run(["clang-19", "-O2", "-o", tool, ROOT / "bench" / "load.c"], check=True)
        place.start()
        names = ("client", "server")
        place.write({f"objects/Pod/default/{name}": pod(name) for name in names})
        pods = {name: place.namespaces.add(name) for name in names}
        for name, namespace in pods.items():
            place.attach(name, namespace)
            # Else orderly closes use up the client's ports within seconds.
            subprocess.run(inside(namespace, "sysctl", "-qw", "net.ipv4.tcp_tw_reuse=1"), check=True)
        address = json.loads(
            subprocess.run(
                inside(pods["server"], "ip", "-j", "-4", "addr", "show", "eth0"),
                check=True,
                capture_output=True,
            ).stdout
        )[0]["addr_info"][0]["local"]
        with subprocess.Popen(inside(pods["server"], tool, "server", PORT)) as echo:
            bench = Bench(place, tool, pods["client"], address)
            try:
                print(
                    "| client | asked for: connections/s, closed | connections/s | flows/s | lost: kernel | lost: store "
                    "| missing | flow server | agent | client | ms p50 | p99 | most |\n|" + "---|" * 13
                )
                for follower in followers(place):
                    for mode, rate in RATES:
                        bench.row(follower, mode, rate, seconds)
                bench.million()
            finally:
                echo.terminate()


if __name__ == "__main__":
    main()
