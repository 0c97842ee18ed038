"""Services between two nodes, with real packets: clients whose sockets nobody translates, any backend."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path

import pytest
from balancing import ANY, EXTERNAL, Balancer
from two_nodes import WORLD, Cluster, connect, inside, listening

from axoneme.net.commands import ip
from oracle.packets import TCP, UDP

CLIENT, SERVER = 300, 301
SERVICE = {4: "10.96.0.10", 6: "fd00:10:96::10"}
ROUTER = {4: "172.31.0.254", 6: "fd00:a0::fe"}
#: More than fits in one segment, and in one large send.
AMOUNT = 300_000
VERSIONS = pytest.mark.parametrize("version", [4, 6])
BACKENDS = ("near", "far", "world", "node1", "node2")


@pytest.fixture(scope="module", params=["overlay", "native"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    made = Cluster(overlay=request.param == "overlay")
    try:
        made.plug(1, "client", 10, CLIENT, app="client")
        made.plug(1, "near", 11, SERVER, app="server")
        made.plug(2, "far", 10, SERVER, app="server")
        routes = [f"route add {SERVICE[v]} via {made.nodes[0].addresses[v]}" for v in (4, 6)]
        ip(routes, made.world)
        yield made
    finally:
        made.close()


@pytest.fixture
def balancer(cluster: Cluster) -> Iterator[Balancer]:
    one = cluster.nodes[0]
    made = Balancer(one.plane, one.folder / "bpf")
    made.clear()
    yield made
    made.clear()
    made.close()


def place(cluster: Cluster, name: str) -> tuple[Path, dict[int, str]]:
    """Of a backend or a client: where it is, and its addresses."""
    if name == "world":
        return cluster.world, WORLD
    if name.startswith("node"):
        one = cluster.nodes[int(name[4:]) - 1]
        return one.namespace, one.addresses
    return cluster.pods[name].namespace, cluster.pods[name].addresses


def balance(balancer: Balancer, cluster: Cluster, name: str, version: int) -> None:
    """One service on an address of its own and on a node port, which has this backend."""
    _, addresses = place(cluster, name)
    for number, protocol in enumerate((TCP, UDP), 1):
        balancer.backend(number, ip_address(addresses[version]), 8080, protocol)
        balancer.service(number, [number])
        balancer.frontend(ip_address(SERVICE[version]), 80, protocol, number, EXTERNAL)
        balancer.frontend(ANY[version], 30080, protocol, number, EXTERNAL)


def stream(sender: socket.socket, receiver: socket.socket) -> None:
    """So much arrives whole."""
    data = bytes(range(256)) * (AMOUNT // 256)
    sending = threading.Thread(target=sender.sendall, args=(data,))
    sending.start()
    got = bytearray()
    while len(got) < len(data):
        more = receiver.recv(65536)
        assert more, "it was closed"
        got += more
    sending.join()
    assert got == data


def over_tcp(server: Path, client: Path, to: str, port: int) -> str:
    """Both ways, much more than fits into one packet; as whom the server sees the client."""
    with listening(server, 8080) as waiting, closing(connect(client, to, port)) as caller:
        accepted, peer = waiting.accept()
        with accepted:
            accepted.settimeout(10)
            stream(caller, accepted)
            stream(accepted, caller)
    return str(peer[0]).removeprefix("::ffff:")


def over_udp(server: Path, address: str, client: Path, to: str, port: int, size: int) -> str:
    """A question and its answer, which a connected socket takes only from where it has asked."""
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    with inside(server):
        waiting = socket.socket(family, socket.SOCK_DGRAM)
    with inside(client):
        caller = socket.socket(family, socket.SOCK_DGRAM)
    with waiting, caller:
        waiting.bind((address, 8080))
        for each in (waiting, caller):
            each.settimeout(5)
        caller.connect((to, port))
        question = bytes(range(256)) * (size // 256)
        got, peer = ask(caller, question, waiting)
        assert got == question
        waiting.sendto(question[::-1], peer)
        assert caller.recv(65536) == question[::-1]
    return str(peer[0])


def ask(caller: socket.socket, question: bytes, waiting: socket.socket) -> tuple[bytes, tuple[str, int]]:
    """What arrives. The first may be lost: it tells how large packets may be on this way."""
    waiting.settimeout(1)
    for _ in range(5):
        with contextlib.suppress(OSError):  # "message too long", or nothing
            caller.send(question)
            return waiting.recvfrom(65536)
    raise TimeoutError("nothing has arrived")


@VERSIONS
@pytest.mark.parametrize("backend", BACKENDS)
def test_from_outside(cluster: Cluster, balancer: Balancer, version: int, backend: str) -> None:
    balance(balancer, cluster, backend, version)
    server, addresses = place(cluster, backend)
    node = cluster.nodes[0].addresses[version]
    itself = backend in ("near", "node1")
    for to, port in ((SERVICE[version], 80), (node, 30080)):
        seen_as = ROUTER[version] if itself else node
        assert over_tcp(server, cluster.world, to, port) == seen_as
        assert over_udp(server, addresses[version], cluster.world, to, port, 1024) == seen_as


@VERSIONS
@pytest.mark.parametrize("backend", BACKENDS)
def test_from_a_pod(cluster: Cluster, balancer: Balancer, version: int, backend: str) -> None:
    balance(balancer, cluster, backend, version)
    server, addresses = place(cluster, backend)
    client = cluster.pods["client"]
    node = cluster.nodes[0].addresses[version]
    as_node = backend == "world" or (backend == "node2" and cluster.overlay)
    for to, port in ((SERVICE[version], 80), (node, 30080)):
        seen_as = node if as_node else client.addresses[version]
        assert over_tcp(server, client.namespace, to, port) == seen_as
        assert over_udp(server, addresses[version], client.namespace, to, port, 1024) == seen_as


@VERSIONS
def test_a_pod_calls_itself(cluster: Cluster, balancer: Balancer, version: int) -> None:
    balance(balancer, cluster, "near", version)
    near = cluster.pods["near"]
    to = SERVICE[version]
    assert over_tcp(near.namespace, near.namespace, to, 80) == to
    assert over_udp(near.namespace, near.addresses[version], near.namespace, to, 80, 1024) == to


@VERSIONS
@pytest.mark.parametrize("backend", ["near", "far", "node1"])
def test_datagrams_in_fragments(cluster: Cluster, balancer: Balancer, version: int, backend: str) -> None:
    balance(balancer, cluster, backend, version)
    server, addresses = place(cluster, backend)
    over_udp(server, addresses[version], cluster.world, SERVICE[version], 80, 8192)


@VERSIONS
def test_refusals_reach_the_client(cluster: Cluster, balancer: Balancer, version: int) -> None:
    """By us where there is no backend, and by the backend where nobody listens."""
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    for backends in (False, True):
        balancer.clear()
        balance(balancer, cluster, "near", version)
        if not backends:
            for number in (1, 2):
                balancer.service(number, [])
        for client in (cluster.world, cluster.pods["client"].namespace):
            with pytest.raises(ConnectionRefusedError):
                connect(client, SERVICE[version], 80)
            with inside(client):
                caller = socket.socket(family, socket.SOCK_DGRAM)
            with caller:
                caller.settimeout(5)
                caller.connect((SERVICE[version], 80))
                caller.send(b"?")
                with pytest.raises(ConnectionRefusedError):
                    caller.recv(100)
