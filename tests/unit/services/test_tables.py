"""The incremental compiler against a naive model, after any sequence of changes; and how little it writes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from axoneme.model.policy import Protocol
from axoneme.services.balanced import (
    Algorithm,
    Backend,
    BackendState,
    Balanced,
    Frontend,
    FrontendKind,
)
from axoneme.services.rows import (
    PLACE,
    BackendFlag,
    FrontendFlag,
    Held,
    Place,
    TableAlgorithm,
    is_marker,
    marker,
    packed,
    place,
    place_text,
    range_of,
)
from axoneme.services.tables import ServiceTables
from axoneme.services.views import TICK, rearranged
from axoneme.services.writes import Changes

#: Of a maglev table: a prime.
PLACES = 251
TABLES = ("frontends", "services", "slots", "backends", "source_ranges", "maglev")


@dataclass
class Kernel:
    """The tables as dictionaries, which look after themselves at every write."""

    tables: dict[str, dict[Any, Any]] = field(default_factory=lambda: {name: {} for name in TABLES})

    def write(self, changes: Changes) -> None:
        for step in changes.steps:
            assert len(set(step.keys)) == len(step.keys) > 0
            table = self.tables[step.table]
            for at, key in enumerate(step.keys):
                if step.values is None:
                    del table[key]
                else:
                    table[key] = step.values[at]
                self.check()

    def check(self) -> None:
        """Nothing points to what is not there."""
        services, slots, backends = (self.tables[name] for name in ("services", "slots", "backends"))
        for key, row in self.tables["frontends"].items():
            if not is_marker(key):
                assert row.service in services
                assert row.outside in services
        for number, row in services.items():
            for slot in range(row.backends):
                assert slots[number, slot] in backends
            if row.algorithm != TableAlgorithm.RANDOM and row.backends:
                assert {each for _, _, each in self.tables["maglev"][number].backends} <= backends.keys()

    def held(self) -> Held:
        tables = self.tables
        return Held(
            dict(tables["frontends"]),
            dict(tables["services"]),
            dict(tables["slots"]),
            dict(tables["backends"]),
            set(tables["source_ranges"]),
            set(tables["maglev"]),
        )

    def meaning(self) -> dict[Any, Any]:
        """What a caller of each frontend gets."""
        return {
            key: (int(row.flags), self.view(row.service), self.view(row.outside), self.ranges(key, row))
            for key, row in self.tables["frontends"].items()
        }

    def view(self, number: int) -> Any:
        if not number:
            return None
        row = self.tables["services"][number]
        places = [self.tables["backends"][self.tables["slots"][number, at]] for at in range(row.backends)]
        assert not any(each[PLACE] for each in places)
        backends = [each[:PLACE] for each in places]
        assert len(set(backends)) == len(backends)
        shares: dict[Any, int] = {}
        if row.algorithm != TableAlgorithm.RANDOM and backends:
            numbers, counts = np.unique(self.tables["maglev"][number].places(PLACES), return_counts=True)
            rows = [self.tables["backends"][number][:PLACE] for number in numbers.tolist()]
            shares = dict(zip(rows, counts.tolist(), strict=True))
            assert shares.keys() == set(backends)
        return frozenset(backends), row.affinity, row.algorithm, frozenset(shares.items())

    def ranges(self, key: Place, row: Any) -> Any:
        if not row.flags & FrontendFlag.SOURCE_RANGES:
            return None
        found = self.tables["source_ranges"]
        return frozenset((each.prefix_length, each.address) for each in found if each.service == row.outside)


def expected(services: Iterable[Balanced], machines: frozenset[Any]) -> dict[Any, Any]:
    """The same, straight from what was told. Shares are checked by the weights' order only."""
    found: dict[Any, Any] = {}
    for service in sorted(services, key=lambda each: (each.created, each.name, each.port)):
        for frontend in service.frontends:
            key = place(frontend.address, frontend.port, frontend.protocol)
            flags = FrontendFlag.EXTERNAL * frontend.external | FrontendFlag.DIRECT * frontend.direct
            ranges = None
            if frontend.external and frontend.source_ranges is not None:
                flags |= FrontendFlag.SOURCE_RANGES
                version = frontend.address.version
                ranges = frozenset(range_of(r) for r in frontend.source_ranges if r.version == version)
            within = view_of(service, frontend, service.backends)
            outside = within
            if frontend.external and service.outside is not None:
                outside = view_of(service, frontend, service.outside)
            found.setdefault(key, (int(flags), within, outside, ranges))
    for service in services:
        for frontend in service.frontends:
            marked = (FrontendKind.CLUSTER_IP, FrontendKind.LOAD_BALANCER, FrontendKind.BALANCER)
            if frontend.kind in marked and frontend.address not in machines and int(frontend.address):
                key = marker(packed(frontend.address))
                flags = found.get(key, (0,))[0] | frontend.external
                found[key] = (int(flags), None, None, None)
    return found


def view_of(service: Balanced, frontend: Frontend, backends: tuple[Backend, ...]) -> Any:
    weights: dict[Any, int] = {}
    for each in backends:
        if each.address.version == frontend.address.version and each.state is BackendState.ACTIVE:
            row = place(each.address, each.port, service.protocol)
            weights.setdefault(row, each.weight)
    algorithm = TableAlgorithm.WEIGHTED if len(set(weights.values())) > 1 else TableAlgorithm.RANDOM
    if service.algorithm is Algorithm.MAGLEV and any(each.external for each in service.frontends):
        algorithm = TableAlgorithm.MAGLEV
    affinity = -(-service.affinity * 10**9 // TICK)
    return frozenset(weights), affinity, algorithm, weights


def same(got: Any, wanted: Any) -> bool:
    """Whether a view means what it should; shares by their order."""
    if got is None or wanted is None:
        return got is wanted
    if got[:3] != wanted[:3]:
        return False
    shares, weights = dict(got[3]), wanted[3]
    total = sum(weights.values())
    return all(abs(shares[row] * total / sum(shares.values()) - weights[row]) < 0.05 for row in shares)


def assert_right(kernel: Kernel, services: Iterable[Balanced], machines: frozenset[Any]) -> None:
    services = list(services)
    got, wanted = kernel.meaning(), expected(services, machines)
    assert got.keys() == wanted.keys()
    for key, (flags, within, outside, ranges) in wanted.items():
        assert (got[key][0], got[key][3]) == (flags, ranges)
        assert same(got[key][1], within)
        assert same(got[key][2], outside)
    tables = kernel.tables
    assert len(tables["slots"]) == sum(row.backends for row in tables["services"].values())
    assert set(tables["maglev"]) == {
        number
        for number, row in tables["services"].items()
        if row.algorithm != TableAlgorithm.RANDOM and row.backends
    }
    assert {key.service for key in tables["source_ranges"]} <= tables["services"].keys()
    keys = [row[:PLACE] for row in tables["backends"].values()]
    assert len(set(keys)) == len(keys)
    slotted = set(tables["slots"].values())
    assert {n for n, row in tables["backends"].items() if not row[PLACE]} == slotted
    assert set(keys) == {
        place(each.address, each.port, service.protocol)
        for service in services
        for each in (*service.backends, *(service.outside or ()))
        for version in {f.address.version for f in service.frontends}
        if each.address.version == version and (each in service.backends or _has_outside(service, version))
    }


def _has_outside(service: Balanced, version: int) -> bool:
    return any(each.external and each.address.version == version for each in service.frontends)


# ---- strategies ---------------------------------------------------------------------------------

ADDRESSES = [ip_address(text) for text in ("10.9.0.1", "10.9.0.2", "fd00::1", "0.0.0.0", "192.0.2.7")]
PODS = [ip_address(text) for text in ("10.1.0.1", "10.1.0.2", "10.1.0.3", "10.1.0.4", "fd01::1", "fd01::2")]
RANGES = [ip_network(text) for text in ("198.51.100.0/24", "203.0.113.7/32", "fd0f::/32")]

frontends = st.builds(
    Frontend,
    st.sampled_from(ADDRESSES),
    st.sampled_from([80, 443]),
    st.just(Protocol.TCP),
    st.sampled_from(FrontendKind),
    st.booleans(),
    st.none() | st.lists(st.sampled_from(RANGES), max_size=2).map(tuple),
    st.booleans(),
)


def _backend(address: Any, port: int, weight: int, leaving: bool) -> Backend:
    if leaving:
        return Backend(address, port, 0, BackendState.LEAVING)
    return Backend(address, port, weight)


backends = st.lists(
    st.builds(
        _backend,
        st.sampled_from(PODS),
        st.just(8080),
        st.sampled_from([1, 1, 1, 3]),
        st.sampled_from([0, 0, 1]),
    ),
    max_size=6,
    unique_by=lambda each: each.address,
).map(tuple)
services = st.builds(
    Balanced,
    st.sampled_from(["a/a", "a/b", "b/a", "c/c"]),
    st.sampled_from(["x", "y"]),
    st.just(Protocol.TCP),
    st.lists(frontends, max_size=3, unique_by=lambda each: (each.address, each.port)).map(tuple),
    backends,
    st.none() | backends,
    st.sampled_from([Algorithm.RANDOM, Algorithm.RANDOM, Algorithm.RANDOM, Algorithm.MAGLEV]),
    st.sampled_from([0, 0, 10800]),
    st.sampled_from(["", "2024-01-01T00:00:00Z"]),
)
commands = st.lists(
    st.one_of(
        services,
        services,
        st.tuples(st.sampled_from(["a/a", "a/b", "b/a", "c/c"]), st.sampled_from(["x", "y"])),
        st.sampled_from(["write", "restart"]),
        st.frozensets(st.sampled_from(ADDRESSES), max_size=2),
    ),
    max_size=25,
)


@given(commands)
@settings(max_examples=200)
def test_after_any_sequence_of_changes_the_tables_say_what_was_told(script: list[Any]) -> None:
    kernel, tables, told = Kernel(), ServiceTables(), {}
    machines: frozenset[Any] = frozenset()
    for command in [*script, "write", "restart"]:
        if isinstance(command, Balanced):
            told[command.name, command.port] = command
            tables.upsert(command)
        elif isinstance(command, tuple):
            told.pop(command, None)
            tables.remove(*command)
        elif isinstance(command, frozenset):
            machines = command
            tables.machines(machines)
        elif command == "write":
            before = dict(kernel.tables["backends"])
            changes = tables.changes()
            kernel.write(changes)
            assert_right(kernel, told.values(), machines)
            gone = before.keys() - kernel.tables["backends"].keys()
            assert set(changes.departed) == {(number, before[number][:PLACE]) for number in gone}
            assert not tables.changes()
        else:
            kernel.write(tables.changes())
            lost = bool(tables.problems)
            tables = ServiceTables(kernel.held())
            for each in told.values():
                tables.upsert(each)
            tables.machines(machines)
            changes = tables.changes()
            for step in changes.steps:
                if step.table == "maglev" and step.values is not None:
                    pairs = zip(step.keys, step.values, strict=True)
                    assert lost or all(kernel.tables["maglev"][key] == value for key, value in pairs)
                else:
                    assert lost, "a service that has its frontends is not written again"
            kernel.write(changes)
            assert_right(kernel, told.values(), machines)


@given(st.lists(st.integers(0, 8), unique=True), st.lists(st.integers(0, 8), unique=True))
def test_slots_change_as_little_as_can_be(slots: list[int], wanted: list[int]) -> None:
    after = rearranged(slots, wanted)
    assert sorted(after) == sorted(wanted)
    touched = sum(1 for at, number in enumerate(after) if at >= len(slots) or slots[at] != number)
    # Each new one needs a write; of the gaps that none of them fills, those before the new end.
    fresh = len(set(wanted) - set(slots))
    gaps = sum(1 for at, number in enumerate(slots) if number not in wanted and at < len(after))
    assert touched == max(fresh, gaps, fresh + max(0, gaps - fresh))


# ---- what single changes cost -------------------------------------------------------------------


def web(number: int = 0, count: int = 10, **changes: Any) -> Balanced:
    pods = tuple(Backend(ip_address("10.1.0.0") + 256 * number + at, 8080) for at in range(count))
    address = Frontend(
        ip_address("172.20.0.0") + number + 1, 80, Protocol.TCP, FrontendKind.CLUSTER_IP, external=False
    )
    return replace(Balanced(f"default/web-{number}", "http", Protocol.TCP, (address,), pods), **changes)


@pytest.fixture
def thousand() -> tuple[Kernel, ServiceTables]:
    kernel, tables = Kernel(), ServiceTables()
    for number in range(200):
        tables.upsert(web(number))
    changes = tables.changes()
    for step in changes.steps:
        kernel.tables[step.table].update(zip(step.keys, step.values or (), strict=True))
    return kernel, tables


@pytest.mark.parametrize(
    ("count", "writes"),
    [
        (11, ["+backends", "+slots", "+services"]),
        (9, ["+services", "-slots", "-backends"]),
    ],
)
def test_one_backend_more_or_less_is_a_constant_number_of_writes(
    thousand: tuple[Kernel, ServiceTables], count: int, writes: list[str]
) -> None:
    kernel, tables = thousand
    tables.upsert(web(7, count))
    changes = tables.changes()
    kernel.write(changes)
    assert [f"{'-' if step.values is None else '+'}{step.table}" for step in changes.steps] == writes
    assert len(changes) == len(writes)


def test_one_backend_for_another_takes_its_slot(thousand: tuple[Kernel, ServiceTables]) -> None:
    kernel, tables = thousand
    service = web(7)
    other = Backend(ip_address("10.2.0.1"), 8080)
    tables.upsert(replace(service, backends=(*service.backends[:3], other, *service.backends[4:])))
    changes = tables.changes()
    kernel.write(changes)
    assert [(step.table, len(step.keys)) for step in changes.steps] == [
        ("backends", 1),
        ("slots", 1),
        ("backends", 1),
    ]
    assert [place_text(gone.place) for gone in changes.departed] == ["10.1.7.3:8080"]


def test_a_leaving_backend_keeps_its_entry_and_is_withdrawn(thousand: tuple[Kernel, ServiceTables]) -> None:
    kernel, tables = thousand
    service = web(7)
    leaving = msgspec.structs.replace(service.backends[0], state=BackendState.LEAVING)
    tables.upsert(replace(service, backends=(leaving, *service.backends[1:])))
    changes = tables.changes()
    kernel.write(changes)
    number = tables.backend_number(leaving, Protocol.TCP)
    assert kernel.tables["backends"][number][PLACE] == BackendFlag.LEAVING
    assert len(changes) == 4
    assert number not in kernel.tables["slots"].values()
    assert not changes.departed
    assert changes.withdrawn == [(tables.numbers(service.name, "http")[4, ""], number)]


def test_a_service_without_backends_is_one_that_serves_nobody() -> None:
    """Who calls from outside gets none on a node without an endpoint of ``externalTrafficPolicy: Local``:
    that is no fault, and not counted."""
    tables = ServiceTables()
    tables.upsert(web(0, 0))
    outward = web(1, 1)
    outward = replace(
        outward, frontends=tuple(replace(each, external=True) for each in outward.frontends), outside=()
    )
    tables.upsert(outward)
    tables.upsert(replace(web(2, 0), frontends=()))
    tables.changes()
    assert (tables.counts.services, tables.counts.empty) == (3, 1)


def test_a_number_is_not_given_to_another_soon() -> None:
    tables = ServiceTables()
    seen: set[int] = set()
    for number in range(20):
        tables.upsert(web(number, 1))
        tables.remove(f"default/web-{number - 1}", "http")
        tables.changes()
        (mine,) = tables.numbers(f"default/web-{number}", "http").values()
        backend = tables.backend_number(web(number, 1).backends[0], Protocol.TCP)
        assert mine not in seen
        assert -(backend or 0) not in seen
        seen |= {mine, -(backend or 0)}


def test_after_a_restart_numbers_begin_above_those_that_flows_may_remember() -> None:
    tables = ServiceTables(Held(), after=4711)
    tables.upsert(web())
    tables.changes()
    assert tables.numbers("default/web-0", "http") == {(4, ""): 4712}


def test_two_services_that_claim_one_frontend_are_told_apart_by_age() -> None:
    kernel, tables = Kernel(), ServiceTables()
    younger = web(created="2025-02-01T00:00:00Z")
    older = replace(
        web(count=3), name="default/older", created="2025-01-01T00:00:00Z", backends=web(1, 3).backends
    )
    tables.upsert(younger)
    kernel.write(tables.changes())
    assert not tables.problems
    tables.upsert(older)
    kernel.write(tables.changes())
    assert_right(kernel, [younger, older], frozenset())
    assert tables.problems == {
        ("default/web-0", "http"): "172.20.0.1:80/TCP belongs to default/older: "
        "of those that claim it the oldest has it, or the first by name"
    }
    tables.remove("default/older", "http")
    kernel.write(tables.changes())
    assert_right(kernel, [younger], frozenset())
    assert not tables.problems


def test_damaged_tables_of_an_earlier_process_are_put_right() -> None:
    kernel, tables = Kernel(), ServiceTables()
    tables.upsert(web())
    kernel.write(tables.changes())
    (number,) = tables.numbers("default/web-0", "http").values()
    kernel.tables["slots"][number, 25] = 4
    kernel.tables["slots"][number, 2] = 1  # twice
    kernel.tables["slots"][number, 3] = 999  # nobody
    del kernel.tables["slots"][number, 6]
    kernel.tables["slots"][77, 0] = 1  # of no service
    kernel.tables["backends"][500] = kernel.tables["backends"][1]
    tables = ServiceTables(kernel.held())
    tables.upsert(web())
    changes = tables.changes()
    for step in changes.steps:  # the invariants do not hold at first
        for at, key in enumerate(step.keys):
            if step.values is None:
                del kernel.tables[step.table][key]
            else:
                kernel.tables[step.table][key] = step.values[at]
    kernel.check()
    assert_right(kernel, [web()], frozenset())
    assert tables.numbers("default/web-0", "http") == {(4, ""): number}
