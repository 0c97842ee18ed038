"""Peers by DNS name and by the labels of nodes, with real packets; who was told what is played."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator

import pytest
from two_nodes import POLICY, WORLD, Cluster, Node, connect, listening

from axoneme.agent.names import Names, connections
from axoneme.model.l7 import NameMatch
from axoneme.model.labels import Selector, equals
from axoneme.model.policy import (
    ALL_PORTS,
    Direction,
    NamePeer,
    NodePeer,
    Policy,
    PolicyRef,
    PortRange,
    Protocol,
    Rule,
)
from axoneme.proxy.names import Answer, Learn

QUICK = 0.4
CLIENT, SERVER = 300, 301


@pytest.fixture(scope="module", params=["overlay", "native"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    made = Cluster(overlay=request.param == "overlay")
    try:
        made.plug(1, "client", 10, CLIENT, app="client")
        made.plug(2, "far", 10, SERVER, app="server")
        yield made
    finally:
        made.close()


def policy(app: str, *rules: Rule) -> Policy:
    return Policy(
        PolicyRef(POLICY.kind, POLICY.namespace, POLICY.name),
        Selector((equals("any", "app", app),)),
        rules,
        frozenset(rule.direction for rule in rules),
    )


def by_name(*names: str) -> Policy:
    peers = tuple(NamePeer(NameMatch(name, "*" in name)) for name in names)
    return policy("client", Rule(Direction.EGRESS, peers, (PortRange(Protocol.TCP, 80, 80),)))


def names_on(node: Node, clock: list[float]) -> Names:
    """What the agent of a node has of them."""
    names = Names(
        node.control,
        node.endpoints,
        node.names,
        node.folder,
        (4, 6),
        connections(lambda: node.plane),
        lambda: clock[0],
    )
    names.restore()
    return names


def passes(one: socket.socket, other: socket.socket, seconds: float = 5) -> bool:
    """Whether a connection carries data both ways."""
    for sender, receiver in ((one, other), (other, one)):
        receiver.settimeout(seconds)
        sender.sendall(b"x")
        try:
            if receiver.recv(1) != b"x":
                return False
        except (TimeoutError, ConnectionResetError):
            return False
    return True


def told(names: Names, clock: list[float], name: str, *addresses: str, ttl: int = 100) -> None:
    answer = Answer(int(clock[0]), "10.244.1.10", name, dict.fromkeys(addresses, ttl))
    asyncio.run(names.learn(Learn((answer,))))


NATIVE = pytest.mark.parametrize("cluster", ["native"], indirect=True)


@NATIVE
def test_a_name_opens_the_way_to_its_addresses_and_live_connections_keep_theirs(cluster: Cluster) -> None:
    client, first = cluster.pods["client"], cluster.nodes[0]
    clock = [time.time()]
    names = names_on(first, clock)
    cluster.enforce(by_name("*.example.com"))
    with listening(cluster.world, 80) as server:
        with pytest.raises(TimeoutError):
            connect(client.namespace, WORLD[4], 80, QUICK)
        told(names, clock, "www.example.com", *WORLD.values())
        opened = {version: connect(client.namespace, WORLD[version], 80) for version in (4, 6)}
        served = [server.accept()[0] for _ in opened]
        opened[6].close()
        asyncio.run(names.sweep())  # nothing is due yet
        assert {line.address for line in names.lines()} == set(WORLD.values())
        clock[0] += 120
        # The entry of the one that was closed is over when its FINs are answered.
        served[1].close()
        deadline = time.monotonic() + 10
        while {line.address for line in names.lines()} != {WORLD[4]} and time.monotonic() < deadline:
            asyncio.run(names.sweep())
        assert {line.address for line in names.lines()} == {WORLD[4]}, "it has a connection"
        with pytest.raises(TimeoutError):
            connect(client.namespace, WORLD[6], 80, QUICK)
        with opened[4], served[0]:
            assert passes(opened[4], served[0])
            connect(client.namespace, WORLD[4], 80).close()


@NATIVE
def test_a_live_connection_is_not_held_up_when_its_name_moves_to_another_selector(cluster: Cluster) -> None:
    """Nor when another agent takes over that has no word of what was learnt."""
    client, first = cluster.pods["client"], cluster.nodes[0]
    clock = [time.time()]
    names = names_on(first, clock)
    cluster.enforce(by_name("www.example.com"))
    told(names, clock, "www.example.com", WORLD[4])
    with listening(cluster.world, 80) as server, connect(client.namespace, WORLD[4], 80) as mine:
        theirs = server.accept()[0]
        with theirs:
            cluster.enforce(by_name("*.example.com"))
            assert passes(mine, theirs)
            first.stop()
            first.start()
            cluster._tell(first)
            first.control.local_subject(CLIENT, "client", True)
            cluster.enforce_on(first, (by_name("*.example.com"),))
            again = names_on(first, clock)
            assert first.control.start() == 0
            assert passes(mine, theirs)
            clock[0] += 120
            asyncio.run(again.sweep())
            assert passes(mine, theirs)
            cluster.enforce(by_name("www.example.org"))
            assert not passes(mine, theirs, QUICK)


@pytest.mark.parametrize("version", [4, 6])
def test_nodes_by_their_labels(cluster: Cluster, version: int) -> None:
    """Also over the overlay, where a node says of itself only that it is one."""
    first, second = cluster.nodes
    for node in cluster.nodes:
        node.control.node_labels(first.name, {"zone": "a"})
        node.control.node_labels(second.name, {"zone": "b"})
    far, client = cluster.pods["far"], cluster.pods["client"]

    def from_zone(zone: str) -> Policy:
        peers = (NodePeer(Selector((equals("any", "zone", zone),))),)
        return policy("server", Rule(Direction.INGRESS, peers, ALL_PORTS))

    def to_zone(zone: str) -> Policy:
        peers = (NodePeer(Selector((equals("any", "zone", zone),))),)
        return policy("client", Rule(Direction.EGRESS, peers, ALL_PORTS))

    with listening(far.namespace, 80), listening(second.namespace, 81), listening(first.namespace, 81):
        cluster.enforce(from_zone("b"))
        with pytest.raises(TimeoutError):
            connect(first.namespace, far.addresses[version], 80, QUICK)
        cluster.enforce(from_zone("a"))
        connect(first.namespace, far.addresses[version], 80).close()
        with pytest.raises(TimeoutError):
            connect(client.namespace, far.addresses[version], 80, QUICK)
        cluster.enforce(to_zone("a"))
        with pytest.raises(TimeoutError):
            connect(client.namespace, second.addresses[version], 81, QUICK)
        with pytest.raises(TimeoutError):  # its own node is none of the others
            connect(client.namespace, first.addresses[version], 81, QUICK)
        cluster.enforce(to_zone("b"))
        connect(client.namespace, second.addresses[version], 81).close()
