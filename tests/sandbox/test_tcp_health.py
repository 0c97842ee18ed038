"""How connections fare, measured at real sockets: it is in the event of a connection's end."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import numpy as np
import pytest
from proxies import Proxy
from served import CLIENT, SERVICE, balancer_of, with_servers
from test_steering import EGRESS_PORT, TO, send
from two_nodes import WORLD, Cluster, connect, inside, listening

from axoneme.datapath import links, sockets
from axoneme.datapath.ring import RingReader
from axoneme.flows.events import Events
from axoneme.net.commands import ip
from axoneme.sandbox import cgroups

END = 2
PORT = 80
#: Microseconds: nothing here is on another continent.
A_SECOND = 1_000_000
#: Where ``struct tcp_info`` says how often something was sent again.
RETRANSMITTED = 100


class Group:
    """A control group; sockets belong to that in which they were made."""

    def __init__(self, name: str) -> None:
        (home,) = (
            line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line[:3] == "0::"
        )
        self._home = cgroups.hierarchy() / home.strip("/")
        self.path = cgroups.make(cgroups.hierarchy() / "axoneme" / f"test-{name}-{os.getpid()}")

    @contextmanager
    def inside(self) -> Iterator[None]:
        """This process, for a while."""
        cgroups.join(self.path, os.getpid())
        try:
            yield
        finally:
            cgroups.join(self._home, os.getpid())

    def close(self) -> None:
        cgroups.remove(self.path)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with with_servers(overlay=False) as made:
        yield made


@pytest.fixture(scope="module")
def group(cluster: Cluster) -> Iterator[Group]:
    """That of node 1. Services are translated packet by packet here."""
    node = cluster.nodes[0]
    made = Group("health")
    pin = sockets.pin_of(node.folder / "bpf" / "links", "tcp_health")
    sockets.attach(node.plane.program("tcp_health"), made.path, sockets.HEALTH["tcp_health"], pin)
    yield made
    links.detach(pin)
    made.close()


@pytest.fixture
def ends(cluster: Cluster, group: Group) -> Iterator[Callable[[int], Events]]:
    """Waits for so many ends of connections on node 1; in order of their zones."""
    node = cluster.nodes[0]
    reader = RingReader.pinned(
        node.folder / "bpf" / "maps" / "flow_events", node.plane.schema.struct("event")
    )
    while len(reader.read(1024)):
        pass

    def wait(count: int) -> Events:
        found: list[Events] = []
        deadline = time.monotonic() + 20
        while sum(map(len, found)) < count:
            assert time.monotonic() < deadline, found
            events = reader.read(1024)
            found.append(events[events["kind"] == END].copy())
            time.sleep(0.01)
        every = np.concatenate(found)
        return every[np.argsort(every["zone"], kind="stable")]

    yield wait
    reader.close()


def talk(client: socket.socket, listener: socket.socket) -> None:
    """A question, an answer, and an orderly end, which the client begins."""
    served, _ = listener.accept()
    with served:
        client.sendall(b"question")
        assert served.recv(100) == b"question"
        served.sendall(b"answer")
        assert client.recv(100) == b"answer"
        client.close()
        assert served.recv(100) == b""


def was_measured(end: Events) -> bool:
    return 0 < end["handshake"] < A_SECOND and 0 < end["min_rtt"] <= A_SECOND and 0 < end["rtt"] < A_SECOND


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("target", ["near", "far"])
def test_the_end_of_a_connection_says_how_it_was(
    cluster: Cluster, group: Group, ends: Callable[[int], Events], target: str, version: int
) -> None:
    there = cluster.pods[target]
    with group.inside(), listening(there.namespace, PORT) as server:
        talk(connect(cluster.pods["client"].namespace, there.addresses[version], PORT), server)
    (end,) = ends(1)
    assert was_measured(end)
    assert end["retransmissions"].tolist() == [0, 0]


def test_who_answers_measures_where_the_caller_is_elsewhere(
    cluster: Cluster, group: Group, ends: Callable[[int], Events]
) -> None:
    near = cluster.pods["near"]
    with group.inside(), listening(near.namespace, PORT) as server:
        cgroups.join(group._home, os.getpid())
        talk(connect(cluster.pods["far"].namespace, near.addresses[4], PORT), server)
    (end,) = ends(1)
    assert was_measured(end)


def test_of_sockets_outside_of_the_group_nothing_is_known(
    cluster: Cluster, group: Group, ends: Callable[[int], Events]
) -> None:
    near = cluster.pods["near"]
    with listening(near.namespace, PORT) as server:
        talk(connect(cluster.pods["client"].namespace, near.addresses[4], PORT), server)
    (end,) = ends(1)
    assert (end["handshake"], end["rtt"], end["min_rtt"]) == (0, 0, 0)


def test_a_lost_syn_makes_the_handshake_long(
    cluster: Cluster, group: Group, ends: Callable[[int], Events]
) -> None:
    """It is sent again after a second."""
    unreachable = f"blackhole {cluster.nodes[0].addresses[4]}"
    ip([f"route add {unreachable}"], cluster.world)
    with group.inside(), listening(cluster.world, PORT) as server:
        with inside(cluster.pods["client"].namespace):
            client = socket.socket()
        client.settimeout(15)
        calling = threading.Thread(target=client.connect, args=((WORLD[4], PORT),))
        calling.start()
        wait_for_retransmission(client)
        ip([f"route del {unreachable}"], cluster.world)
        calling.join()
        talk(client, server)
    (end,) = ends(1)
    assert end["handshake"] > A_SECOND / 2
    assert end["retransmissions"][0] > 0
    assert end["retransmissions"][1] == 0


def wait_for_retransmission(sender: socket.socket) -> None:
    deadline = time.monotonic() + 10
    while not struct.unpack_from("I", sender.getsockopt(socket.SOL_TCP, socket.TCP_INFO, 120), RETRANSMITTED)[
        0
    ]:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("who", ["client", "server"])
def test_what_is_sent_again_is_counted_by_who_sent_it(
    cluster: Cluster, group: Group, ends: Callable[[int], Events], who: str
) -> None:
    """It arrived; that it did is lost."""
    pods = [cluster.pods[name] for name in ("client", "near")]
    with group.inside(), listening(pods[1].namespace, PORT) as server:
        client = connect(pods[0].namespace, pods[1].addresses[4], PORT)
        served, _ = server.accept()
        with client, served:
            sender, receiver, there, back = (
                (client, served, pods[1], pods[0]) if who == "client" else (served, client, *pods)
            )
            ip([f"route add blackhole {back.addresses[4]}"], there.namespace)
            sender.sendall(b"unconfirmed")
            wait_for_retransmission(sender)
            ip([f"route del blackhole {back.addresses[4]}"], there.namespace)
            assert receiver.recv(100) == b"unconfirmed"
            client.close()
            assert served.recv(100) == b""
    (end,) = ends(1)
    again = end["retransmissions"].tolist()
    assert (again[0] > 0, again[1] > 0) == (who == "client", who == "server")


def test_a_connection_to_a_service_is_found_where_packets_are_translated(
    cluster: Cluster, group: Group, ends: Callable[[int], Events]
) -> None:
    """The client's socket knows the service's address, the flow table the backend's."""
    far = cluster.pods["far"]
    with balancer_of(cluster) as balancer:
        backend = {1: (ip_address(far.addresses[4]), PORT)}
        balancer.simple(ip_address(SERVICE[4]), PORT, socket.IPPROTO_TCP, backend)
        with listening(far.namespace, PORT) as server, group.inside():
            talk(connect(cluster.pods["client"].namespace, SERVICE[4], PORT), server)
    (end,) = ends(1)
    assert was_measured(end)


def test_a_connection_through_a_proxy_is_two_each_with_its_own_figures(
    cluster: Cluster, group: Group, ends: Callable[[int], Events]
) -> None:
    near = cluster.pods["near"]
    node = cluster.nodes[0]
    with group.inside(), Proxy(node.namespace, EGRESS_PORT, "egress"):
        send(node, CLIENT, TO, EGRESS_PORT)
        with listening(near.namespace, PORT) as server:
            talk(connect(cluster.pods["client"].namespace, near.addresses[4], PORT), server)
            found = ends(2)
        send(node, CLIENT, TO, 0)
    assert found["zone"].tolist() == [0, 1]
    assert all(was_measured(end) for end in found)
