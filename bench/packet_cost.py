"""What one packet of an established connection costs in the endpoint program, without a network.

Median over many test runs, and the same for a program that does nothing. Run as root:
`.venv/bin/python bench/packet_cost.py`.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from ipaddress import ip_address
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "datapath")]

from bench_node import node

from axoneme.datapath import testrun
from axoneme.datapath.libbpf import Object
from oracle.packets import ACK, TCP, frame

EMPTY = """
#include <linux/bpf.h>
__attribute__((section("tc"), used)) int nothing(struct __sk_buff *skb) { return 0; }
char LICENSE[] __attribute__((section("license"), used)) = "GPL";
"""
ROUNDS, REPEAT = 2000, 240  # below 255: every run takes one off the packet's TTL


def cost(program: int, packet: bytes) -> float:
    context = testrun.skb(ifindex=1)
    return statistics.median(testrun.run(program, packet, context, REPEAT).duration for _ in range(ROUNDS))


def empty_program(folder: Path) -> Object:
    source, target = folder / "empty.bpf.c", folder / "empty.o"
    source.write_text(EMPTY)
    include = next(Path("/usr/include").glob("*-linux-gnu/asm")).parent
    subprocess.run(
        ["clang-19", "-O2", "-g", "-target", "bpf", f"-I{include}", "-c", source, "-o", target], check=True
    )
    made = Object.open(target)
    made.load()
    return made


def main() -> None:
    with tempfile.TemporaryDirectory() as name, node(Path(name) / "bpf") as kernel:
        empty = empty_program(Path(name))
        floor = None
        kernel.uplink_to_everywhere()
        print("| path | ns a packet | over an empty program |")
        print("|---|---|---|")
        for version in (4, 6):
            pod = ip_address("10.244.1.5" if version == 4 else "fd00::5")
            other = ip_address("10.244.1.6" if version == 4 else "fd00::6")
            kernel.endpoint(pod, 300)
            kernel.endpoint(other, 301, ifindex=kernel.uplink)
            kernel.open(300, 301)
            packet = frame(pod, other, TCP, 40000, 80, flags=ACK, ttl=255)
            one_way = frame(pod, other, TCP, 40001, 80, flags=ACK, ttl=255)
            kernel.send("from_pod", packet)
            kernel.send("from_pod", frame(other, pod, TCP, 80, 40000, flags=ACK), kernel.uplink)
            kernel.send("from_pod", one_way)
            if floor is None:
                floor = cost(empty.program_fd("nothing"), packet)
                print(f"| empty program | {floor:.0f} | |")
            found = cost(kernel.plane.program("from_pod"), packet)
            print(f"| pod to pod, IPv{version} | {found:.0f} | {found - floor:.0f} |")
            found = cost(kernel.plane.program("from_pod"), one_way)
            print(f"| the same, not answered yet, IPv{version} | {found:.0f} | {found - floor:.0f} |")


if __name__ == "__main__":
    main()
