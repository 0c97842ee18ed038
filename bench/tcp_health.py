"""What measuring TCP at the sockets costs: a node with the program at its control group, and without, in turn.

Connections a second (all their sockets are looked at, at both ends), round trips, and one stream, between two pods
of a node; and connections over loopback, of which the flow table knows nothing. Prints the median of the rounds
with, without, and the ratio round by round. Run as root: `.venv/bin/python bench/tcp_health.py [rounds]`.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "sandbox")]

from bench.network import ORDERLY, RESET, SECONDS, STREAM, TRIPS, Measure, load, ours, run_in, served, stream

from axoneme.datapath import bpf, links, sockets
from axoneme.sandbox import cgroups

POINT = sockets.HEALTH["tcp_health"]


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    with tempfile.TemporaryDirectory() as folder, ours(overlay=False) as (pods, cluster), served(cluster):
        tool = Path(folder) / "load"
        subprocess.run(["clang-19", "-O2", "-o", tool, ROOT / "bench" / "load.c"], check=True)
        for name in ("client", "near"):
            subprocess.run(run_in(pods[name][0], "sysctl", "-qw", "net.ipv4.tcp_tw_reuse=1"), check=True)
        node = cluster.nodes[0]
        pin = sockets.pin_of(node.folder / "bpf" / "links", "tcp_health")
        (home,) = (
            line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line[:3] == "0::"
        )
        group = cgroups.make(cgroups.hierarchy() / "axoneme" / f"bench-health-{os.getpid()}")
        cgroups.join(group, os.getpid())
        try:
            print("| path | what | measured | not measured | ratio (min, median, max) |")
            print("|---|---|---|---|---|")
            program = node.plane.program("tcp_health")
            client, (near, address) = pods["client"][0], pods["near"]
            measures: list[tuple[str, str, Measure, Path, Path, str]] = [
                ("between pods", RESET, load(tool, "rst"), client, near, address),
                ("between pods", ORDERLY, load(tool, "fin"), client, near, address),
                ("between pods", TRIPS, load(tool, "rr"), client, near, address),
                ("between pods", STREAM, stream, client, near, address),
                ("loopback", RESET, load(tool, "rst"), near, near, "127.0.0.1"),
            ]
            for path, what, how, source, target, to in measures:
                found: dict[bool, list[float]] = {True: [], False: []}
                for number in range(2 * rounds):
                    measured = number % 4 in (0, 3)  # with, without, without, with: what drifts cancels out
                    if measured:
                        sockets.attach(program, group, POINT, pin)
                    found[measured].append(how(source, target, to))
                    links.detach(pin)
                ratios = sorted(a / b for a, b in zip(found[True], found[False], strict=True))
                form = ".1f" if "Gbit" in what else ",.0f"
                print(
                    f"| {path} | {what} | {statistics.median(found[True]):{form}} | "
                    f"{statistics.median(found[False]):{form}} | "
                    f"{ratios[0]:.2f}, {statistics.median(ratios):.2f}, {ratios[-1]:.2f} |",
                    flush=True,
                )
            print("\nThe program itself, by the kernel's own count (which costs some 20 ns a run):\n")
            print("| path | what | runs a connection | ns a connection |")
            print("|---|---|---|---|")
            for path, what, how, source, target, to in measures:
                if what not in (RESET, ORDERLY):
                    continue
                sockets.attach(program, group, POINT, pin)
                counting, before = bpf.enable_run_time_stats(), bpf.program_info(program)
                connections = how(source, target, to) * SECONDS
                after = bpf.program_info(program)
                os.close(counting)
                links.detach(pin)
                runs = (after.run_count - before.run_count) / connections
                spent = (after.run_time - before.run_time) / connections
                print(f"| {path} | {what} | {runs:.1f} | {spent:,.0f} |", flush=True)
        finally:
            cgroups.join(cgroups.hierarchy() / home.strip("/"), os.getpid())
            cgroups.remove(group)


if __name__ == "__main__":
    main()
