"""A node port under attack with small tables: floods of SYNs in others' names, a flow table that is full,
answers that are not the service's, damaged frames. Who is connected does not notice.

    honest ──┐
    rogue  ──┤ br0 of ``wire``
    node   ──┘

The service has a pod of the node and, masqueraded, a machine beside it (``honest``) as backends.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import socket
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkers import CONNECTIONS, OPEN, PACKETS, Place, Report, Stream, under_traffic
from one_node import Node, node
from test_hostile_wire import hostile
from two_nodes import inside

from axoneme.datapath.counters import drops
from axoneme.datapath.maps import Table
from axoneme.datapath.schema import Schema
from axoneme.net.commands import ip
from axoneme.rpc import Client, RpcError
from oracle.packets import ACK, TCP, UDP, frame

NODE_PORT = 30080
NODE = {4: "172.31.0.1", 6: "fd00:a0::1"}
HONEST = {4: "172.31.0.100", 6: "fd00:a0::100"}
CLUSTER = {4: "10.96.0.50", 6: "fd00:10:96::50"}
SIZES = {"flows": 512, "translations": 1024, "half_open": 1024, "half_open_translations": 2048}
#: Connections that stay, over TCP and UDP, by each of the node's addresses.
STANDING = 12
INVALID_SOURCE, INVALID_PACKET = 132, 134
#: Each may keep a free place of a table to itself.
CPUS = os.cpu_count() or 1
SEED = 20260511


class Besieged:
    """The node, its wire, and what its tables and counters say."""

    def __init__(self, made: Node) -> None:
        self.node = made
        spaces = made.namespaces
        self.wire = spaces.add("wire")
        ip(["link add br0 type bridge mcast_snooping 0", "link set br0 up"], self.wire)
        ip([f"link set beyond netns {self.wire}"], made.namespace)
        ip(["link set beyond master br0 up"], self.wire)
        self.honest, self.rogue = (self._plug(name) for name in ("honest", "rogue"))
        ip(
            [
                *(
                    f"addr add {address}/{24 if v == 4 else 64} dev eth0 nodad"
                    for v, address in HONEST.items()
                ),
            ],
            self.honest,
        )
        # Answers to names that nobody has go nowhere.
        ip(["route add default via 172.31.0.200", "route add default via fd00:a0::200"], made.namespace)
        ip(["addr add 172.31.0.200/24 dev eth0", "addr add fd00:a0::200/64 dev eth0 nodad"], self.rogue)
        ip(["route add blackhole 198.18.0.0/15", "route add blackhole 2001:db8::/32"], self.rogue)
        made.start()
        self.pods: dict[str, Place] = {}
        for name in ("backend", "stranger"):
            namespace = spaces.add(name)
            wish = {"container_id": name, "netns": str(namespace), "ifname": "eth0", "namespace": "default",
                    "pod": name, "labels": {"app": name}}  # fmt: skip
            answer = made.client.call("endpoint.attach", wish)
            addresses = tuple(each["address"] for each in answer["addresses"])
            self.pods[name] = Place(name, namespace, addresses)
        made.write(self._objects())
        made.wait(lambda: self.balancing() == 8, "two backends of two protocols and families", self.balancing)

    def _plug(self, name: str) -> Path:
        namespace = self.node.namespaces.add(name)
        ip([f"link add {name} type veth peer name eth0 netns {namespace}"], self.wire)
        ip([f"link set {name} master br0 up"], self.wire)
        ip(["link set eth0 up"], namespace)
        return namespace

    def _objects(self) -> dict[str, dict[str, Any]]:
        ports = [
            {
                "name": protocol.lower(),
                "port": 80,
                "targetPort": OPEN,
                "protocol": protocol,
                "nodePort": NODE_PORT,
            }
            for protocol in ("TCP", "UDP")
        ]
        found: dict[str, dict[str, Any]] = {
            "objects/Service/default/web": {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "web", "namespace": "default"},
                "spec": {
                    "type": "NodePort",
                    "clusterIP": CLUSTER[4],
                    "clusterIPs": list(CLUSTER.values()),
                    "ipFamilies": ["IPv4", "IPv6"],
                    "ports": ports,
                },
            }
        }
        for version in (4, 6):
            backends = (self.address("backend", version), HONEST[version])
            found[f"objects/EndpointSlice/default/web-{version}"] = {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": f"web-{version}",
                    "namespace": "default",
                    "labels": {"kubernetes.io/service-name": "web"},
                },
                "addressType": f"IPv{version}",
                "ports": [{"name": p.lower(), "port": OPEN, "protocol": p} for p in ("TCP", "UDP")],
                "endpoints": [{"addresses": [each], "conditions": {"ready": True}} for each in backends],
            }
        return found

    def address(self, pod: str, version: int) -> str:
        return next(each for each in self.pods[pod].addresses if ip_address(each).version == version)

    # ---- what it says --------------------------------------------------------------------------

    def balancing(self) -> int:
        found: int = self.node.client.call("status")["balancing"]["backends"]
        return found

    def _table(self, name: str, key: Any, value: str) -> Table:
        schema = Schema.load()
        key = schema.struct(key) if isinstance(key, str) else key
        return Table.pinned(self.node.folder / "bpf" / "maps" / name, key, schema.struct(value))

    def entries(self, name: str, protocol: int = 0) -> int:
        """Of one protocol, or of all."""
        value = "translation" if "translations" in name else "flow"
        with contextlib.closing(self._table(name, "flow_key", value)) as table:
            keys = table.read_all()[0]
            return int((keys["protocol"] == protocol).sum()) if protocol else len(keys)

    def wait_until_over(self, name: str, protocol: int) -> None:
        def left() -> int:
            return self.entries(name, protocol)

        self.node.wait(lambda: not left(), f"nothing left in {name} of protocol {protocol}", left)

    def drops(self) -> dict[int, int]:
        """Packets by reason."""
        found: Counter[int] = Counter()
        with contextlib.closing(self._table("drops", np.dtype(np.uint32), "counter")) as table:
            for each in drops(table, Schema.load()):
                found[each.reason] += each.packets
        return found

    # ---- traffic -------------------------------------------------------------------------------

    @contextlib.contextmanager
    def traffic(self, program: Path, fault: str) -> Iterator[Report]:
        """Connections that stay, of honest clients from outside, and new ones all the time."""
        honest = Place("honest", self.honest, tuple(HONEST.values()), watched=False)
        streams = [
            Stream(kind, "honest", "service", NODE[version], NODE_PORT, interval=interval)
            for version in (4, 6)
            for kind, interval, count in (
                ("tcp", PACKETS, STANDING),
                ("udp", PACKETS, STANDING),
                ("connect", CONNECTIONS, 1),
                ("ask", 10 * CONNECTIONS, 1),  # the table remembers each of them for minutes
            )
            for _ in range(count)
        ]
        with under_traffic(program, fault, [honest, *self.pods.values()], streams) as report:
            yield report

    def alive(self) -> None:
        """Agent and flow server have not ended, and answer."""
        assert self.node.process is not None
        assert self.node.process.poll() is None
        assert self.node.client.call("status")["phase"] == "ready"
        assert Client(self.node.folder / "flows.sock").call("status")["attached"]


@contextlib.contextmanager
def flow_server(made: Node) -> Iterator[None]:
    with (made.folder / "flows.log").open("wb") as log:
        server = subprocess.Popen(
            ["nsenter", f"--net={made.namespace}", "--", sys.executable, "-m", "axoneme.cli", "flows",
             "serve", "--config", str(made.folder / "agent.yaml")],
            stderr=log,
        )  # fmt: skip
    client = Client(made.folder / "flows.sock")
    said = (made.folder / "flows.log").read_text

    def answers() -> bool:
        with contextlib.suppress(RpcError):
            return bool(client.call("status")["attached"])
        return False

    try:
        made.wait(answers, "the flow server", said)
        yield
        assert server.poll() is None, said()
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="module")
def besieged() -> Iterator[Besieged]:
    with node(tables=SIZES, health={"enabled": False}) as made:
        one = Besieged(made)
        with flow_server(made):
            yield one


def standing(report: Report) -> list[str]:
    """What happened to connections that were there before."""
    return [
        f"{stream}: {outcome}"
        for stream, outcome in report.outcomes
        if stream.kind in ("tcp", "udp") and (outcome.lost or outcome.resent or outcome.broken)
    ]


# ---- attacks ---------------------------------------------------------------------------------------


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def syn(source: bytes, target: bytes, port: int) -> bytes:
    """A SYN's TCP header with its checksum (RFC 9293, section 3.1)."""
    head = struct.pack("!HHIIBBHHH", port, NODE_PORT, port, 0, 5 << 4, 2, 65535, 0, 0)
    pseudo = source + target + struct.pack("!LL", len(head), socket.IPPROTO_TCP)
    return head[:16] + struct.pack("!H", checksum(pseudo + head)) + head[18:]


def flood(one: Besieged, count: int) -> None:
    """SYNs of addresses that nobody has, each from another one, half of them IPv6."""
    chance = random.Random(SEED)
    with inside(one.rogue):
        wires = {
            4: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW),
            6: socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW),
        }
    with wires[4], wires[6]:
        for number in range(count):
            version = 4 if number % 2 else 6
            target, port = ip_address(NODE[version]).packed, chance.randrange(1024, 65536)
            if version == 4:
                source = struct.pack("!BBH", 198, 18, chance.randrange(1, 1 << 16))
                segment = syn(source, target, port)
                head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0, 64, 6, 0) + source + target
            else:
                source = ip_address("2001:db8::").packed[:8] + chance.randbytes(8)
                segment = syn(source, target, port)
                head = struct.pack("!LHBB", 6 << 28, len(segment), 6, 64) + source + target
            wires[version].sendto(head + segment, (NODE[version], 0))


def mac_of(namespace: Path) -> bytes:
    with inside(namespace), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as made:
        made.bind(("eth0", 0))
        address: bytes = made.getsockname()[4]
        return address


@contextlib.contextmanager
def wire(source: Path, target: Path) -> Iterator[Callable[[bytes], None]]:
    """Puts frames on a machine's link; from a pod, whatever the MAC, they get to its node."""
    with inside(source), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as made:
        made.bind(("eth0", 0))
        head = mac_of(target) + made.getsockname()[4]

        def send(packet: bytes) -> None:
            with contextlib.suppress(OSError):  # this kernel itself does not put it on a wire
                made.send(head + packet[12:])

        yield send


@contextlib.contextmanager
def held(one: Besieged, count: int) -> Iterator[list[socket.socket]]:
    """Connections that nobody closes, one by one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4 * count)), hard))
    with contextlib.ExitStack() as stack:
        made = []
        for number in range(count):
            version = 4 if number % 2 else 6
            with inside(one.honest):
                talk = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6)
            made.append(stack.enter_context(talk))
            talk.settimeout(10)
            talk.connect((NODE[version], NODE_PORT))
        yield made


def test_a_flood_of_syns_in_others_names(besieged: Besieged, checker: Path) -> None:
    """Backends answer each of them, and nobody hears that: it must not pass for a connection."""
    with besieged.traffic(checker, "a node port under a flood of SYNs") as report:
        before = besieged.entries("flows")
        flood(besieged, 8 * SIZES["half_open"])
        assert besieged.entries("half_open") > SIZES["half_open"] // 2
        assert besieged.entries("flows") < before + SIZES["half_open"] // 8
    assert standing(report) == [], str(report)
    besieged.alive()
    with besieged.traffic(checker, "the same node port after it") as after:
        pass
    assert not after.lost, str(after)


def test_a_flood_while_the_flow_table_is_full(besieged: Besieged, checker: Path) -> None:
    with (
        besieged.traffic(checker, "a full flow table and a flood of SYNs") as report,
        held(besieged, SIZES["flows"]),
    ):
        assert besieged.entries("flows") >= SIZES["flows"] - 2 * CPUS
        flood(besieged, 8 * SIZES["half_open"])
        besieged.alive()
    assert standing(report) == [], str(report)
    # Of connections that are over nothing is left (UDP is remembered for minutes).
    for name in ("flows", "translations"):
        besieged.wait_until_over(name, TCP)
    with besieged.traffic(checker, "the same flow table after it") as after:
        pass
    assert not after.lost, str(after)


def test_answers_that_are_not_the_service_s(besieged: Besieged, checker: Path) -> None:
    """In the names of the backend, the service and the node, from outside and from a pod, to the client and
    to any port of the node where a masqueraded connection may end."""
    stranger = besieged.pods["stranger"].namespace
    before, sent = besieged.drops(), 0
    with besieged.traffic(checker, "answers that are not the service's") as report:
        for version in (4, 6):
            backend = besieged.address("backend", version)
            names = [(backend, OPEN), (CLUSTER[version], 80), (NODE[version], NODE_PORT)]
            targets = [HONEST[version], NODE[version], backend]
            for source in (besieged.rogue, stranger):
                with wire(source, besieged.node.namespace) as send:
                    for name, port in names:
                        for target in targets:
                            for other in range(32768, 61000, 509):
                                ends = ip_address(name), ip_address(target)
                                send(frame(*ends, TCP, port, other, flags=ACK | 0x02, payload=b"x" * 16))
                                send(frame(*ends, UDP, port, other, payload=b"x" * 16))
                                sent += 2
    assert standing(report) == [], str(report)
    after = besieged.drops()
    assert after.get(INVALID_SOURCE, 0) - before.get(INVALID_SOURCE, 0) > sent // 4, (before, after)
    besieged.alive()


def test_damaged_frames(besieged: Besieged, checker: Path) -> None:
    stranger = besieged.pods["stranger"]
    before = besieged.drops()
    with besieged.traffic(checker, "damaged frames for a service") as report:
        for version in (4, 6):
            own = {besieged.rogue: ip_address(HONEST[version]) + 1}
            own[stranger.namespace] = ip_address(besieged.address("stranger", version))
            for namespace, source in own.items():
                with wire(namespace, besieged.node.namespace) as send:
                    for address in (NODE[version], CLUSTER[version]):
                        for packet in hostile(source, ip_address(address), [ip_address(HONEST[version])]):
                            send(packet)
                            send(packet.replace(struct.pack(">H", 80), struct.pack(">H", NODE_PORT)))
    assert standing(report) == [], str(report)
    after = besieged.drops()
    for reason in (INVALID_SOURCE, INVALID_PACKET):
        assert after.get(reason, 0) > before.get(reason, 0), (reason, before, after)
    besieged.alive()
