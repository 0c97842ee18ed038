"""What is said to senders whose packets go no further, as their sockets hear it: by nodes, by the network."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path

import pytest
from two_nodes import POLICY, WORLD, Cluster, Pod, carried, connect, inside, listening

from axoneme.model.labels import Selector, equals
from axoneme.model.policy import Direction, Policy, PolicyRef
from axoneme.net import node
from axoneme.net.commands import ip

CLIENT, SERVER = 300, 301
NARROW = 1340
VERSIONS = pytest.mark.parametrize("version", [4, 6])
# linux/in.h, linux/in6.h
IP_MTU_DISCOVER, IP_PMTUDISC_DONT, IP_PMTUDISC_DO, IP_MTU = 10, 0, 2, 14
IPV6_MTU_DISCOVER, IPV6_MTU = 23, 24
IP_RECVERR, IPV6_RECVERR = 11, 25


@pytest.fixture(scope="module", params=["overlay", "native"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    made = Cluster(overlay=request.param == "overlay", answers=True)
    try:
        made.plug(1, "client", 10, CLIENT, app="client")
        made.plug(1, "near", 11, SERVER, app="server")
        made.plug(2, "far", 10, SERVER, app="server")
        yield made
    finally:
        made.close()


def datagrams(namespace: Path, address: str, port: int, discover: int = IP_PMTUDISC_DO) -> socket.socket:
    """A connected UDP socket, which hears of all errors."""
    version = ip_address(address).version
    with inside(namespace):
        made = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
        if version == 4:
            made.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, discover)
            made.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        else:
            made.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, discover)
            made.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
    made.settimeout(5)
    made.connect((address, port))
    return made


def mtu_of(sender: socket.socket) -> int:
    """What the kernel knows of the way."""
    if sender.family == socket.AF_INET:
        return sender.getsockopt(socket.IPPROTO_IP, IP_MTU)
    return sender.getsockopt(socket.IPPROTO_IPV6, IPV6_MTU)


# ---- path MTU ----------------------------------------------------------------------------------


@pytest.fixture
def narrow(cluster: Cluster) -> Iterator[Cluster]:
    """The way from node1 to everywhere takes smaller packets than its pods know."""
    device, before = (node.OVERLAY, 1450) if cluster.overlay else ("eth0", 1500)
    ip([f"link set {device} mtu {NARROW}"], cluster.nodes[0].namespace)
    yield cluster
    ip([f"link set {device} mtu {before}"], cluster.nodes[0].namespace)


@VERSIONS
def test_a_sender_learns_how_much_the_way_takes(narrow: Cluster, version: int) -> None:
    client, far = narrow.pods["client"], narrow.pods["far"]
    with (
        listening(far.namespace, 5300 + version, socket.SOCK_DGRAM) as server,
        closing(datagrams(client.namespace, far.addresses[version], 5300 + version)) as sender,
    ):
        assert mtu_of(sender) > NARROW
        sender.send(bytes(1380))
        with pytest.raises(OSError, match="Message too long"):
            sender.recv(1)
        assert mtu_of(sender) == NARROW
        sender.send(bytes(NARROW - 48))
        assert len(server.recv(2000)) == NARROW - 48


@VERSIONS
def test_a_stream_finds_its_way_through_what_is_narrow(narrow: Cluster, version: int) -> None:
    client, far = narrow.pods["client"], narrow.pods["far"]
    body = bytes(range(256)) * 4096
    with listening(far.namespace, 5400 + version) as server:
        sender = connect(client.namespace, far.addresses[version], 5400 + version)
        accepted, _ = server.accept()
        with sender, accepted:
            assert carried(sender, accepted, body) == body


def test_what_may_be_cut_arrives_in_pieces(narrow: Cluster) -> None:
    client, far = narrow.pods["client"], narrow.pods["far"]
    with (
        listening(far.namespace, 5500, socket.SOCK_DGRAM) as server,
        closing(datagrams(client.namespace, far.addresses[4], 5500, IP_PMTUDISC_DONT)) as sender,
    ):
        sender.send(bytes(1400))
        assert len(server.recv(2000)) == 1400


# ---- time --------------------------------------------------------------------------------------


@VERSIONS
def test_a_hop_is_named_when_time_is_up(cluster: Cluster, version: int) -> None:
    """As traceroute asks."""
    client, far = cluster.pods["client"], cluster.pods["far"]
    with closing(datagrams(client.namespace, far.addresses[version], 33434)) as sender:
        if version == 4:
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
        else:
            sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 1)
        sender.send(b"who is there?")
        with pytest.raises(OSError, match="No route to host"):
            sender.recv(1)
        _, ancillary, _, _ = sender.recvmsg(100, 512, socket.MSG_ERRQUEUE)
        _, _, data = ancillary[0]
        kind, code = data[5], data[6]  # struct sock_extended_err; the offender's address follows it
        assert (kind, code) == ((11, 0) if version == 4 else (3, 0))
        start = 16 + (4 if version == 4 else 8)
        offender = ip_address(data[start : start + (4 if version == 4 else 16)])
        assert str(offender) == cluster.nodes[0].addresses[version]


# ---- policy ------------------------------------------------------------------------------------


@pytest.fixture
def closed(cluster: Cluster) -> Iterator[Cluster]:
    """Nobody may call servers."""
    cluster.enforce(
        Policy(
            PolicyRef(POLICY.kind, POLICY.namespace, POLICY.name),
            Selector((equals("any", "app", "server"),)),
            (),
            frozenset({Direction.INGRESS}),
        )
    )
    yield cluster
    cluster.enforce()


@VERSIONS
@pytest.mark.parametrize("target", ["near", "far"])
def test_a_denied_connection_is_refused_at_once(closed: Cluster, target: str, version: int) -> None:
    client, server = closed.pods["client"], closed.pods[target]
    with listening(server.namespace, 80), pytest.raises(ConnectionRefusedError):
        connect(client.namespace, server.addresses[version], 80, timeout=5).close()


@VERSIONS
@pytest.mark.parametrize("target", ["near", "far"])
def test_a_denied_datagram_is_answered(closed: Cluster, target: str, version: int) -> None:
    client, server = closed.pods["client"], closed.pods[target]
    with closing(datagrams(client.namespace, server.addresses[version], 53)) as sender:
        sender.send(b"?")
        with pytest.raises(OSError) as found:
            sender.recv(1)
        assert found.value.errno in (errno.EHOSTUNREACH, errno.EACCES)


@VERSIONS
def test_an_open_connection_that_is_denied_is_reset(cluster: Cluster, version: int) -> None:
    client, far = cluster.pods["client"], cluster.pods["far"]
    with listening(far.namespace, 80) as server:
        sender = connect(client.namespace, far.addresses[version], 80)
        accepted, _ = server.accept()
        with sender, accepted:
            sender.send(b"before")
            assert accepted.recv(100) == b"before"
            cluster.enforce(
                Policy(
                    PolicyRef(POLICY.kind, POLICY.namespace, POLICY.name),
                    Selector((equals("any", "app", "server"),)),
                    (),
                    frozenset({Direction.INGRESS}),
                )
            )
            try:
                sender.settimeout(5)
                with pytest.raises(ConnectionResetError):
                    sender.send(b"after")
                    sender.recv(1)
            finally:
                cluster.enforce()


# ---- errors of others --------------------------------------------------------------------------


@VERSIONS
def test_a_closed_port_outside_is_heard_of_through_masquerading(cluster: Cluster, version: int) -> None:
    client = cluster.pods["client"]
    with closing(datagrams(client.namespace, WORLD[version], 5353)) as sender:
        sender.send(b"?")
        with pytest.raises(ConnectionRefusedError):
            sender.recv(1)


def unreachable(client: Pod, address: str) -> int:
    with closing(datagrams(client.namespace, address, 7)) as sender:
        sender.send(b"?")
        with pytest.raises(OSError) as found:
            sender.recv(1)
        assert found.value.errno is not None
        return found.value.errno


def test_a_node_without_a_route_says_so(cluster: Cluster) -> None:
    client, first = cluster.pods["client"], cluster.nodes[0]
    ip(["route del default"], first.namespace)
    try:
        assert unreachable(client, WORLD[4]) in (errno.ENETUNREACH, errno.EHOSTUNREACH)
    finally:
        ip(["route add default via 172.31.0.254"], first.namespace)
    # And the way is found as soon as it is there.
    with closing(datagrams(client.namespace, WORLD[4], 5353)) as sender:
        sender.send(b"?")
        with pytest.raises(ConnectionRefusedError):
            sender.recv(1)


def test_abort_is_passed_on(cluster: Cluster) -> None:
    """A reset of the peer's own, by way of the network."""
    client, far = cluster.pods["client"], cluster.pods["far"]
    with listening(far.namespace, 81) as server:
        sender = connect(client.namespace, far.addresses[4], 81)
        accepted, _ = server.accept()
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        accepted.close()
        with sender, pytest.raises(ConnectionResetError):
            sender.recv(1)
