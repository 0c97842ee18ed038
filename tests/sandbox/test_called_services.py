"""Calls of services at the socket, and what a node knows of their packets. The tables are written by hand."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import pytest
from callers import RANDOM, UDP, Place, Services, own_group, place
from two_nodes import POLICY, Cluster, Pod, connect, inside, listening

from axoneme.datapath.ring import RingReader
from axoneme.model.labels import Selector, equals
from axoneme.model.policy import Direction, Policy, PolicyRef

CLIENT, SERVER = 300, 301
SERVICE = {4: place("10.96.0.1", 80), 6: place("fd00:96::1", 80)}
VERSIONS = pytest.mark.parametrize("version", [4, 6])
KINDS = pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])


@dataclass
class World:
    cluster: Cluster
    services: Services

    def pod(self, name: str) -> Pod:
        return self.cluster.pods[name]

    def serve(self, version: int, pod: str) -> Place:
        """The service of this version, by this pod."""
        backend = ip_address(self.pod(pod).addresses[version]), 8080
        self.services.reset()
        for number, protocol in ((1, socket.IPPROTO_TCP), (2, UDP)):
            self.services.serve(number, [SERVICE[version]], {10 + number: backend}, protocol, 0, RANDOM)
        return backend

    def flows(self) -> dict[tuple[int, int], Any]:
        """Of node 1, by protocol and number of the service."""
        plane = self.cluster.nodes[0].plane
        rows = [table.read_all() for table in (plane.half_open, plane.flows)]
        return {
            (int(key["protocol"]), int(flow["service"])): flow
            for keys, flows in rows
            for key, flow in zip(keys, flows, strict=True)
        }

    def forget(self) -> None:
        plane = self.cluster.nodes[0].plane
        plane.flows.clear()
        plane.half_open.clear()


@pytest.fixture(scope="module")
def loaded() -> Iterator[World]:
    cluster = Cluster(overlay=True)
    try:
        with own_group("calls") as group:
            for node, name, host, identity in ((1, "client", 10, CLIENT), (1, "near", 11, SERVER)):
                cluster.plug(node, name, host, identity, app=name)
            cluster.plug(2, "far", 10, SERVER, app="far")
            one = cluster.nodes[0]
            one.plane.attach_sockets(group)
            services = Services(one.folder / "bpf", one.plane)
            yield World(cluster, services)
            services.close()
            one.plane.detach_sockets()
    finally:
        cluster.close()


@pytest.fixture
def world(loaded: World) -> World:
    loaded.forget()
    return loaded


@VERSIONS
@pytest.mark.parametrize("server", ["near", "far"])
def test_a_flow_names_the_service_that_was_called(world: World, server: str, version: int) -> None:
    _, port = world.serve(version, server)
    with listening(world.pod(server).namespace, port):
        connect(world.pod("client").namespace, str(SERVICE[version][0]), 80).close()
    flow = world.flows()[socket.IPPROTO_TCP, 1]
    assert (flow["backend"], flow["frontend_port"]) == (11, 80)
    assert bytes(flow["frontend"])[-4:] == SERVICE[version][0].packed[-4:]


@VERSIONS
@pytest.mark.parametrize("connected", [True, False])
def test_a_flow_of_datagrams_names_the_service(world: World, connected: bool, version: int) -> None:
    _, port = world.serve(version, "far")
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with listening(world.pod("far").namespace, port, socket.SOCK_DGRAM) as server:
        with inside(world.pod("client").namespace):
            client = socket.socket(family, socket.SOCK_DGRAM)
        to = str(SERVICE[version][0]), 80
        with client:
            client.settimeout(10)
            if connected:
                client.connect(to)
                client.send(b"question")
            else:
                client.sendto(b"question", to)
            _, sender = server.recvfrom(100)
            server.sendto(b"answer", sender)
            answer, heard = client.recvfrom(100)
            assert (answer, heard[:2]) == (b"answer", to)
    flow = world.flows()[UDP, 2]
    assert (flow["backend"], flow["frontend_port"]) == (12, 80)


@VERSIONS
def test_a_drop_names_the_service(world: World, version: int) -> None:
    _, port = world.serve(version, "far")
    one = world.cluster.nodes[0]
    event = one.plane.schema.struct("event")
    world.cluster.enforce(nobody())
    try:
        with (
            listening(world.pod("far").namespace, port),
            RingReader.pinned(one.folder / "bpf" / "maps" / "drop_events", event) as drops,
        ):
            drops.read()
            with pytest.raises(TimeoutError):
                connect(world.pod("client").namespace, str(SERVICE[version][0]), 80, timeout=0.4)
            found = [each for each in drops.read() if each["destination_port"] == port]
    finally:
        world.cluster.enforce()
    assert {(int(each["service"]), int(each["backend"])) for each in found} == {(1, 11)}
    assert {int(each["frontend_port"]) for each in found} == {80}


def nobody() -> Policy:
    """The client may call nobody."""
    return Policy(
        PolicyRef(POLICY.kind, POLICY.namespace, POLICY.name),
        Selector((equals("any", "app", "client"),)),
        (),
        frozenset({Direction.EGRESS}),
    )


@VERSIONS
def test_a_flow_that_was_not_called_by_a_service_names_none(world: World, version: int) -> None:
    address, port = world.serve(version, "far")
    with listening(world.pod("far").namespace, port):
        connect(world.pod("client").namespace, str(address), port).close()
    assert {service for _, service in world.flows()} == {0}


@VERSIONS
def test_the_node_itself_calls_a_service(world: World, version: int) -> None:
    _, port = world.serve(version, "near")
    with listening(world.pod("near").namespace, port):
        connect(world.cluster.nodes[0].namespace, str(SERVICE[version][0]), 80).close()
    assert world.flows()[socket.IPPROTO_TCP, 1]["backend"] == 11
