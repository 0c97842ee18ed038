"""Refusals of all APIs in all versions, and who says the error in them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from axoneme.model.kafkaapis import ALWAYS
from axoneme.proxy.kafka import refusals
from axoneme.proxy.kafka.messages import TAGS, VERSIONS, Field, Struct, decode, encode, layout
from axoneme.proxy.kafka.requests import Header, bears_topics, topics
from axoneme.proxy.kafka.wire import NUMBERS, Malformed, Reader, Writer
from unit.proxy.kafka.broker import read_answer, read_request, request

EVERY = [(key, version) for key, versions in VERSIONS.items() for version in versions]
KINDS = {"bool": (0, 1), "uint16": (0, 65535), "uint32": (0, 2**32 - 1)}


def values(field: Field, compact: bool) -> st.SearchStrategy[Any]:
    one: st.SearchStrategy[Any]
    if field.kind == "struct":
        one = structs(field.inner, compact)
    elif field.kind == "float64":
        one = st.just(0)
    elif field.kind in NUMBERS:
        bits = 8 * NUMBERS[field.kind].size
        low, high = KINDS.get(field.kind, (-(1 << bits - 1), (1 << bits - 1) - 1))
        one = st.integers(low, high)
    elif field.kind == "string":
        one = st.text(max_size=5)
    elif field.kind == "uuid":
        one = st.binary(min_size=16, max_size=16)
    else:
        one = st.binary(max_size=5)
    if field.array:
        one = st.lists(one, max_size=2)
    return st.none() | one if field.optional else one


def structs(fields: tuple[Field, ...], compact: bool) -> st.SearchStrategy[Struct]:
    parts = {field.name: values(field, compact) for field in fields}
    if compact:
        parts[TAGS] = st.dictionaries(st.integers(0, 200), st.binary(max_size=3), max_size=2)
    return st.fixed_dictionaries(parts)


@given(st.sampled_from(EVERY), st.sampled_from(["request", "response"]), st.data())
def test_what_is_written_is_read(which: tuple[int, int], kind: str, data: st.DataObject) -> None:
    form = layout(*which, kind)
    value = data.draw(structs(form.fields, form.compact))
    writer = Writer()
    encode(form, value, writer)
    reader = Reader(bytes(writer.data))
    assert decode(form, reader) == value
    assert reader.place == len(writer.data)
    cut = data.draw(st.integers(0, max(len(writer.data) - 1, 0)))
    if cut < len(writer.data):
        with pytest.raises(Malformed):
            decode(form, Reader(bytes(writer.data[:cut])))


@given(st.sampled_from([each for each in EVERY if each[0] not in ALWAYS]), st.data())
@settings(max_examples=200)
def test_every_request_can_be_refused(which: tuple[int, int], data: st.DataObject) -> None:
    form = layout(*which, "request")
    header, body = read_request(request(*which, data.draw(structs(form.fields, form.compact))))
    error = refusals.code(header, body)
    assert error in (29, 30, 31, 53)
    got = read_answer(*which, refusals.refusal(header, body, error))
    said = list(errors(got))
    assert set(said) <= {0, error}
    assert error in said or "ErrorCode" not in got


def errors(value: Any) -> Iterator[int]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if str(name).endswith("ErrorCode"):
                yield inner
            else:
                yield from errors(inner)
    elif isinstance(value, list):
        for each in value:
            yield from errors(each)


def refused(key: int, version: int, body: Struct, error: int = 0) -> Struct:
    header, full = read_request(request(key, version, body))
    return read_answer(key, version, refusals.refusal(header, full, error or refusals.code(header, full)))


def test_each_topic_and_partition_has_the_error() -> None:
    parts = [{"Partition": 0}, {"Partition": 2}]
    wanted = [{"Topic": "a", "Partitions": parts}, {"Topic": "b", "Partitions": parts}]
    got = refused(1, 11, {"Topics": wanted})
    assert got["ErrorCode"] == 0  # else clients would not look further
    assert [
        (each["Topic"], part["PartitionIndex"], part["ErrorCode"])
        for each in got["Responses"]
        for part in each["Partitions"]
    ] == [("a", 0, 29), ("a", 2, 29), ("b", 0, 29), ("b", 2, 29)]
    got = refused(21, 2, {"Topics": [{"Name": "a", "Partitions": [{"PartitionIndex": 1}]}]})
    assert got["Topics"][0]["Partitions"][0]["ErrorCode"] == 29
    got = refused(19, 7, {"Topics": [{"Name": "new"}]})
    assert [(each["Name"], each["ErrorCode"]) for each in got["Topics"]] == [("new", 29)]
    assert got["Topics"][0]["ErrorMessage"] == refusals.REASON
    got = refused(20, 4, {"TopicNames": ["a", "b"]})
    assert [(each["Name"], each["ErrorCode"]) for each in got["Responses"]] == [("a", 29), ("b", 29)]
    got = refused(34, 2, {"Dirs": [{"Path": "/", "Topics": [{"Name": "a", "Partitions": [4]}]}]})
    assert got["Results"][0]["Partitions"] == [{"PartitionIndex": 4, "ErrorCode": 29, TAGS: {}}]


def test_groups_transactions_and_the_cluster_have_errors_of_their_own() -> None:
    assert refused(11, 9, {"GroupId": "g"})["ErrorCode"] == 30
    got = refused(15, 5, {"Groups": ["g", "h"]})
    assert [(each["GroupId"], each["ErrorCode"]) for each in got["Groups"]] == [("g", 30), ("h", 30)]
    got = refused(10, 4, {"CoordinatorKeys": ["g"], "KeyType": 0})
    assert [(each["Key"], each["ErrorCode"]) for each in got["Coordinators"]] == [("g", 30)]
    assert refused(10, 2, {"Key": "t", "KeyType": 1})["ErrorCode"] == 53
    assert refused(22, 4, {"TransactionalId": "t"})["ErrorCode"] == 53
    assert refused(22, 4, {"TransactionalId": None})["ErrorCode"] == 31
    assert refused(60, 1, {})["ErrorCode"] == 31
    topic = {"Name": "a", "Partitions": [{"PartitionIndex": 1}]}
    got = refused(8, 8, {"GroupId": "g", "Topics": [topic]})
    assert got["Topics"][0]["Partitions"][0]["ErrorCode"] == 30
    got = refused(9, 8, {"Groups": [{"GroupId": "g", "Topics": None}]})
    assert [(each["GroupId"], each["ErrorCode"]) for each in got["Groups"]] == [("g", 30)]


def test_transactions_of_both_forms_say_what_they_are_about() -> None:
    topic = {"Name": "a", "Partitions": [0, 1]}
    for version, body in (
        (3, {"V3AndBelowTransactionalId": "t", "V3AndBelowTopics": [topic]}),
        (5, {"Transactions": [{"TransactionalId": "t", "Topics": [topic]}]}),
    ):
        header, full = read_request(request(24, version, body))
        assert topics(header.layout, full).names == {"a"}
        assert list(errors(refused(24, version, body, 29)))[-2:] == [29, 29]


def test_which_apis_are_about_topics() -> None:
    """Those of the reference's list that have topics in their requests at all, and the newer ones."""
    found = {key for key, version in EVERY if bears_topics(layout(key, version, "request"))}
    assert {
        0,
        1,
        2,
        3,
        4,
        5,
        6,
        8,
        9,
        19,
        20,
        21,
        23,
        24,
        27,
        28,
        32,
        33,
        34,
        35,
        37,
        44,
        68,
        75,
        78,
    } <= found
    assert not found & {10, 11, 12, 13, 14, 16, 17, 18, 22, 25, 26, 36, 71}


def test_what_cannot_be_told_is_said() -> None:
    beat = {"GroupId": "g", "SubscribedTopicNames": ["a"], "SubscribedTopicRegex": "b.*"}
    header, body = read_request(request(68, 1, beat))
    assert topics(header.layout, body).unclear
    header, body = read_request(request(68, 1, {**beat, "SubscribedTopicRegex": ""}))
    assert not topics(header.layout, body).unclear
    header, body = read_request(request(58, 0, {"RequestData": b"x", "ClientHostAddress": b""}))
    assert topics(header.layout, body).unclear
    resources = [{"ResourceType": 2, "ResourceName": "a"}, {"ResourceType": 4, "ResourceName": "1"}]
    header, body = read_request(request(32, 4, {"Resources": resources}))
    assert topics(header.layout, body).names == {"a"}


def test_headers_of_old_and_new_requests() -> None:
    for key, version, client in ((7, 0, ""), (7, 3, "me"), (0, 3, "me"), (0, 9, "me")):
        header, _ = read_request(request(key, version, {}))
        assert (header.api_key, header.version, header.client_id) == (key, version, client)
    header, _ = read_request(request(12, 4, {}, client=None))
    assert isinstance(header, Header)
    assert header.client_id == ""
