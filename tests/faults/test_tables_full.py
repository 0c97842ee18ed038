"""The flow table and the rings of events are full: established connections live on, losses are counted."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import numpy as np
import pytest
from alone import Alone, alone
from checkers import OPEN, Report, Stream, under_traffic
from two_nodes import inside

from axoneme.datapath.maps import MappedArray, Table
from axoneme.datapath.schema import Schema
from axoneme.rpc import Client, RpcError

QUOTA = 256
#: Which count at the same time.
CPUS = os.cpu_count() or 1
SIZES = {"flows": 2048, "half_open": 1024, "flow_events": 65536, "drop_events": 65536}


@pytest.fixture(scope="module")
def one() -> Iterator[Alone]:
    with alone(tables=SIZES, flow_quota=QUOTA) as made:
        made.plug("greedy", "member")
        yield made


def usage(one: Alone, name: str) -> int:
    """Entries of the flow table that an endpoint has."""
    schema = Schema.load()
    number = one.remembered()[one.record_of(name).stem]["state"]["id"]
    mapped = MappedArray.pinned(one.node.folder / "bpf" / "maps" / "usage", schema.struct("usage"))
    return int(mapped.array[number]["held"]) - int(mapped.array[number]["collected"])


def unharmed(report: Report) -> list[str]:
    """Connections that were there already, and what happened to them."""
    return [
        f"{stream}: {outcome}"
        for stream, outcome in report.outcomes
        if stream.kind in ("udp", "tcp", "icmp")
        and (outcome.lost or outcome.resent or outcome.broken or outcome.wrong)
    ]


def test_a_pod_with_too_many_connections(one: Alone, checker: Path) -> None:
    target = one.places["b"]
    greedy = replace(one.places["greedy"], addresses=(), watched=False)  # the other checker listens there
    wish = Stream("ask", "greedy", "b", target.addresses[0], interval=500, count=6 * QUOTA)
    with one.traffic(checker, "too many connections of one pod") as report:
        with under_traffic(checker, "the pod with too many connections", [greedy], [wish]):
            one.node.wait(lambda: usage(one, "greedy") >= QUOTA, "its quota", lambda: usage(one, "greedy"))
        assert usage(one, "greedy") <= QUOTA + CPUS
    assert unharmed(report) == [], str(report)
    assert report.wrong == 0, str(report)


def half_open(one: Alone) -> int:
    """Entries among the connections that others displace."""
    schema = Schema.load()
    path = one.node.folder / "bpf" / "maps" / "half_open"
    table = Table.pinned(path, schema.struct("flow_key"), schema.struct("flow"))
    try:
        return len(table.read_all()[0])
    finally:
        table.close()


def syn(source: str, target: str, port: int) -> bytes:
    """A SYN's TCP header with its checksum (RFC 9293, section 3.1)."""
    head = struct.pack("!HHIIBBHHH", port, OPEN, port, 0, 5 << 4, 2, 65535, 0, 0)
    pseudo = ip_address(source).packed + ip_address(target).packed + struct.pack("!HH", 6, len(head))
    total = sum(struct.unpack("!16H", pseudo + head))
    total = (total & 0xFFFF) + (total >> 16)
    return head[:16] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + head[18:]


def test_a_flood_of_beginnings(one: Alone, checker: Path) -> None:
    """SYNs that nobody follows up on: the address behind them belongs to the pod, but no program of it."""
    source, target = one.places["greedy"].addresses[0], one.places["b"].addresses[0]
    before, room = usage(one, "a"), SIZES["half_open"]
    with one.traffic(checker, "a flood of SYNs from one pod") as report:
        with inside(one.places["greedy"].namespace):
            flood = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
        with flood:
            for port in range(10000, 10000 + 8 * room):
                flood.sendto(syn(source, target, port), (target, 0))
        assert half_open(one) > room // 2
    assert unharmed(report) == [], str(report)
    assert report.wrong == 0, str(report)
    assert usage(one, "greedy") <= QUOTA + CPUS
    assert usage(one, "a") >= min(before, QUOTA)


def test_rings_that_nobody_reads(one: Alone, checker: Path) -> None:
    """There is no flow server yet: the rings have long been full."""
    table = Table.pinned(
        one.node.folder / "bpf" / "maps" / "lost", np.dtype(np.uint32), Schema.load().struct("counter")
    )
    with one.traffic(checker, "rings of events full") as report:
        one.node.wait(lambda: table.sums()[1]["packets"].sum() > 0, "lost events", table.sums)
    assert unharmed(report) == [], str(report)
    lost = int(table.sums()[1]["packets"].sum())
    table.close()
    with (one.node.folder / "flows.log").open("wb") as log:
        server = subprocess.Popen(
            ["nsenter", f"--net={one.node.namespace}", "--", sys.executable, "-m", "axoneme.cli", "flows",
             "serve", "--config", str(one.node.folder / "agent.yaml")],
            stderr=log,
        )  # fmt: skip
    try:
        client = Client(one.node.folder / "flows.sock")
        one.node.wait(lambda: told(client) >= lost, "the number of lost events", lambda: told(client))
    finally:
        server.kill()
        server.wait()


def told(client: Client) -> int:
    try:
        status = client.call("status")
    except RpcError:
        return -1
    return int(status["lost_flows"]) + int(status["lost_drops"])
