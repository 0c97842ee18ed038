"""Two nodes, a router with a world behind it, and pods: real packets through what the agent is made of.

    node1 eth0 ──┐
    node2 eth0 ──┴── br0 of ``world``

Everything runs in this process; sockets belong to the namespace in which they were opened.
"""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import os
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path

import numpy as np

from axoneme.agent.control import Control
from axoneme.agent.endpoints import EndpointRecord, EndpointTable
from axoneme.datapath import bpffs
from axoneme.datapath.plane import Constants, Datapath, Sizes, packed
from axoneme.datapath.schema import OBJECTS
from axoneme.flows.rules import RuleWriter
from axoneme.identity.names import NameCache
from axoneme.model.labels import Label, Labels
from axoneme.model.policy import Policy
from axoneme.model.state import EndpointState, NodeState
from axoneme.net import node, pods, proxying
from axoneme.net.commands import ip
from axoneme.policy.engine import Options, PolicyEngine, PolicyKey

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
POLICY = PolicyKey("CiliumNetworkPolicy", "default", "only-clients")
WORLD = {4: "203.0.113.10", 6: "2001:db8:a::10"}
KNOBS = (
    "net.ipv4.ip_forward=1",
    "net.ipv6.conf.all.forwarding=1",
    "net.ipv4.conf.all.rp_filter=0",
    "net.ipv4.conf.default.rp_filter=0",
    "net.ipv6.conf.default.accept_dad=0",
)


class Namespaces:
    """Network namespaces whose names nobody else has, and that go with the test."""

    _numbers = itertools.count(1)

    def __init__(self) -> None:
        self._prefix = f"test-axo-{os.getpid()}-{next(self._numbers)}-"
        self._made: list[str] = []

    def add(self, name: str) -> Path:
        full = self._prefix + name
        subprocess.run(["ip", "netns", "add", full], check=True)
        self._made.append(full)
        path = self.path(name)
        subprocess.run(["nsenter", f"--net={path}", "sysctl", "-qw", *KNOBS], check=True)
        ip(["link set lo up"], path)
        return path

    def path(self, name: str) -> Path:
        return Path("/run/netns") / (self._prefix + name)

    def close(self) -> None:
        for name in self._made:
            subprocess.run(["ip", "netns", "del", name], check=False)


@contextmanager
def inside(namespace: Path) -> Iterator[None]:
    """This thread in a network namespace for a while."""
    home, there = os.open("/proc/thread-self/ns/net", os.O_RDONLY), os.open(namespace, os.O_RDONLY)
    try:
        if _libc.setns(there, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {namespace}")
        yield
    finally:
        _libc.setns(home, _CLONE_NEWNET)
        os.close(home)
        os.close(there)


@dataclass
class Pod:
    name: str
    node: Node
    namespace: Path
    addresses: dict[int, str]
    identity: int
    record: EndpointRecord


class Node:
    """One node, put together as the agent does it."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        self.cluster, self.number, self.name = cluster, number, f"node{number}"
        self.namespace = cluster.namespaces.add(self.name)
        self.addresses = {4: f"172.31.0.{number}", 6: f"fd00:a0::{number}"}
        self.state = NodeState(
            self.name,
            list(self.addresses.values()),
            list(self.addresses.values()),
            [f"10.244.{number}.0/24", f"fd00:10:244:{number}::/64"],
        )
        self.folder = cluster.folder / self.name
        self.folder.mkdir()
        self._link()
        self.start()

    def _link(self) -> None:
        router = self.cluster.world
        ip(
            [
                f"link add {self.name} type veth peer name eth0 netns {self.namespace}",
                f"link set {self.name} master br0 up",
            ],
            router,
        )
        commands = [
            "link set eth0 up",
            f"addr add {self.addresses[4]}/24 dev eth0",
            f"addr add {self.addresses[6]}/64 dev eth0 nodad",
            "route add default via 172.31.0.254",
            "route add default via fd00:a0::fe",
        ]
        ip(commands, self.namespace)
        with inside(self.namespace):
            node.prepare()
            proxying.direct((4, 6))
            if self.cluster.overlay:
                node.overlay_device(8472, 1450)
            node.change_routes(set(), set(self._routes(3 - self.number)))

    def _routes(self, other: int) -> Iterator[node.NodeRoute]:
        for text, version in ((f"10.244.{other}.0/24", 4), (f"fd00:10:244:{other}::/64", 6)):
            via = {4: f"172.31.0.{other}", 6: f"fd00:a0::{other}"}[version]
            yield node.NodeRoute(
                ip_network(text),
                None if self.cluster.overlay else ip_address(via),
                ip_address(self.addresses[version]),
                1450,
            )

    def start(self, objects: Path = OBJECTS) -> None:
        """Also again, over what an earlier start left; with programs of another release, perhaps."""
        with inside(self.namespace):
            overlay = socket.if_nametoindex(node.OVERLAY) if self.cluster.overlay else 0
            self.plane = Datapath.load(
                self.folder / "bpf",
                Constants(
                    overlay_ifindex=overlay,
                    world_ipv4=9,
                    world_ipv6=10,
                    answer_denied=int(self.cluster.answers),
                ),
                Sizes({"flows": self.cluster.flows, "policies": 8192, "addresses": 8192}),
                objects,
            )
            uplink = socket.if_nametoindex("eth0")
            value = np.zeros((), self.plane.uplinks.value)
            value["ipv4"] = np.frombuffer(packed(ip_address(self.addresses[4])), "u1")
            value["ipv6"] = np.frombuffer(packed(ip_address(self.addresses[6])), "u1")
            self.plane.uplinks.put(uplink, value)
            self.plane.uplinks.put(0, value)  # as whom the node answers
            self.plane.attach_uplink("eth0", uplink)
            if overlay:
                self.plane.attach_overlay(node.OVERLAY, overlay)
            self.endpoints = EndpointTable(self.folder / "endpoints", self.plane)
            for record in self.endpoints.restore()[0]:
                self.plane.attach_endpoint(record.ifindex)
            self.plane.take_over()
        journal = RuleWriter(self.folder / "rules.jsonl")
        self.names = NameCache()
        self.control = Control(self.name, PolicyEngine(Options()), self.plane, journal, names=self.names)

    def stop(self) -> None:
        """As if killed: nothing is taken back."""
        self.plane.close()

    def plug(self, name: str, host: int, identity: int, labels: Mapping[str, str]) -> Pod:
        namespace = self.cluster.namespaces.add(name)
        addresses = {4: f"10.244.{self.number}.{host}", 6: f"fd00:10:244:{self.number}::{host}"}
        state = EndpointState(
            id=host,
            node=self.name,
            identity=identity,
            addresses=list(addresses.values()),
            namespace="default",
            pod=name,
            labels=Labels(Label("k8s", key, value) for key, value in labels.items()).texts(),
            host_interface=pods.host_interface(name, "eth0"),
        )
        record = EndpointRecord(
            container_id=name,
            interface="eth0",
            namespace_path=str(namespace),
            mac=pods.mac_of(name, "eth0"),
            mtu=1500,
            route_mtu=1450 if self.cluster.overlay else 1500,
            ifindex=0,
            state=state,
        )
        self.control.endpoint_changed(name, state)
        self.control.local_subject(identity, name, True)
        self.control.settle()
        with inside(self.namespace):
            record = asyncio.run(self.endpoints.plug(record))
        self.endpoints.remember(record)
        return Pod(name, self, namespace, addresses, identity, record)


class Cluster:
    """``overlay``: VXLAN between the nodes, else routes. ``answers``: to what policy denies. ``flows``: room
    for so many of them."""

    def __init__(self, overlay: bool, answers: bool = False, flows: int = 8192) -> None:
        self.overlay = overlay
        self.flows = flows
        self.answers = answers
        self.folder = Path(tempfile.mkdtemp(prefix=f"test-axo-{os.getpid()}-"))
        self.namespaces = Namespaces()
        self.nodes: list[Node] = []
        self.pods: dict[str, Pod] = {}
        try:
            self.world = self.namespaces.add("world")
            ip(
                [
                    "link add br0 type bridge mcast_snooping 0",
                    "link set br0 up",
                    "addr add 172.31.0.254/24 dev br0",
                    "addr add fd00:a0::fe/64 dev br0 nodad",
                    *(f"addr add {address} dev lo" for address in WORLD.values()),
                ],
                self.world,
            )
            for number in (1, 2):
                self.nodes.append(Node(self, number))
            self.tell()
        except BaseException:
            self.close()
            raise

    def plug(self, node: int, name: str, host: int, identity: int, **labels: str) -> Pod:
        pod = self.nodes[node - 1].plug(name, host, identity, labels)
        self.pods[name] = pod
        self.tell()
        return pod

    def tell(self) -> None:
        """Every node hears of everything, as it would from the store."""
        for one in self.nodes:
            self._tell(one)
            one.control.settle()

    def _tell(self, one: Node) -> None:
        for other in self.nodes:
            one.control.node_changed(other.name, other.state)
        for pod in self.pods.values():
            one.control.endpoint_changed(pod.name, pod.record.state)

    def restart(self, number: int, policies: Sequence[Policy] = (), objects: Path = OBJECTS) -> int:
        """Another agent over what the last one left; how many entries it had to write."""
        one = self.nodes[number - 1]
        one.start(objects)
        self._tell(one)
        for pod in self.pods.values():
            if pod.node is one:
                one.control.local_subject(pod.identity, pod.name, True)
        self.enforce_on(one, policies)
        return one.control.start()

    def enforce(self, *policies: Policy) -> None:
        """These and no others, everywhere."""
        for one in self.nodes:
            self.enforce_on(one, policies)
            one.control.settle()

    def enforce_on(self, one: Node, policies: Sequence[Policy]) -> None:
        one.control.policy_changed(POLICY, policies)

    def close(self) -> None:
        for one in self.nodes:
            one.plane.close()
        self.namespaces.close()
        for number in (1, 2):
            bpffs.unmount(self.folder / f"node{number}" / "bpf")
        subprocess.run(["rm", "-rf", self.folder], check=True)


@contextmanager
def listening(namespace: Path, port: int, kind: int = socket.SOCK_STREAM) -> Iterator[socket.socket]:
    """A socket that takes both families."""
    with inside(namespace):
        made = socket.socket(socket.AF_INET6, kind)
    with made:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("::", port))
        if kind == socket.SOCK_STREAM:
            made.listen(64)
        made.settimeout(10)
        yield made


def connect(namespace: Path, address: str, port: int, timeout: float = 10) -> socket.socket:
    """A connection, or what socket raises; TimeoutError where packets are dropped."""
    version = ip_address(address).version
    with inside(namespace):
        made = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6)
    made.settimeout(timeout)
    try:
        made.connect((address, port))
    except BaseException:
        made.close()
        raise
    return made


def peer_of(listener: socket.socket) -> str:
    """Who has connected, as the server sees it."""
    accepted, sender = listener.accept()
    accepted.close()
    address = ip_address(sender[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def carried(sender: socket.socket, receiver: socket.socket, data: bytes) -> bytes:
    """What arrives of a stream that is sent as a whole, and then closed."""
    receiver.settimeout(20)
    sending = threading.Thread(target=lambda: (sender.sendall(data), sender.shutdown(socket.SHUT_WR)))
    sending.start()
    got = b"".join(iter(lambda: receiver.recv(1 << 20), b""))
    sending.join()
    return got
