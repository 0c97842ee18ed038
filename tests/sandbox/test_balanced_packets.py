"""Services between two nodes, with real packets: clients whose sockets nobody translates, any backend."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from balancing import ANY, EXTERNAL, Balancer
from exchanges import over_tcp, over_udp
from served import SERVICE, balancer_of, place, with_servers
from two_nodes import Cluster, connect, inside

from oracle.packets import TCP, UDP

ROUTER = {4: "172.31.0.254", 6: "fd00:a0::fe"}
VERSIONS = pytest.mark.parametrize("version", [4, 6])
BACKENDS = ("near", "far", "world", "node1", "node2")


@pytest.fixture(scope="module", params=["overlay", "native"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with with_servers(request.param == "overlay") as made:
        yield made


@pytest.fixture
def balancer(cluster: Cluster) -> Iterator[Balancer]:
    with balancer_of(cluster) as made:
        yield made


def balance(balancer: Balancer, cluster: Cluster, name: str, version: int) -> None:
    """One service on an address of its own and on a node port, which has this backend."""
    _, addresses = place(cluster, name)
    for number, protocol in enumerate((TCP, UDP), 1):
        balancer.backend(number, ip_address(addresses[version]), 8080, protocol)
        balancer.service(number, [number])
        balancer.frontend(ip_address(SERVICE[version]), 80, protocol, number, EXTERNAL)
        balancer.frontend(ANY[version], 30080, protocol, number, EXTERNAL)


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
