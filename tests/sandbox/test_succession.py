"""Tables are succeeded by others, larger ones or those of another release, while packets flow."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
import releases
from bench_node import private_network
from traffic import Traffic, wait_until_moved
from two_nodes import WORLD, Cluster, inside

from axoneme.agent.balancer import Balancer
from axoneme.agent.highmark import HighMark
from axoneme.datapath import attach, bpffs, clsact, succession
from axoneme.datapath.bpf import NotFound
from axoneme.datapath.plane import Datapath
from axoneme.datapath.schema import OBJECTS, Schema
from axoneme.datapath.succession import Succession
from axoneme.flows.events import Vocabulary
from axoneme.flows.expiry import FlowTable
from axoneme.flows.kernel import Kernel, OtherSchema, lifetimes
from axoneme.flows.servicenames import ServicePort
from axoneme.flows.traffic import Tally
from axoneme.flowserver.sweep import Sweep
from axoneme.model.policy import Protocol
from axoneme.services.balanced import Algorithm, Backend, Balanced, Frontend, FrontendKind

CLIENT, SERVER = 300, 301


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster(overlay=True)
    try:
        made.plug(1, "client", 10, CLIENT, app="client")
        made.plug(1, "near", 11, SERVER, app="server")
        made.plug(2, "far", 10, SERVER, app="server")
        yield made
    finally:
        made.close()


class Sweeper(threading.Thread):
    """What the flow server does to the tables of the first node, whichever they are."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(daemon=True)
        self._node = cluster.nodes[0]
        self._end = threading.Event()
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._end.is_set():
                with contextlib.suppress(OtherSchema, NotFound):
                    self._sweep(self._node.plane.schema)
        except BaseException as error:
            self.failure = error

    def _sweep(self, schema: Schema) -> None:
        with Kernel(self._node.folder / "bpf/maps", schema) as kernel:
            vocabulary = Vocabulary.read(schema.struct("event"), schema.enums)
            meaning = FlowTable.read(schema.enums, lifetimes().tolist())
            sweep = Sweep(kernel, meaning, vocabulary, time.monotonic_ns, Tally(), 0.2)
            while not (self._end.wait(0.02) or kernel.replaced()):
                sweep.step()
                for ring in (kernel.flow_events, kernel.drop_events):
                    ring.read()

    def end(self) -> None:
        self._end.set()
        self.join(10)
        assert self.failure is None


@pytest.fixture
def traffic(cluster: Cluster) -> Iterator[Traffic]:
    """From the client to a pod beside it, to one on the other node, and (masqueraded) to the world."""
    client, near, far = (cluster.pods[name] for name in ("client", "near", "far"))
    with Traffic() as made:
        for namespace, addresses in (
            (near.namespace, near.addresses),
            (far.namespace, far.addresses),
            (cluster.world, WORLD),
        ):
            made.serve(namespace, 80, addresses.values())
            for address in addresses.values():
                made.add(client.namespace, address, 80)
        sweeper = Sweeper(cluster)
        sweeper.start()
        wait_until_moved(made)
        yield made
        sweeper.end()


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Objects of another release."""
    with pytest.MonkeyPatch.context() as patch:
        return releases.build(tmp_path_factory.mktemp("release"), patch)


def packets(plane: Datapath) -> dict[bytes, int]:
    """Of each long-lived connection, how many packets went both ways."""
    keys, flows = plane.flows.read_all()
    created = flows["created"]
    return {
        keys[row].tobytes() + int(created[row]).to_bytes(8): int(flows["leg"]["packets"][row].sum())
        for row in range(len(keys))
    }


def test_tables_grow_without_losing_a_packet(cluster: Cluster, traffic: Traffic) -> None:
    node = cluster.nodes[0]
    plane = node.plane
    before = plane.flows.info.max_entries
    for factor in (2, 4):
        with inside(node.namespace):
            plane.grow({"flows": before * factor, "translations": before * factor, "policies": 1 << 16})
        wait_until_moved(traffic)
        assert plane.flows.info.max_entries == before * factor
    assert traffic.faults == []


def test_releases_with_other_tables_follow_each_other(
    cluster: Cluster, traffic: Traffic, other: Path
) -> None:
    node = cluster.nodes[0]
    counts = packets(node.plane)
    for objects in (other, OBJECTS):
        node.stop()
        assert cluster.restart(1, objects=objects) == 0, "the tables are complete as they were carried over"
        wait_until_moved(traffic)
        assert node.plane.schema.enum("schema") == Schema.load(objects).enum("schema")
        now = packets(node.plane)
        assert {key: count for key, count in counts.items() if key in now and now[key] < count} == {}
        assert counts.keys() & now.keys()
        counts = now
    assert traffic.faults == []


class Names:
    def services(self, services: Mapping[int, ServicePort]) -> None: ...


def edge() -> Balanced:
    """With all that a service may have."""
    pods = tuple(Backend(ip_address(f"10.1.9.{at}"), 8443, at) for at in (1, 2, 3))
    ranges = (ip_network("198.51.100.0/24"),)
    address = Frontend(ip_address("203.0.113.5"), 443, Protocol.UDP, FrontendKind.LOAD_BALANCER, True, ranges)
    return Balanced("shop/edge", "443", Protocol.UDP, (address,), pods, pods[:2], Algorithm.MAGLEV, 60)


def test_services_stand_in_the_tables_of_other_releases(other: Path, tmp_path: Path) -> None:
    """Carried over, but lookup tables, which are filled anew where their size is another."""
    root, first = tmp_path / "bpf", True
    with private_network():
        try:
            for folder in (OBJECTS, other, OBJECTS):
                plane = Datapath.load(root, folder=folder)
                plane.take_over()
                balancer = Balancer(plane, Names(), HighMark(tmp_path / "highest"))
                balancer.apply([edge()])
                balancer.settle()
                assert balancer.writes["maglev"] == 2
                assert first or +balancer.writes == {"maglev": 2}
                numbers = balancer.tables.numbers("shop/edge", "443")
                (row,) = (row for key, row in zip(*plane.frontends.read_all(), strict=True) if key["port"])
                assert (row["service"], row["outside"]) == (numbers[4, ""], numbers[4, "outside"])
                for number in numbers.values():
                    places, shares = plane.maglev.read(number), balancer.tables.shares(number)
                    assert places is not None and shares is not None
                    assert (places == shares.places(plane.schema.enum("maglev_range")["MAGLEV_PLACES"])).all()
                plane.close()
                first = False
        finally:
            bpffs.unmount(root)


class Killed(BaseException):
    """As the end of an agent would be."""


@pytest.mark.parametrize("stage", ["waiting", "sharing", "done"])
def test_an_agent_killed_in_the_middle_leaves_one_complete_set(
    cluster: Cluster, traffic: Traffic, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = cluster.nodes[0]

    def die(*_: object) -> None:
        raise Killed

    with inside(node.namespace), monkeypatch.context() as patch, pytest.raises(Killed):
        match stage:
            case "waiting":
                patch.setattr(Succession, "take_over", die)
            case "sharing":
                patch.setattr(succession, "_carry_live", die)
            case _:
                patch.setattr(Succession, "commit", die)
        node.plane.grow({"flows": 16384})
    node.stop()
    wait_until_moved(traffic)
    assert cluster.restart(1) == 0
    wait_until_moved(traffic)
    assert node.plane.flows.info.max_entries == (8192 if stage == "waiting" else 16384)
    assert not (node.folder / "bpf/next").exists()
    assert not list((node.folder / "bpf/links").glob("*-ahead"))
    with inside(node.namespace):
        for ifindex, _ in socket.if_nameindex():
            assert not clsact.attached(ifindex, attach.INGRESS, clsact.AHEAD)
    assert traffic.faults == []
