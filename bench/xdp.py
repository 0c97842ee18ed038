"""What the fast path costs: one packet of an established connection to a service, of a thousand of them.

By test runs, one packet each, against a program that only sends packets back (XDP_TX), which is the limit, and
against the way without the fast path. And as a stream over a veth pair, as fast as one core makes packets and
the programs send them on: the kernel's own generator (live frames) on one side, and a program that counts and
drops there what comes back. Run as root: `.venv/bin/python bench/xdp.py`.
"""

from __future__ import annotations

import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from struct import Struct

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "datapath")]

import numpy as np
from balancing import Balancer
from bench_node import Node, node

from axoneme.datapath import bpf, testrun
from axoneme.datapath.libbpf import Object
from axoneme.datapath.maps import Table
from axoneme.datapath.uapi import AttachType, Command
from axoneme.datapath.xdp import Acceleration
from oracle.packets import ACK, SYN, TCP, UDP, Address, dissect, frame, with_checksum

FLOWS = 1000
FIRST_PORT = 10_000
ROUNDS = 20
SECONDS = 3.0
#: ``BPF_F_TEST_XDP_LIVE_FRAMES`` of linux/bpf.h; frames that the generator makes in one call.
LIVE_FRAMES, FRAMES = 1 << 1, 1 << 20
SERVICE = {4: ip_address("192.0.2.80"), 6: ip_address("2001:db8:f::80")}
BACKEND = {4: ip_address("198.51.100.7"), 6: ip_address("2001:db8:b::7")}
CLIENT = {4: ip_address("203.0.113.10"), 6: ip_address("2001:db8:a::10")}
OWN = {4: ip_address("172.31.0.1"), 6: ip_address("fd00:a0::1")}
ROUTER = {4: "172.31.0.254", 6: "fd00:a0::fe"}
HOST, HOST_FLAGS = 1, 1

PROGRAMS = """
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

const volatile __u32 out = 0;	/* where generated packets go */
const volatile __u32 first = 0, many = 1; /* source ports */

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} counted SEC(".maps");

struct headers { __u16 half[21]; }; /* Ethernet, IPv4, UDP */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct headers);
} sample SEC(".maps");

static __u64 *counter(__u32 which) { return bpf_map_lookup_elem(&counted, &which); }

SEC("xdp") int bounce(struct xdp_md *ctx) { return XDP_TX; }

SEC("xdp") int let_through(struct xdp_md *ctx) { return XDP_PASS; }

SEC("xdp") int swallow(struct xdp_md *ctx)
{
	__u64 *n = counter(1);

	if (n)
		(*n)++;
	return XDP_DROP;
}

/* Datagrams of one connection after the other. A frame comes back as it was sent last. */
SEC("xdp") int generate(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct headers *packet = data, *original;
	__u32 zero = 0;
	__u64 *n = counter(0);

	original = bpf_map_lookup_elem(&sample, &zero);
	if (!n || !original || (void *)(packet + 1) > end)
		return XDP_DROP;
	*packet = *original;
	packet->half[17] = bpf_htons(first + (*n)++ % many); /* UDP's source port */
	return bpf_redirect(out, 0);
}
char LICENSE[] SEC("license") = "GPL";
"""


def compiled(folder: Path, **constants: int) -> Object:
    source, target = folder / "bench.bpf.c", folder / "bench.o"
    source.write_text(PROGRAMS)
    include = next(Path("/usr/include").glob("*-linux-gnu/asm")).parent
    subprocess.run(
        ["clang-19", "-O2", "-g", "-target", "bpf", f"-I{include}", "-c", source, "-o", target], check=True
    )
    made = Object.open(target)
    made.set_constants(**constants, first=FIRST_PORT, many=FLOWS)
    made.load()
    return made


def mac_of(interface: str) -> str:
    shown = subprocess.run(["ip", "-j", "link", "show", interface], check=True, capture_output=True).stdout
    return str(json.loads(shown)[0]["address"])


def establish(kernel: Node, version: int, protocol: int) -> list[tuple[bytes, bytes]]:
    """A thousand connections to the service; of each a packet from the client, and one from the backend."""

    def packet(source: Address, destination: Address, ports: tuple[int, int], flags: int = ACK) -> bytes:
        return with_checksum(frame(source, destination, protocol, *ports, payload=bytes(18), flags=flags))

    samples = []
    for port in range(FIRST_PORT, FIRST_PORT + FLOWS):
        call = (CLIENT[version], SERVICE[version], (port, 80))
        sent = kernel.send("from_uplink", packet(*call, SYN), kernel.uplink)
        own = dissect(sent.data).ports[0]
        answer = (BACKEND[version], OWN[version], (8080, own))
        kernel.send("from_uplink", packet(*answer, SYN | ACK), kernel.uplink)
        kernel.send("from_uplink", packet(*call), kernel.uplink)
        samples.append((packet(*call), packet(*answer)))
    return samples


def cost(run: Callable[[bytes], testrun.Run], packets: Sequence[bytes], expected: int) -> float:
    """ns a packet: the median over all, each run by itself, for a run changes it."""
    took = []
    for _ in range(ROUNDS):
        for packet in packets:
            done = run(packet)
            assert done.value == expected, done.value
            took.append(done.duration)
    return statistics.median(took)


def fast(kernel: Node, program: int, packet: bytes) -> testrun.Run:
    return testrun.run(program, packet, testrun.xdp(packet, kernel.uplink))


def by_test_runs(kernel: Node, bench: Object) -> None:
    print("| a packet of 1,000 connections, each run by itself | ns | over the limit |\n|---|---|---|")
    limit = 0.0
    for version in (4, 6):
        pairs = establish(kernel, version, TCP)
        for which, whose in enumerate(("from the client", "from the backend")):
            packets = [pair[which] for pair in pairs]

            if not limit:
                limit = cost(partial(fast, kernel, bench.program_fd("bounce")), packets, 3)
                print(f"| sent back at once (XDP_TX), the limit | {limit:.0f} | |")
            found = cost(partial(fast, kernel, kernel.plane.program("from_wire")), packets, 3)
            print(f"| {whose}, IPv{version}, fast path | {found:.0f} | {found - limit:.0f} |")
            other = cost(partial(kernel.send, "from_uplink", ifindex=kernel.uplink), packets, 7)
            print(
                f"| {whose}, IPv{version}, without it (no socket buffer counted) | {other:.0f} | |",
                flush=True,
            )


@contextmanager
def attached(program: int, interface: int) -> Iterator[None]:
    """In the driver."""
    link = bpf.link_create(program, interface, AttachType.XDP, 1 << 2)
    try:
        yield
    finally:
        os.close(link)


def total(bench: Object) -> int:
    return int(Table.of(bench, "counted").read_all()[1][1].sum())


def flood(program: int, packet: bytes) -> None:
    """Has the kernel make packets out of this one, in batches, without a socket buffer."""
    data = ctypes.create_string_buffer(packet, len(packet))
    layout = Struct("=IIIIQQIIIIQQIII")
    values = (
        program,
        0,
        len(packet),
        0,
        ctypes.addressof(data),
        0,
        FRAMES,
        0,
        0,
        0,
        0,
        0,
        LIVE_FRAMES,
        0,
        64,
    )
    result = bpf.Attributes(layout, *values).call(Command.PROG_TEST_RUN)
    if result < 0:
        raise bpf.failure(-result, "generating packets")


def stream(bench: Object, packet: bytes) -> tuple[float, float]:
    """Packets a second that are sent, and that come back."""
    flood(bench.program_fd("generate"), packet)
    sent, before, began = 0, total(bench), time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        flood(bench.program_fd("generate"), packet)
        sent += FRAMES
    seconds = time.perf_counter() - began
    return sent / seconds, (total(bench) - before) / seconds


def over_the_wire(kernel: Node, folder: Path) -> None:
    print("\n| 1,000 connections over UDP and IPv4, one core | sent/s | came back/s |\n|---|---|---|")
    packet = bytearray(establish(kernel, 4, UDP)[0][0])
    packet[40:42] = bytes(2)  # no checksum
    packet[:6] = bytes.fromhex(mac_of("up0").replace(":", ""))
    bench = compiled(folder, out=kernel.elsewhere)
    samples = Table.of(bench, "sample")
    samples.put(0, np.frombuffer(bytes(packet[:42]), samples.value)[0])
    with attached(bench.program_fd("swallow"), kernel.elsewhere):
        rates = stream(bench, bytes(packet))
        _row("fast path", rates)
        kernel.plane.accelerate({"up0": kernel.uplink}, Acceleration.DISABLED)
        # A veth device takes no frames from its peer's program where none is at its own side.
        for what, name in (
            ("limit: sent back at once (XDP_TX)", "bounce"),
            ("without the fast path (XDP_PASS)", "let_through"),
        ):
            with attached(bench.program_fd(name), kernel.uplink):
                _row(what, stream(bench, bytes(packet)))


def _row(what: str, rates: tuple[float, float]) -> None:
    print(f"| {what} | {rates[0]:,.0f} | {rates[1]:,.0f} |", flush=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as name, node(Path(name) / "bpf", flows=1 << 17) as kernel:
        kernel.uplink_to_everywhere(OWN[4], OWN[6])
        kernel.masquerade(OWN[4], OWN[6])
        balancer = Balancer(kernel.plane, Path(name) / "bpf")
        for version in (4, 6):
            kernel.address(OWN[version], HOST, None, HOST_FLAGS)
            command = f"ip neigh replace {ROUTER[version]} lladdr {mac_of('up1')} dev up0"
            subprocess.run(command.split(), check=True)
            for number, protocol in enumerate((TCP, UDP), 1 + 2 * version):
                balancer.simple(
                    SERVICE[version], 80, protocol, {number: (BACKEND[version], 8080)}, number=number
                )
        kernel.plane.attach_uplink("up0", kernel.uplink)
        kernel.plane.accelerate({"up0": kernel.uplink}, Acceleration.NATIVE)
        by_test_runs(kernel, compiled(Path(name)))
        over_the_wire(kernel, Path(name))
        balancer.close()


if __name__ == "__main__":
    main()
