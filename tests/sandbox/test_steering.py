"""Connections that policy sends to a proxy, with real packets: it sees them all, and nobody sees it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from ipaddress import ip_address

import numpy as np
import pytest
from proxies import Proxy
from two_nodes import Cluster, Node, Pod, connect, listening

CLIENT, SERVER = 300, 301
EGRESS_PORT, INGRESS_PORT = 10000, 10001
TO, FROM = 1, 0
VERSIONS = pytest.mark.parametrize("version", [4, 6])


@pytest.fixture(scope="module", params=["overlay", "native"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    made = Cluster(overlay=request.param == "overlay")
    try:
        made.plug(1, "client", 10, CLIENT, app="client")
        made.plug(1, "near", 11, SERVER, app="server")
        made.plug(2, "far", 10, SERVER, app="server")
        yield made
    finally:
        made.close()


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


def call(source: Pod, address: str, port: int, word: bytes = b"hello") -> bytes:
    with connect(source.namespace, address, port) as talk:
        talk.sendall(word)
        talk.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: talk.recv(4096), b""))


@contextlib.contextmanager
def echo(server: Pod, port: int) -> Iterator[list[str]]:
    """Answers one after the other with what it got; the addresses of who has called."""
    import threading

    callers: list[str] = []
    with listening(server.namespace, port) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    talk, sender = listener.accept()
                    address = ip_address(sender[0])
                    callers.append(str(getattr(address, "ipv4_mapped", None) or address))
                    with talk, contextlib.suppress(OSError):
                        while data := talk.recv(4096):
                            talk.sendall(data)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield callers
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@VERSIONS
@pytest.mark.parametrize("where", ["near", "far"])
def test_what_a_pod_calls_goes_by_its_nodes_proxy(cluster: Cluster, version: int, where: str) -> None:
    client, server = cluster.pods["client"], cluster.pods[where]
    send(cluster.nodes[0], CLIENT, TO, EGRESS_PORT)
    with Proxy(cluster.nodes[0].namespace, EGRESS_PORT, "egress") as proxy, echo(server, 80) as callers:
        assert call(client, server.addresses[version], 80) == b"hello"
        assert proxy.seen == [(client.addresses[version], server.addresses[version], 80)]
        assert callers == [client.addresses[version]]


@VERSIONS
@pytest.mark.parametrize("where", ["near", "far"])
def test_what_calls_a_pod_goes_by_its_nodes_proxy(cluster: Cluster, version: int, where: str) -> None:
    client, server = cluster.pods["client"], cluster.pods[where]
    send(server.node, SERVER, FROM, INGRESS_PORT)
    with Proxy(server.node.namespace, INGRESS_PORT, "ingress") as proxy, echo(server, 80) as callers:
        assert call(client, server.addresses[version], 80) == b"hello"
        assert proxy.seen == [(client.addresses[version], server.addresses[version], 80)]
        assert callers == [client.addresses[version]]
