from __future__ import annotations

import numpy as np
import pytest

from axoneme.flows.events import (
    AddressTexts,
    TrafficDirection,
    Verdict,
    join,
    stamp,
    take,
    words,
)
from axoneme.identity.prefixes import address_bytes, address_text

from .records import DROP, DTYPE, END, EVENT, INGRESS, VOCABULARY, event, events, records


def test_a_record_is_the_event_byte_for_byte() -> None:
    one = event(source="2001:db8::1", destination_port=443, bytes=(5, 7), started=99, hook=12)
    record = stamp(one, DTYPE, 0)[0]
    for name in EVENT.names or ():
        assert np.array_equal(record[name], one[0][name]), name


def test_ports_are_numbers_also_when_the_layout_calls_them_plain_integers() -> None:
    raw = np.dtype([(n, "<u2" if EVENT[n] == ">u2" else EVENT[n]) for n in EVENT.names or ()])
    from axoneme.flows.events import record_dtype

    record = stamp(event(destination_port=443).view(raw), record_dtype(raw), 0)
    assert record["destination_port"][0] == 443


def test_a_batch_is_sorted_by_time_and_begins_no_earlier_than_the_last_one_ended() -> None:
    batch = events(
        event(time=30, source_port=3), event(time=10, source_port=1), event(time=20, source_port=2)
    )
    found = stamp(batch, DTYPE, offset=1000, floor=15)
    assert found["source_port"].tolist() == [1, 2, 3]
    assert found["time"].tolist() == [15, 20, 30]
    assert found["wall"].tolist() == [1015, 1020, 1030]


def test_verdict_and_direction() -> None:
    found = records(event(), event(kind=END), event(kind=DROP), event(kind=DROP, flags=INGRESS))
    assert VOCABULARY.verdicts(found).tolist() == [
        Verdict.FORWARDED,
        Verdict.FORWARDED,
        Verdict.DROPPED,
        Verdict.DROPPED,
    ]
    assert VOCABULARY.directions(found).tolist() == [*[TrafficDirection.EGRESS] * 3, TrafficDirection.INGRESS]


def test_reasons_have_the_names_of_hubble_and_ours_where_it_has_none() -> None:
    assert VOCABULARY.reasons[133] == "POLICY_DENIED"
    assert VOCABULARY.reasons[181] == "POLICY_DENY"
    assert VOCABULARY.reasons[211] == "UNROUTABLE"
    assert VOCABULARY.reserved == {1: "host", 2: "world", 6: "remote-node"}


@pytest.mark.parametrize("text", ["10.1.2.3", "0.0.0.0", "255.255.255.255", "2001:db8::1", "::", "::1"])
def test_addresses_as_text(text: str) -> None:
    assert address_text(address_bytes(text)) == text


@pytest.mark.parametrize("text", ["10.1.2", "1:2", "", "example.org", "10.0.0.0/8"])
def test_what_is_no_address_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="is no IP address"):
        address_bytes(text)


def test_texts_of_a_column_stay_right_when_the_memory_of_them_is_full() -> None:
    texts = AddressTexts(capacity=2)
    found = records(*(event(source=f"10.0.0.{n}") for n in (1, 2, 3, 1)))
    for _ in range(3):
        assert texts.of(found, "source") == ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.1"]


def test_taking_and_joining_keep_the_layout() -> None:
    found = records(event(source_port=1), event(source_port=2), event(source_port=3))
    taken = take(found, np.array([True, False, True]))
    assert taken.dtype == DTYPE
    joined = join(taken, found[1:2])
    assert joined.dtype == DTYPE
    assert joined["source_port"].tolist() == [1, 3, 2]


def test_words_are_equal_where_addresses_are() -> None:
    found = records(event(source="2001:db8::1"), event(source="2001:db8::1"), event(source="2001:db8::2"))
    first, second, third = words(found, "source").tolist()
    assert first == second != third
