from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from axoneme.flows.addresses import AddressTable
from axoneme.flows.names import End
from axoneme.identity.prefixes import address_bytes

from .records import DTYPE, FIRST_LOCAL, event, records, some_names

WEB = End(labels=("k8s:app=web",), namespace="shop", pod="web-1", workload_kind="Deployment", workload="web")
DB = End(labels=("k8s:app=db",), namespace="shop", pod="db-0")


def words_of(addresses: list[bytes]) -> np.ndarray[tuple[int, int], np.dtype[np.uint64]]:
    return np.frombuffer(b"".join(addresses), np.uint64).reshape(-1, 2)


KEYS = [address_bytes(f"10.0.{n % 3}.{n}") for n in range(60)] + [
    address_bytes(f"fd00::{n}") for n in range(1, 60)
]
STEP = st.tuples(
    st.sampled_from(["put", "remove"]), st.sampled_from(KEYS), st.integers(1, 9), st.integers(1, 3)
)


@settings(max_examples=60)
@given(st.lists(STEP, max_size=300))
def test_the_table_of_addresses_is_a_dict(steps: list[tuple[str, bytes, int, int]]) -> None:
    table, model = AddressTable(), dict[bytes, tuple[int, int]]()
    for action, address, value, owner in steps:
        if action == "put":
            table.put(address, value, owner)
            model[address] = value, owner
        else:
            table.remove(address, owner)
            if model.get(address, (0, 0))[1] == owner:
                del model[address]
    assert table.look_up(words_of(KEYS)).tolist() == [model.get(key, (0, 0))[0] for key in KEYS]
    assert len(table) == len(model)


def test_the_table_of_addresses_does_not_grow_with_what_came_and_went() -> None:
    table = AddressTable()
    for number in range(5000):
        address = number.to_bytes(16, "big")
        table.put(address, 1, number + 1)
        table.remove(address, number + 1)
    assert not len(table)
    assert table._mask < 256


def test_ends_are_found_by_address_else_by_identity() -> None:
    names = some_names()
    names.put("state/endpoints/n/1", [address_bytes("10.0.0.1"), address_bytes("fd00::1")], WEB)
    names.put_identity(301, ["k8s:app=db"])
    found = records(
        event(),
        event(source="fd00::1", destination="192.0.2.1", destination_identity=2),
        event(source_identity=1, source="10.9.9.9", destination_identity=FIRST_LOCAL + 5),
        event(source="10.9.9.9", source_identity=999, destination="10.9.9.8", destination_identity=0),
        names=names,
    )
    assert [names[row] for row in found["source_row"].tolist()] == [
        WEB,
        WEB,
        End(labels=("reserved:host",)),
        End(),
    ]
    assert [names[row] for row in found["destination_row"].tolist()] == [
        End(labels=("k8s:app=db",)),
        End(labels=("reserved:world",)),
        End(labels=("reserved:world",)),
        End(),
    ]


def test_what_happens_later_does_not_change_history() -> None:
    names = some_names()
    address = [address_bytes("10.0.0.1")]
    names.put("web", address, WEB)
    before = records(event(), names=names)
    names.forget("web")
    names.put("db", address, DB)
    after = records(event(), names=names)
    assert names[int(before["source_row"][0])] == WEB
    assert names[int(after["source_row"][0])] == DB


def test_an_address_that_moved_is_not_taken_from_its_new_owner() -> None:
    names = some_names()
    address = [address_bytes("10.0.0.1")]
    names.put("old", address, WEB)
    names.put("new", address, WEB)
    names.forget("old")
    found = records(event(), names=names)
    assert names[int(found["source_row"][0])] == WEB


def test_an_update_gives_up_addresses_that_are_no_longer_named() -> None:
    names = some_names()
    names.put("web", [address_bytes("10.0.0.1"), address_bytes("10.0.0.2")], WEB)
    names.put("web", [address_bytes("10.0.0.2")], WEB)
    found = records(event(source_identity=0), names=names)
    assert found["source_row"][0] == 0
    assert names[int(found["destination_row"][0])] == WEB


def test_labels_of_an_identity_may_come_later() -> None:
    names = some_names()
    first = records(event(), names=names)
    names.put_identity(300, ["k8s:app=web"])
    second = records(event(), names=names)
    assert names[int(first["source_row"][0])] == End()
    assert names[int(second["source_row"][0])] == End(labels=("k8s:app=web",))


def test_unknown_identities_of_this_node_are_noticed() -> None:
    names = some_names()
    local = records(event(destination_identity=FIRST_LOCAL + 1))
    assert not names.knows_not(records(event()))
    assert names.knows_not(local)
    names.put_identity(FIRST_LOCAL + 1, ["cidr:192.0.2.0/24"])
    assert not names.knows_not(local)


def test_memory_is_bounded_by_the_present_and_by_what_records_show() -> None:
    names = some_names()
    kept = np.zeros(0, DTYPE)
    for number in range(20000):
        key = f"state/endpoints/n/{number}"
        names.put(key, [address_bytes("10.0.0.1")], End(pod=f"job-{number}", namespace="batch"))
        if number == 77:
            kept = records(event(), names=names)
        names.forget(key)
        if names.crowded:
            names.collect([kept["source_row"], kept["destination_row"]])
    assert len(names) < 3000
    assert names[int(kept["source_row"][0])].pod == "job-77"


def test_rows_that_got_another_meaning_are_told() -> None:
    names = some_names()
    names.put("web", [address_bytes("10.0.0.1")], WEB)
    row = int(records(event(), names=names)["source_row"][0])
    names.forget("web")
    version = names.version
    assert names.collect([]) > 0
    names.put("db", [address_bytes("10.0.0.1")], DB)
    assert list(names.since(version)) == [(row, DB)]
    assert not list(names.since(names.version))
