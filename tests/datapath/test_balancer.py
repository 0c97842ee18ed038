"""Services in the kernel's tables: what is written, after a restart too; what follows when something goes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_node import Node, node
from msgspec import structs

from axoneme.agent.balancer import TABLES, Balancer
from axoneme.agent.highmark import HighMark
from axoneme.datapath.maps import Table
from axoneme.datapath.plane import Constants, packed
from axoneme.flows.servicenames import ServicePort
from axoneme.model.policy import Protocol
from axoneme.services.arrays import held
from axoneme.services.balanced import (
    Algorithm,
    Backend,
    BackendState,
    Balanced,
    Frontend,
    FrontendKind,
)
from axoneme.services.rows import BackendFlag, FrontendFlag, TableAlgorithm, place
from axoneme.services.writes import Departed


class Journal:
    def __init__(self) -> None:
        self.names: dict[int, ServicePort] = {}

    def services(self, services: Mapping[int, ServicePort]) -> None:
        self.names.update(services)


class Watched(Balancer):
    """A balancer, with what it told others."""

    def __init__(self, node: Node, folder: Path, **limits: int) -> None:
        self.journal = Journal()
        self.closed: list[Departed] = []
        super().__init__(node.plane, self.journal, HighMark(folder / "highest"), limits, self.closed.extend)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    sizes = {"frontends": 64, "services": 64, "slots": 64, "backends": 64, "source_ranges": 64}
    with node(tmp_path_factory.mktemp("balancer") / "bpf", Constants(), **sizes) as made:
        yield made


@pytest.fixture
def kernel(loaded: Node) -> Node:
    plane = loaded.plane
    for name in TABLES:
        getattr(plane, name).clear()
    plane.maglev.delete(plane.maglev.adopt())
    for name in ("served", "affinities"):
        getattr(plane, name).clear()
    return loaded


@pytest.fixture
def balancer(kernel: Node, tmp_path: Path) -> Watched:
    return Watched(kernel, tmp_path)


def web(number: int = 0, count: int = 3, **changes: Any) -> Balanced:
    pods = tuple(Backend(ip_address("10.1.0.1") + 256 * number + at, 8080) for at in range(count))
    address = Frontend(ip_address("10.96.0.10") + number, 80, Protocol.TCP, FrontendKind.CLUSTER_IP)
    return replace(Balanced(f"default/web-{number}", "http", Protocol.TCP, (address,), pods), **changes)


def outside(**changes: Any) -> Balanced:
    """What there is: both families, ranges, weights, affinity, direct return."""
    pods = tuple(
        Backend(ip_address(text), 8443, weight)
        for text, weight in (("10.1.9.1", 1), ("10.1.9.2", 3), ("fd01::9", 1))
    )
    ranges = (ip_network("198.51.100.0/24"), ip_network("2001:db8::/32"))
    frontends = tuple(
        Frontend(ip_address(text), 443, Protocol.UDP, FrontendKind.LOAD_BALANCER, True, ranges, True)
        for text in ("203.0.113.5", "2001:db8:5::5")
    )
    made = Balanced("shop/edge", "443/UDP", Protocol.UDP, frontends, pods, pods[:1], Algorithm.MAGLEV, 10800)
    return replace(made, **changes)


def tables(kernel: Node) -> Any:
    plane = kernel.plane
    return held({name: getattr(plane, name).read_all() for name in TABLES}, plane.maglev.adopt())


def test_everything_of_a_service_stands_in_the_kernel(kernel: Node, balancer: Watched) -> None:
    balancer.apply([outside()])
    balancer.settle()
    found = tables(kernel)
    v4, v6, out4, out6 = (
        balancer.tables.numbers("shop/edge", "443/UDP")[key]
        for key in ((4, ""), (6, ""), (4, "outside"), (6, "outside"))
    )
    flags = FrontendFlag.EXTERNAL | FrontendFlag.SOURCE_RANGES | FrontendFlag.DIRECT
    assert found.frontends == {
        place(ip_address("203.0.113.5"), 443, 17): (v4, out4, flags),
        place(ip_address("2001:db8:5::5"), 443, 17): (v6, out6, flags),
        place(ip_address("203.0.113.5"), 0, 0): (0, 0, FrontendFlag.EXTERNAL),
        place(ip_address("2001:db8:5::5"), 0, 0): (0, 0, FrontendFlag.EXTERNAL),
    }
    ticks = -(-10800 * 10**9 // 2**30)
    assert found.services == {
        v4: (2, ticks, TableAlgorithm.MAGLEV),
        out4: (1, ticks, TableAlgorithm.MAGLEV),
        v6: (1, ticks, TableAlgorithm.MAGLEV),
        out6: (0, ticks, TableAlgorithm.MAGLEV),
    }
    assert {(each.service, each.prefix_length) for each in found.ranges} == {(out4, 152), (out6, 64)}
    assert set(found.maglev) == {v4, out4, v6}
    for number in found.maglev:
        assert (kernel.plane.maglev.read(number) == balancer.tables.shares(number).places()).all()  # type: ignore[union-attr]
    assert set(balancer.journal.names) == {v4, v6, out4, out6}
    assert set(balancer.journal.names.values()) == {("shop/edge", "443/UDP")}
    assert balancer.settle() == 0


def test_a_restart_with_the_same_services_writes_nothing(
    kernel: Node, balancer: Watched, tmp_path: Path
) -> None:
    balancer.apply([web(), web(1), outside()])
    balancer.settle()
    before = tables(kernel)
    following = Watched(kernel, tmp_path)
    following.apply([outside(), web(1), web()])
    following.settle()
    assert following.writes.total() == 0
    assert tables(kernel) == before
    assert following.tables.numbers("shop/edge", "443/UDP") == balancer.tables.numbers("shop/edge", "443/UDP")
    assert sum(kernel.plane.maglev.audit()) == 0


def test_a_restart_with_other_services_writes_the_difference(
    kernel: Node, balancer: Watched, tmp_path: Path
) -> None:
    balancer.apply([web(), web(1), outside()])
    balancer.settle()
    following = Watched(kernel, tmp_path)
    following.apply([web(count=4), outside()])
    following.settle()
    assert +following.writes == {"backends": 1 + 3, "slots": 1 + 3, "services": 1 + 1, "frontends": 2}
    (mine,) = following.tables.numbers("default/web-0", "http").values()
    assert balancer.tables.numbers("default/web-0", "http") == {(4, ""): mine}


def test_numbers_of_before_a_restart_are_not_given_out_again(
    kernel: Node, balancer: Watched, tmp_path: Path
) -> None:
    balancer.apply([web(), web(1)])
    balancer.settle()
    highest = balancer.tables.highest
    balancer.apply([], [("default/web-1", "http")])
    balancer.settle()
    following = Watched(kernel, tmp_path)
    following.apply([web(), web(2)])
    following.settle()
    assert min(following.tables.numbers("default/web-2", "http").values()) > highest


def test_one_changed_backend_is_three_writes(balancer: Watched) -> None:
    balancer.apply([web(number) for number in range(5)])
    balancer.settle()
    balancer.apply([web(3, 4)])
    assert balancer.settle() == 3
    balancer.apply([web(3, 3)])
    assert balancer.settle() == 3


def slot_of(node: Node, address: str) -> int:
    epochs = node.plane._epochs
    words = np.frombuffer(packed(ip_address(address)), "<u4").reshape(-1, 4)
    return int(epochs._slot[epochs._slots(words)][0])


def test_flows_of_a_backend_that_is_gone_are_decided_anew_and_its_callers_told(
    kernel: Node, balancer: Watched
) -> None:
    balancer.apply([web()])
    balancer.settle()
    service = web()
    leaving = structs.replace(service.backends[0], state=BackendState.LEAVING)
    before = slot_of(kernel, "10.1.0.1")
    balancer.apply([replace(service, backends=(leaving, *service.backends[1:]))])
    balancer.settle()
    number = balancer.tables.backend_number(leaving, Protocol.TCP)
    assert number is not None
    assert tables(kernel).backends[number][-1] == BackendFlag.LEAVING
    assert slot_of(kernel, "10.1.0.1") == before
    assert not balancer.closed
    balancer.apply([replace(service, backends=service.backends[1:])])
    balancer.settle()
    assert number not in tables(kernel).backends
    assert slot_of(kernel, "10.1.0.1") == before + 1
    assert balancer.closed == [Departed(number, place(leaving.address, 8080, 6))]


def test_what_was_sent_to_an_address_before_it_was_a_services_is_decided_anew(
    kernel: Node, balancer: Watched
) -> None:
    before = slot_of(kernel, "10.96.0.10")
    balancer.apply([web()])
    balancer.settle()
    assert slot_of(kernel, "10.96.0.10") == before + 1
    balancer.apply([web(count=5)])
    balancer.settle()
    assert slot_of(kernel, "10.96.0.10") == before + 1


def remember(kernel: Node, table: str, key: str, value: str, **fields: int) -> None:
    schema = kernel.plane.schema
    keys, values = np.zeros(1, schema.struct(key)), np.zeros(1, schema.struct(value))
    for name, number in fields.items():
        (keys if name in (keys.dtype.names or ()) else values)[name] = number
    getattr(kernel.plane, table).write(keys, values)


def test_clients_are_not_led_to_a_backend_that_is_leaving(kernel: Node, balancer: Watched) -> None:
    service = web(affinity=60)
    balancer.apply([service, web(1, affinity=60)])
    balancer.settle()
    numbers = [balancer.tables.backend_number(each, Protocol.TCP) or 0 for each in service.backends]
    (mine,) = balancer.tables.numbers("default/web-0", "http").values()
    table = ("affinities", "affinity_key", "affinity")
    for backend in numbers:
        remember(kernel, *table, client=backend, service=mine, backend=backend)
    remember(kernel, *table, client=9, service=mine + 1, backend=numbers[0])
    leaving = structs.replace(service.backends[0], state=BackendState.LEAVING)
    balancer.apply([replace(service, backends=(leaving, *service.backends[1:]))])
    balancer.settle()
    keys, values = kernel.plane.affinities.read_all()
    left = set(zip(keys["service"].tolist(), values["backend"].tolist(), strict=True))
    assert left == {(mine, numbers[1]), (mine, numbers[2]), (mine + 1, numbers[0])}


def test_counters_are_told_and_go_with_their_services(kernel: Node, balancer: Watched) -> None:
    service = web()
    balancer.apply([service, web(1)])
    balancer.settle()
    numbers = [balancer.tables.backend_number(each, Protocol.TCP) or 0 for each in service.backends]
    (mine,) = balancer.tables.numbers("default/web-0", "http").values()
    (other,) = balancer.tables.numbers("default/web-1", "http").values()
    for backend, connections in ((0, 2), *zip(numbers, (5, 6, 7), strict=True)):
        remember(
            kernel, "served", "served_key", "served", service=mine, backend=backend, connections=connections
        )
    remember(kernel, "served", "served_key", "served", service=other, backend=0, connections=9)
    first, second = balancer.services()
    assert (first.name, first.refused, second.refused) == ("default/web-0", 2, 9)
    assert [(each.number, each.chosen) for each in first.backends] == list(
        zip(numbers, (5, 6, 7), strict=True)
    )
    balancer.apply([replace(service, backends=service.backends[1:])], [("default/web-1", "http")])
    balancer.settle()
    balancer.tidy()
    keys, _ = kernel.plane.served.read_all()
    left = set(zip(keys["service"].tolist(), keys["backend"].tolist(), strict=True))
    assert left == {(mine, each) for each in (0, *numbers[1:])}


# ---- what does not fit ----------------------------------------------------------------------------


def test_a_service_that_does_not_fit_is_refused_as_a_whole_and_told(kernel: Node, tmp_path: Path) -> None:
    balancer, room = Watched(kernel, tmp_path), kernel.plane.slots.room
    half = room // 2 - 2
    balancer.apply([web(0, half, created="2024"), web(1, half, created="2025"), web(2, 2, created="2023")])
    balancer.settle()
    assert not balancer.problems
    before = tables(kernel)
    balancer.apply([web(3, 3, created="2026")])
    assert balancer.settle() == 0
    assert tables(kernel) == before
    (problem,) = balancer.problems.values()
    assert f"slots: {room} entries at most, {room + 1} needed" in problem
    assert balancer.problems.keys() == {("default/web-3", "http")}
    balancer.apply([web(1, half - 1, created="2025")])
    balancer.settle()
    assert not balancer.problems
    assert balancer.tables.numbers("default/web-3", "http")


def test_an_older_version_stays_in_force_where_the_new_one_does_not_fit(kernel: Node, tmp_path: Path) -> None:
    balancer, half = Watched(kernel, tmp_path), kernel.plane.slots.room // 2
    balancer.apply([web(0, half), web(1, half)])
    balancer.settle()
    balancer.apply([web(1, 2 * half)])
    assert balancer.settle() == 0
    assert "what was before stays in force" in balancer.problems["default/web-1", "http"]
    assert len(balancer.tables.get("default/web-1", "http").backends) == half  # type: ignore[union-attr]


# ---- what others do -------------------------------------------------------------------------------


def test_what_others_change_is_put_right(kernel: Node, balancer: Watched) -> None:
    balancer.apply([web(), outside()])
    balancer.settle()
    plane = kernel.plane
    before = tables(kernel)
    slots, _ = plane.slots.read_all()
    Table.delete(plane.slots, slots[:2])
    frontends, rows = plane.frontends.read_all()
    rows["service"] += 1
    Table.write(plane.frontends, frontends, rows)
    assert sum(plane.slots.audit()) == 2
    assert sum(plane.frontends.audit()) == len(frontends)
    assert tables(kernel) == before


def test_after_a_failed_write_the_tables_are_compared_and_mended(
    kernel: Node, balancer: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    balancer.apply([web(), outside()])
    balancer.settle()
    with monkeypatch.context() as patch:
        patch.setattr(balancer, "_write", lambda step: (_ for _ in ()).throw(OSError("no memory")))
        balancer.apply([web(count=5), web(1)], [("shop/edge", "443/UDP")])
        with pytest.raises(OSError, match="no memory"):
            balancer.settle()
    assert balancer.broken
    assert balancer.reconcile() > 0
    assert not balancer.broken
    found = tables(kernel)
    assert sorted(row.backends for row in found.services.values()) == [3, 5]
    assert not found.maglev
