"""Connections that policy sends to a proxy, with real packets: it sees them all, and nobody sees it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import numpy as np
import pytest
from balancing import ANY, EXTERNAL, Balancer
from exchanges import over_tcp, over_udp
from proxies import Proxy
from served import CLIENT, SERVER, SERVICE, balancer_of, place, with_servers
from two_nodes import Cluster, Node, connect, inside, listening

from axoneme.datapath.counters import drops
from axoneme.datapath.plane import packed
from axoneme.net import proxying
from oracle.packets import TCP, UDP

EGRESS_PORT, INGRESS_PORT = 10000, 10001
TO, FROM = 1, 0
NO_PROXY = 178  # enum drop_reason
ESTABLISHED, CLOSED, SETTLED = 1, 3, 1 << 2  # enum flow_state, flow_flag
VERSIONS = pytest.mark.parametrize("version", [4, 6])


@pytest.fixture(scope="module", params=["overlay", "native"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with with_servers(request.param == "overlay") as made:
        yield made


@dataclass
class Proxies:
    """``egress``: of node 1; ``ingress``: of both nodes."""

    egress: Proxy
    ingress: list[Proxy]

    def forget(self) -> None:
        for each in (self.egress, *self.ingress):
            each.seen.clear()


@pytest.fixture(scope="module")
def running(cluster: Cluster) -> Iterator[Proxies]:
    with ExitStack() as stack:
        yield Proxies(
            stack.enter_context(Proxy(cluster.nodes[0].namespace, EGRESS_PORT, "egress")),
            [stack.enter_context(Proxy(one.namespace, INGRESS_PORT, "ingress")) for one in cluster.nodes],
        )


@pytest.fixture
def proxies(running: Proxies) -> Proxies:
    running.forget()
    return running


@pytest.fixture
def balancer(cluster: Cluster) -> Iterator[Balancer]:
    with balancer_of(cluster) as made:
        yield made


@pytest.fixture(autouse=True)
def nobody_is_asked(cluster: Cluster) -> Iterator[None]:
    """No policy asks for a proxy after a test."""
    yield
    for one in cluster.nodes:
        send(one, CLIENT, TO, 0)
        send(one, SERVER, FROM, 0)


def send(one: Node, subject: int, direction: int, port: int) -> None:
    """Has a node send all of a subject's traffic in one direction to the proxy at this port; 0: to nobody."""
    plane = one.plane
    key = np.zeros((), plane.policies.key)
    key["prefix_length"], key["subject"], key["direction"] = 72, subject, direction
    value = np.zeros((), plane.policies.value)
    value["verdict"], value["proxy_port"] = 1, port
    plane.policies.put(key, value)
    plane.raise_subjects([subject])


@dataclass(frozen=True)
class Way:
    """Who calls whom, as what, and which halves of policy ask for a proxy."""

    client: str
    server: str
    halves: tuple[int, ...]
    called: str = "itself"

    def __str__(self) -> str:
        proxies = "+".join({TO: "egress", FROM: "ingress"}[half] for half in self.halves)
        return f"{self.client}-{self.server}-{self.called}-{proxies}"


WAYS = [
    *(Way("client", server, (TO,)) for server in ("near", "far", "world", "node2")),
    *(Way("client", server, (FROM,)) for server in ("near", "far")),
    *(Way(client, "near", (FROM,)) for client in ("node1", "node2", "far")),
    *(Way("client", server, (TO, FROM)) for server in ("near", "far")),
    *(Way("client", server, (TO,), "service") for server in ("near", "far", "world")),
    *(Way("client", server, (TO, FROM), "service") for server in ("near", "far")),
    *(Way("world", server, (FROM,), called) for server in ("near", "far") for called in ("service", "port")),
]


@VERSIONS
@pytest.mark.parametrize("protocol", [TCP, UDP], ids=["tcp", "udp"])
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_proxy_sees_what_policy_sends_to_it_and_server_and_client_see_each_other(
    cluster: Cluster, proxies: Proxies, balancer: Balancer, version: int, protocol: int, way: Way
) -> None:
    source, _ = place(cluster, way.client)
    target, addresses = place(cluster, way.server)
    address = addresses[version]
    balancer.backend(1, ip_address(address), 8080, protocol)
    balancer.service(1, [1])
    balancer.frontend(ip_address(SERVICE[version]), 80, protocol, 1, EXTERNAL)
    balancer.frontend(ANY[version], 30080, protocol, 1, EXTERNAL)
    to, port = {
        "itself": (address, 8080),
        "service": (SERVICE[version], 80),
        "port": (cluster.nodes[0].addresses[version], 30080),
    }[way.called]

    def exchange() -> str:
        if protocol == TCP:
            return over_tcp(target, source, to, port)
        return over_udp(target, address, source, to, port, 1024)

    seen_as = exchange()
    assert not proxies.egress.seen and not any(each.seen for each in proxies.ingress)
    if TO in way.halves:
        send(cluster.nodes[0], CLIENT, TO, EGRESS_PORT)
    where = cluster.nodes.index(cluster.pods[way.server].node) if FROM in way.halves else 0
    if FROM in way.halves:
        send(cluster.nodes[where], SERVER, FROM, INGRESS_PORT)
    assert exchange() == seen_as
    if TO in way.halves:
        assert (cluster.pods["client"].addresses[version], address, 8080) in proxies.egress.seen
    if FROM in way.halves:
        assert (seen_as, address, 8080) in proxies.ingress[where].seen


# ---- what changes, and what is missing ----------------------------------------------------------


@contextmanager
def talking(
    cluster: Cluster, client: str, server: str, version: int, port: int = 8080
) -> Iterator[Conversation]:
    """A connection that is up: both have said something."""
    source, _ = place(cluster, client)
    target, addresses = place(cluster, server)
    with listening(target, port) as waiting, closing(connect(source, addresses[version], port)) as caller:
        accepted, _ = waiting.accept()
        with accepted:
            accepted.settimeout(10)
            talk = Conversation(caller, accepted)
            talk.go_on()
            yield talk


@dataclass
class Conversation:
    client: socket.socket
    server: socket.socket

    def go_on(self) -> None:
        for sender, receiver in ((self.client, self.server), (self.server, self.client)):
            sender.sendall(b"word")
            assert receiver.recv(4) == b"word"

    def is_reset(self) -> None:
        """Both ends hear of it when one of them says something."""
        with suppress(ConnectionResetError):
            self.client.sendall(b"word")
        for each in (self.client, self.server):
            with pytest.raises(ConnectionResetError):
                while each.recv(4096):
                    pass


@VERSIONS
@pytest.mark.parametrize("server", ["near", "far", "world"])
def test_a_connection_that_lives_without_the_proxy_that_policy_wants_is_reset_at_both_ends(
    cluster: Cluster, proxies: Proxies, version: int, server: str
) -> None:
    with talking(cluster, "client", server, version) as talk:
        send(cluster.nodes[0], CLIENT, TO, EGRESS_PORT)
        talk.is_reset()
    with talking(cluster, "client", server, version):
        assert len(proxies.egress.seen) == 1


@VERSIONS
@pytest.mark.parametrize("client", ["client", "far", "node1", "node2"])
def test_so_is_one_that_comes_to_a_pod(cluster: Cluster, proxies: Proxies, version: int, client: str) -> None:
    with talking(cluster, client, "near", version) as talk:
        send(cluster.nodes[0], SERVER, FROM, INGRESS_PORT)
        talk.is_reset()
    with talking(cluster, client, "near", version):
        assert len(proxies.ingress[0].seen) == 1


@VERSIONS
def test_the_server_may_be_the_first_to_speak(cluster: Cluster, proxies: Proxies, version: int) -> None:
    with talking(cluster, "client", "far", version) as talk:
        send(cluster.nodes[0], CLIENT, TO, EGRESS_PORT)
        Conversation(talk.server, talk.client).is_reset()


@VERSIONS
def test_another_proxy_gets_new_connections_and_an_old_one_is_reset(
    cluster: Cluster, proxies: Proxies, version: int
) -> None:
    send(cluster.nodes[0], CLIENT, TO, EGRESS_PORT)
    with talking(cluster, "client", "far", version) as talk:
        send(cluster.nodes[0], CLIENT, TO, EGRESS_PORT + 5)
        with Proxy(cluster.nodes[0].namespace, EGRESS_PORT + 5, "egress") as other:
            with suppress(OSError):
                talk.client.sendall(b"word")
            for each in (talk.client, talk.server):
                with suppress(ConnectionResetError):
                    while each.recv(4096):
                        pass
            with talking(cluster, "client", "far", version, 8081):
                assert len(other.seen) == 1


@VERSIONS
def test_a_connection_that_needs_no_proxy_any_more_stays_with_it(
    cluster: Cluster, proxies: Proxies, version: int
) -> None:
    send(cluster.nodes[0], CLIENT, TO, EGRESS_PORT)
    with talking(cluster, "client", "far", version) as talk:
        send(cluster.nodes[0], CLIENT, TO, 0)
        talk.go_on()
        with talking(cluster, "client", "far", version, 8081):
            assert len(proxies.egress.seen) == 1
        talk.go_on()


@VERSIONS
def test_where_nobody_listens_nothing_passes(cluster: Cluster, version: int) -> None:
    send(cluster.nodes[0], CLIENT, TO, EGRESS_PORT + 9)
    client, server = cluster.pods["client"], cluster.pods["far"]
    before = dropped(cluster.nodes[0])
    with listening(server.namespace, 8080), pytest.raises(TimeoutError):
        connect(client.namespace, server.addresses[version], 8080, 0.4)
    with pytest.raises(TimeoutError):
        over_udp(
            server.namespace,
            server.addresses[version],
            client.namespace,
            server.addresses[version],
            8080,
            256,
        )
    assert dropped(cluster.nodes[0]) >= before + 2


def dropped(one: Node) -> int:
    """For want of a proxy."""
    found = drops(one.plane.drops, one.plane.schema)
    return sum(int(each.packets) for each in found if each.reason == NO_PROXY)


@VERSIONS
def test_without_the_nodes_rule_nothing_passes_by_the_proxy(
    cluster: Cluster, proxies: Proxies, version: int
) -> None:
    one = cluster.nodes[0]
    send(one, CLIENT, TO, EGRESS_PORT)
    with talking(cluster, "client", "far", version) as talk:
        with inside(one.namespace):
            assert proxying.withdraw()
            assert len(proxying.missing((4, 6))) == 4
        talk.client.sendall(b"word")
        talk.server.settimeout(0.4)
        with pytest.raises(TimeoutError):
            talk.server.recv(4)
        with inside(one.namespace):
            assert len(proxying.direct((4, 6))) == 4
            assert not proxying.missing((4, 6))
        talk.server.settimeout(10)
        assert talk.server.recv(4) == b"word"
        talk.go_on()


@VERSIONS
@pytest.mark.parametrize("protocol", [TCP, UDP], ids=["tcp", "udp"])
def test_the_node_itself_is_called_by_its_proxy(
    cluster: Cluster, proxies: Proxies, version: int, protocol: int
) -> None:
    """By loopback, where no program is: its answers are seen only."""
    client, one = cluster.pods["client"], cluster.nodes[0]
    to, own = one.addresses[version], client.addresses[version]
    send(one, CLIENT, TO, EGRESS_PORT)
    if protocol == TCP:
        assert over_tcp(one.namespace, client.namespace, to, 8080) == own
    else:
        assert over_udp(one.namespace, to, client.namespace, to, 8080, 1024) == own
    assert (own, to, 8080) in proxies.egress.seen


@VERSIONS
def test_a_proxy_that_is_flooded_takes_connections_by_cookies(
    cluster: Cluster, proxies: Proxies, version: int
) -> None:
    one = cluster.nodes[0]
    send(one, CLIENT, TO, EGRESS_PORT)
    send(one, SERVER, FROM, INGRESS_PORT)
    knob = Path("/proc/sys/net/ipv4/tcp_syncookies")
    with inside(one.namespace):
        before = knob.read_text()
        knob.write_text("2")  # without looking whether there is need
    try:
        for client in ("client", "far", "node1"):
            with talking(cluster, client, "near", version) as talk:
                talk.go_on()
        assert (len(proxies.egress.seen), len(proxies.ingress[0].seen)) == (1, 3)
    finally:
        with inside(one.namespace):
            knob.write_text(before)


@VERSIONS
@pytest.mark.parametrize("way", [TO, FROM], ids=["egress", "ingress"])
def test_a_connection_that_the_tables_have_lost_goes_on(
    cluster: Cluster, proxies: Proxies, version: int, way: int
) -> None:
    """Whoever speaks first: its proxy, the client, or the server."""
    one = cluster.nodes[0]
    send(one, CLIENT if way == TO else SERVER, way, EGRESS_PORT if way == TO else INGRESS_PORT)
    client, server = ("client", "far") if way == TO else ("far", "near")
    with talking(cluster, client, server, version) as talk:
        for speaks in (talk, Conversation(talk.server, talk.client)):
            one.plane.flows.clear()
            one.plane.half_open.clear()
            speaks.go_on()


@VERSIONS
def test_a_client_that_calls_again_from_the_same_port_is_answered(
    cluster: Cluster, proxies: Proxies, version: int
) -> None:
    """Whatever the proxy still has of its last connection."""
    send(cluster.nodes[0], CLIENT, TO, EGRESS_PORT)
    client, to = cluster.pods["client"].namespace, cluster.pods["far"].addresses[version]
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with listening(cluster.pods["far"].namespace, 8080) as waiting:
        for _ in range(3):
            with inside(client):
                caller = socket.socket(family)
            with caller:
                caller.settimeout(20)
                caller.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                caller.bind(("", 45678))
                caller.connect((to, 8080))
                accepted, _ = waiting.accept()
                accepted.close()  # it ends first, and so does its proxy
                assert caller.recv(1) == b""
    assert len(proxies.egress.seen) == 3


def flows(one: Node, address: str) -> list[tuple[int, int, bool]]:
    """Zone, state, and whether it has a place of its own, of each connection over TCP with this address and
    port 8080."""
    found = []
    wanted = np.frombuffer(packed(ip_address(address)), "u1")
    for table in (one.plane.flows, one.plane.half_open):
        keys, values = table.read_all()
        for key, value in zip(keys, values, strict=True):
            ends = ((key["low"], key["low_port"]), (key["high"], key["high_port"]))
            if key["protocol"] == TCP and any((a == wanted).all() and p == 8080 for a, p in ends):
                found.append((int(key["zone"]), int(value["state"]), bool(value["flags"] & SETTLED)))
    return sorted(found)


@VERSIONS
@pytest.mark.parametrize(
    ("client", "server", "way"),
    [("client", "near", TO), ("client", "far", TO), ("client", "world", TO), ("client", "near", FROM),
     ("node2", "near", FROM)],
)  # fmt: skip
def test_both_flows_follow_their_connections(
    cluster: Cluster, proxies: Proxies, version: int, client: str, server: str, way: int
) -> None:
    one = cluster.nodes[0]
    address = place(cluster, server)[1][version]
    send(one, CLIENT if way == TO else SERVER, way, EGRESS_PORT if way == TO else INGRESS_PORT)
    one.plane.flows.clear()
    one.plane.half_open.clear()
    with talking(cluster, client, server, version) as talk:
        talk.go_on()
        assert flows(one, address) == [(0, ESTABLISHED, True), (1, ESTABLISHED, True)]
    for _ in range(100):
        if flows(one, address) == [(0, CLOSED, True), (1, CLOSED, True)]:
            break
        threading.Event().wait(0.05)
    else:
        pytest.fail(f"they have not ended: {flows(one, address)}")


@VERSIONS
def test_without_an_agent_it_goes_on(cluster: Cluster, proxies: Proxies, version: int) -> None:
    one = cluster.nodes[0]
    send(one, CLIENT, TO, EGRESS_PORT)
    with talking(cluster, "client", "far", version) as talk:
        one.stop()
        try:
            talk.go_on()
            with talking(cluster, "client", "far", version, 8081) as another:
                another.go_on()
            assert len(proxies.egress.seen) == 2
        finally:
            cluster.restart(1)
        talk.go_on()
