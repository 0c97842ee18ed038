"""A client, a server beside it, one on the other node, and a world that knows the way to a service."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from balancing import Balancer
from two_nodes import WORLD, Cluster

from axoneme.net.commands import ip

CLIENT, SERVER = 300, 301
SERVICE = {4: "10.96.0.10", 6: "fd00:10:96::10"}


@contextmanager
def with_servers(overlay: bool) -> Iterator[Cluster]:
    made = Cluster(overlay=overlay)
    try:
        made.plug(1, "client", 10, CLIENT, app="client")
        made.plug(1, "near", 11, SERVER, app="server")
        made.plug(2, "far", 10, SERVER, app="server")
        ip([f"route add {SERVICE[v]} via {made.nodes[0].addresses[v]}" for v in (4, 6)], made.world)
        yield made
    finally:
        made.close()


@contextmanager
def balancer_of(cluster: Cluster) -> Iterator[Balancer]:
    """That of node 1, without services at first, and afterwards."""
    one = cluster.nodes[0]
    made = Balancer(one.plane, one.folder / "bpf")
    made.clear()
    yield made
    made.clear()
    made.close()


def place(cluster: Cluster, name: str) -> tuple[Path, dict[int, str]]:
    """Where a node, a pod or the world is, and its addresses."""
    if name == "world":
        return cluster.world, WORLD
    if name.startswith("node"):
        one = cluster.nodes[int(name[4:]) - 1]
        return one.namespace, one.addresses
    return cluster.pods[name].namespace, cluster.pods[name].addresses
