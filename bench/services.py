"""Connections through a ClusterIP with 1, 1,000 and 10,000 services of ten backends, in one run: by our socket
programs, by the iptables rules and by the nftables maps that kube-proxy would write, each against a direct
connection to a backend on the same pods. And how long it takes to write all of them, and to change one backend.

The service that is called stands in the middle of the others. Its backends are ten ports of one pod. Run as root:
`.venv/bin/python bench/services.py [rounds]`.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "tests" / "sandbox")]

import kubeproxy
from network import Pods, ours, plain, run_in, served, server
from two_nodes import inside

from axoneme.agent.balancer import Balancer
from axoneme.agent.highmark import HighMark
from axoneme.datapath.plane import Datapath
from axoneme.flows.rules import RuleWriter
from axoneme.model.policy import Protocol
from axoneme.sandbox.cgroups import hierarchy
from axoneme.services.balanced import Backend, Balanced, Frontend, FrontendKind

COUNTS = (1, 1000, 10_000)
BACKENDS = 10
SECONDS = 2
PORT = 5001
TRIPS, RESET, ORDERLY = "round trips/s", "connections/s, closed by reset", "connections/s, closed in order"
MODES = {TRIPS: "rr", RESET: "rst", ORDERLY: "fin"}
BUDGETS = {TRIPS: "≥ 0.97", RESET: "≥ 0.95", ORDERLY: "≥ 0.95"}

OURS, IPTABLES, NFTABLES = "Axoneme", "iptables", "nftables"

#: How many a second, and the median and the 99th percentile of how long one took, in µs.
Figures = tuple[float, float, float]
Client = Callable[[str, str, int], Figures]


def address(number: int) -> str:
    return str(IPv4Address("10.96.0.1") + number)


def services(count: int, target: str) -> list[kubeproxy.Service]:
    """Of which the middle one is the one that is called; the others lead nowhere."""
    made = []
    for n in range(count):
        real = n == count // 2
        first = IPv4Address("10.244.200.0") + n * BACKENDS % 10_000
        backends = [(target, PORT + b) if real else (str(first + b), 8080) for b in range(BACKENDS)]
        made.append(kubeproxy.Service(address(n), 80, backends))
    return made


def balanced(service: kubeproxy.Service, name: str) -> Balanced:
    where = IPv4Address(service.address)
    return Balanced(
        name,
        "80/TCP",
        Protocol.TCP,
        (Frontend(where, service.port, Protocol.TCP, FrontendKind.CLUSTER_IP),),
        tuple(Backend(IPv4Address(address), port) for address, port in service.backends),
    )


@contextmanager
def control_group() -> Iterator[Path]:
    group = hierarchy() / f"bench-axo-services-{time.monotonic_ns()}"
    group.mkdir()
    try:
        yield group
    finally:
        group.rmdir()


def client(tool: Path, namespace: Path, group: Path | None = None) -> Client:
    def call(mode: str, address: str, port: int) -> Figures:
        argv = run_in(namespace, str(tool), mode, address, str(port), str(SECONDS))
        if group is not None:
            argv = ["sh", "-c", 'echo $$ >"$0/cgroup.procs"; exec "$@"', str(group), *argv]
        done = subprocess.run(argv, check=True, capture_output=True, text=True)
        rate, median, late, *_ = map(float, done.stdout.split())
        return rate, median, late

    return call


def compare(what: str, who: str, count: int, call: Client, direct: str, service: str, rounds: int) -> None:
    """One row: through the service and directly, in turn."""
    through, straight = [], []
    for _ in range(rounds):
        through.append(call(MODES[what], service, 80))
        straight.append(call(MODES[what], direct, PORT))
    ratios = sorted(a[0] / b[0] for a, b in zip(through, straight, strict=True))
    columns = [
        f"{statistics.median(each[at] for each in figures):{form}}"
        for at, form in ((0, ",.0f"), (1, ".1f"), (2, ".1f"))
        for figures in (through, straight)
    ]
    budget = BUDGETS[what] if who == OURS else ""
    print(
        f"| {what} | {who} | {count:,} | {columns[0]} | {columns[1]} | "
        f"{ratios[0]:.2f}, {statistics.median(ratios):.2f}, {ratios[-1]:.2f} | "
        f"{columns[2]} / {columns[4]} | {columns[3]} / {columns[5]} | {budget} |",
        flush=True,
    )


class Ours:
    """The first node's balancer, without an agent around it."""

    def __init__(self, plane: Datapath, folder: Path) -> None:
        self._balancer = Balancer(plane, RuleWriter(folder / "rules.jsonl"), HighMark(folder / "highest"))
        self._there: dict[tuple[str, str], Balanced] = {}

    def write(self, wanted: Sequence[kubeproxy.Service]) -> float:
        """These services in place of those before; seconds."""
        made = [balanced(service, f"bench/service-{n}") for n, service in enumerate(wanted)]
        began = time.perf_counter()
        names = {(each.name, each.port): each for each in made}
        self._balancer.apply(made, self._there.keys() - names.keys())
        self._balancer.settle()
        self._there = names
        return time.perf_counter() - began

    def change(self, service: kubeproxy.Service, number: int) -> tuple[float, int]:
        """A service has other backends than before; seconds, and entries written."""
        made = balanced(service, f"bench/service-{number}")
        began = time.perf_counter()
        self._balancer.apply([made])
        written = self._balancer.settle()
        return time.perf_counter() - began, written


def clear(namespace: Path) -> None:
    """The rules of the one baseline, before those of the other."""
    commands = [
        ("iptables-legacy", "-t", table, flag) for table in ("nat", "filter") for flag in ("-F", "-X")
    ]
    for command in (*commands, ("nft", "delete", "table", "ip", "kube-proxy")):
        subprocess.run(run_in(namespace, *command), check=False, stderr=subprocess.DEVNULL)


def one_backend_less(service: kubeproxy.Service) -> kubeproxy.Service:
    return kubeproxy.Service(service.address, service.port, service.backends[:-1])


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with tempfile.TemporaryDirectory() as folder, control_group() as group:
        tool = Path(folder) / "load"
        subprocess.run(["clang-19", "-O2", "-o", tool, ROOT / "bench" / "load.c"], check=True)
        with plain() as base, ours(overlay=False) as (mine, cluster), served(cluster):
            node = cluster.nodes[0]
            with inside(node.namespace):
                node.plane.attach_sockets(group)
            programmer = Ours(node.plane, Path(folder))
            router = base["client"][0].with_name(base["client"][0].name.replace("client", "node1"))
            for namespace, _ in (*base.values(), *mine.values()):
                # Else orderly closes use up the client's ports within seconds, on either side.
                subprocess.run(run_in(namespace, "sysctl", "-qw", "net.ipv4.tcp_tw_reuse=1"), check=True)
            with (
                server(base["near"][0], str(tool), "server", str(PORT), str(BACKENDS)),
                server(mine["near"][0], str(tool), "server", str(PORT), str(BACKENDS)),
            ):
                took = measure(tool, group, programmer, router, mine, base, rounds)
    print("\n| services of ten backends | Axoneme, ms | iptables, ms | nftables, ms |")
    print("|---|---|---|---|")
    for what, figures in took.items():
        print(f"| {what} | " + " | ".join(figures) + " |")


def measure(
    tool: Path, group: Path, programmer: Ours, router: Path, mine: Pods, base: Pods, rounds: int
) -> dict[str, list[str]]:
    """Prints the table of connections; what it took to write the services."""
    print(
        "| what | by | services | through the service | direct | ratio (min, median, max) "
        "| µs p50 / p99, through | direct | budget |\n|---|---|---|---|---|---|---|---|---|"
    )
    took: dict[str, list[str]] = {}
    for count in COUNTS:
        lists = {who: services(count, pods["near"][1]) for who, pods in ((OURS, mine), (IPTABLES, base))}
        called = address(count // 2)
        figures = took[f"{count:,} from nothing"] = []
        changes = took[f"{count:,}, one backend goes"] = []
        programmer.write([])
        figures.append(f"{programmer.write(lists[OURS]) * 1e3:,.0f}")
        other = one_backend_less(lists[OURS][0])
        seconds, written = programmer.change(other, 0)
        changes.append(f"{seconds * 1e3:.2f} ({written} writes)")
        call = client(tool, mine["client"][0], group)
        for what in MODES:
            compare(what, OURS, count, call, mine["near"][1], called, rounds)
        plain_call = client(tool, base["client"][0])
        for who, load, change in (
            (IPTABLES, kubeproxy.load_iptables, kubeproxy.change_iptables),
            (NFTABLES, kubeproxy.load_nftables, kubeproxy.change_nftables),
        ):
            clear(router)
            began = time.perf_counter()
            load(router, lists[IPTABLES])
            figures.append(f"{(time.perf_counter() - began) * 1e3:,.0f}")
            began = time.perf_counter()
            change(router, 0, one_backend_less(lists[IPTABLES][0]))
            changes.append(f"{(time.perf_counter() - began) * 1e3:.2f}")
            for what in MODES:
                compare(what, who, count, plain_call, base["near"][1], called, rounds)
        clear(router)
    return took


if __name__ == "__main__":
    main()
