from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from axoneme.datapath.schema import Schema
from axoneme.flows.events import L7, Records, record_dtype
from axoneme.flows.packing import Packing
from axoneme.flows.store import FlowStore

from .records import DTYPE, EVENT


def keep(packing: Packing, records: Records) -> Records:
    kept = np.zeros(len(records), packing.packed)
    packing.pack(records, kept)
    return packing.unpack(kept)


def whatever(data: bytes, kinds: list[int]) -> Records:
    """Records of random bits, of which only what a kind has is set."""
    assert EVENT.fields is not None
    size, count = DTYPE.itemsize, len(kinds)
    made: Records = np.frombuffer((data * (1 + size * count // len(data)))[: size * count], DTYPE).copy()
    made["kind"], made["backend"] = kinds, 0
    requests = made["kind"] == L7
    made["started"][requests], made["request"][~requests] = 0, 0
    return made


@given(st.binary(min_size=1, max_size=600), st.lists(st.sampled_from([1, 2, 3, L7]), max_size=9))
def test_what_is_kept_is_read_again(data: bytes, kinds: list[int]) -> None:
    made = whatever(data, kinds)
    found = keep(Packing(DTYPE), made)
    assert DTYPE.names is not None
    for name in DTYPE.names:
        assert found[name].tolist() == made[name].tolist(), name


def test_a_million_flows_take_at_most_150_mib() -> None:
    packing = Packing(record_dtype(Schema.load().struct("event")))
    assert packing.packed.itemsize * 1_000_000 <= 150 << 20


def test_addresses_of_what_is_gone_are_forgotten_and_those_of_what_is_kept_are_not() -> None:
    store = FlowStore(DTYPE, 8, 8)
    drop = np.zeros(1, DTYPE)
    drop["nat_address"] = np.arange(16)
    store.drops.append(drop)
    made = np.zeros(5000, DTYPE)
    made["frontend"] = np.random.default_rng(1).integers(1, 255, (5000, 16), np.uint8)
    for again in range(3):
        made["frontend"][:, 0] = again
        store.flows.append(made)
        store.tidy()
        assert store.flows.read(0, store.flows.next)["frontend"].tolist() == made["frontend"][-8:].tolist()
    assert store.drops.read(0, 1)["nat_address"].tolist() == drop["nat_address"].tolist()
    assert len(store._packing._addresses.words) <= 16384


@pytest.mark.parametrize("kind", [1, 2, 3])
def test_records_without_translation_take_no_numbers(kind: int) -> None:
    packing = Packing(DTYPE)
    made = np.zeros(4, DTYPE)
    made["kind"] = kind
    kept = np.zeros(4, packing.packed)
    packing.pack(made, kept)
    assert kept["nat_address"].tolist() == kept["frontend"].tolist() == [0, 0, 0, 0]
