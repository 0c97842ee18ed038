"""What an agent tells of services: numbers, states, who gets which backend, and how often."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

from msgspec import structs

from axoneme.model.policy import Protocol
from axoneme.services.balanced import Backend, BackendState, Balanced, Frontend, FrontendKind
from axoneme.services.tables import ServiceTables
from axoneme.services.telling import tell
from axoneme.services.view import ServiceView

HERE = Backend(ip_address("10.244.1.5"), 8080, node="node1", name="shop/web-a")
THERE = Backend(ip_address("10.244.2.6"), 8080, 1, BackendState.LEAVING, "node2", "shop/web-b")
SIX = Backend(ip_address("fd00::5"), 8080)
CLUSTER_IP = Frontend(ip_address("10.96.0.7"), 80, Protocol.TCP, FrontendKind.CLUSTER_IP)
NODE_PORT = Frontend(ip_address("0.0.0.0"), 30080, Protocol.TCP, FrontendKind.NODE_PORT, True)
WEB = Balanced("shop/web", "http", Protocol.TCP, (CLUSTER_IP, NODE_PORT), (HERE, THERE, SIX), affinity=600)


def told(balanced: Balanced, served: dict[tuple[int, int], int] | None = None) -> ServiceView:
    tables = ServiceTables()
    tables.upsert(balanced)
    tables.changes()
    (found,) = tell(tables, served or {}, {})
    return found


def test_what_stands_in_the_tables_is_told_with_its_numbers_and_counts() -> None:
    found = told(WEB)
    (number,) = found.numbers
    assert (found.name, found.port, found.protocol, found.affinity) == ("shop/web", "http", "TCP", 600)
    assert [(each.address, each.port, each.type, each.external) for each in found.frontends] == [
        ("10.96.0.7", 80, "ClusterIP", False),
        ("0.0.0.0", 30080, "NodePort", True),
    ]
    assert [(each.address, each.state, each.node, each.name) for each in found.backends] == [
        ("10.244.1.5", "active", "node1", "shop/web-a"),
        ("10.244.2.6", "leaving", "node2", "shop/web-b"),
    ], "nobody calls it over IPv6"
    here, there = (each.number for each in found.backends)
    counted = told(WEB, {(number, here): 5, (number, there): 2, (number, 0): 3, (99, here): 7})
    assert [each.chosen for each in counted.backends] == [5, 2]
    assert counted.refused == 3


def test_backends_that_only_some_callers_get() -> None:
    elsewhere = Backend(ip_address("10.244.3.7"), 8080)
    ready = structs.replace(THERE, state=BackendState.ACTIVE)
    found = told(replace(WEB, backends=(HERE, elsewhere, THERE), outside=(HERE, ready)))
    assert [(each.address, each.state, each.callers) for each in found.backends] == [
        ("10.244.1.5", "active", ""),
        ("10.244.3.7", "active", "inside"),
        ("10.244.2.6", "leaving", "inside"),
        ("10.244.2.6", "active", "outside"),
    ]
    inside, outside = found.numbers
    assert [each.services for each in found.backends] == [(inside, outside), (inside,), (inside,), (outside,)]


def test_only_ranges_may_call() -> None:
    limited = replace(NODE_PORT, source_ranges=(ip_network("203.0.113.0/24"),))
    found = told(replace(WEB, frontends=(CLUSTER_IP, limited)))
    assert found.frontends[1].source_ranges == ("203.0.113.0/24",)
    assert all(each.services == found.numbers for each in found.backends)


def test_a_problem_and_the_order() -> None:
    tables = ServiceTables()
    for name in ("shop/web", "data/db"):
        tables.upsert(replace(WEB, name=name, created=name))
    tables.changes()
    db, web = tell(tables, {}, tables.problems)
    assert (db.name, db.problem) == ("data/db", "")
    assert "belongs to data/db" in web.problem
