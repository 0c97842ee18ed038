"""Requests judged in their order, answers in theirs; whatever pieces the bytes come in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axoneme.model.l7 import KafkaRule
from axoneme.proxy.kafka import conversation as limits
from axoneme.proxy.kafka.messages import VERSIONS
from axoneme.proxy.kafka.wire import Malformed
from unit.proxy.kafka.broker import (
    FETCH,
    HEARTBEAT,
    METADATA,
    PRODUCE,
    Played,
    answer,
    fetch,
    frames,
    metadata,
    produce,
    produce_by_id,
    read_answer,
    read_request,
    request,
)

ALPHA = KafkaRule(topic="alpha")
ALL = KafkaRule()
NUMBER = bytes(range(16))


def partition_error(key: int, version: int, data: bytes) -> int:
    topic = read_answer(key, version, data)["Responses"][0]
    (part,) = topic.get("PartitionResponses") or topic["Partitions"]
    return int(part["ErrorCode"])


def test_what_is_permitted_passes_as_it_came() -> None:
    played = Played(ALPHA)
    sent = produce("alpha")
    assert played.sends(sent) == sent
    said = answer(PRODUCE, 9, {})
    assert played.hears(said) == said
    assert played.told == [("FORWARDED", ("alpha",), "")]
    assert played.answered == [("produce", 0)]


def test_what_is_refused_is_answered_and_the_connection_goes_on() -> None:
    played = Played(ALPHA)
    assert played.sends(produce("beta")) == b""
    refused = read_answer(PRODUCE, 9, played.to_client())
    (topic,) = refused["Responses"]
    assert topic["Name"] == "beta"
    assert [(each["Index"], each["ErrorCode"]) for each in topic["PartitionResponses"]] == [(3, 29)]
    assert played.told == [("DROPPED", ("beta",), "no rule allows topic beta")]
    assert played.sends(produce("alpha", correlation=2))


def test_every_topic_of_a_request_must_be_allowed() -> None:
    played = Played(ALPHA, KafkaRule(topic="beta"))
    both = produce("alpha", "beta")
    assert played.sends(both) == both
    assert played.sends(produce("alpha", "gamma")) == b""


@pytest.mark.parametrize(
    ("kind", "name", "pattern", "passes"),
    [
        (2, "alpha", 3, True),
        (2, "beta", 3, False),
        (2, "*", 3, False),
        (2, "al", 4, False),  # all that begin so
        (1, "alpha", 3, False),  # of whatever kind
        (3, "beta", 3, True),  # a group
    ],
)
def test_rights_are_about_the_topics_that_they_name(kind: int, name: str, pattern: int, passes: bool) -> None:
    who = {"Principal": "User:me", "Host": "*", "Operation": 2, "PermissionType": 3}
    right = {"ResourceType": kind, "ResourceName": name, "ResourcePatternType": pattern, **who}
    sought = {
        "ResourceTypeFilter": kind,
        "ResourceNameFilter": name,
        "PatternTypeFilter": pattern,
        "PrincipalFilter": None,
        "HostFilter": None,
        "Operation": 2,
        "PermissionType": 3,
    }
    bodies = {30: {"Creations": [right]}, 31: {"Filters": [sought]}, 29: sought}
    for key, body in bodies.items():
        sent = request(key, 2, body)
        played = Played(ALPHA)
        assert played.sends(sent) == (sent if passes else b"")
        if not passes:
            assert read_answer(key, 2, played.to_client()).get("ErrorCode", 0) == (29 if key == 29 else 0)


def test_rules_of_api_version_and_client() -> None:
    beat = {"GroupId": "g", "GenerationId": 1, "MemberId": "m"}
    for rule, passes in (
        (KafkaRule(api_keys=(HEARTBEAT,)), True),
        (KafkaRule(api_keys=(HEARTBEAT, 3), topic="alpha"), True),  # it is about no topic
        (KafkaRule(api_keys=(3,)), False),
        (KafkaRule(api_version=4), True),
        (KafkaRule(api_version=3), False),
        (KafkaRule(client_id="me"), True),
        (KafkaRule(client_id="you"), False),
    ):
        played = Played(rule)
        sent = request(HEARTBEAT, 4, beat)
        assert (played.sends(sent) == sent) is passes
        if not passes:
            assert read_answer(HEARTBEAT, 4, played.to_client())["ErrorCode"] == 30
    assert Played().sends(request(HEARTBEAT, 4, beat)) == b""


def test_a_refusal_waits_for_the_answers_before_it() -> None:
    played = Played(ALPHA)
    for correlation, topic in enumerate(("alpha", "beta", "alpha")):
        played.sends(produce(topic, correlation=correlation))
    first = answer(PRODUCE, 9, {"Responses": [{"Name": "a" * 500}]}, 0)
    assert played.to_client() == b""
    assert played.hears(first[:200]) == first[:200]  # in its middle is no place for others
    got = played.hears(first[200:])
    rest, refused = got[: len(first) - 200], got[len(first) - 200 :]
    assert rest == first[200:]
    assert partition_error(PRODUCE, 9, refused) == 29
    third = answer(PRODUCE, 9, {}, 2)
    assert played.hears(third) == third


def test_who_wants_no_answer_gets_none() -> None:
    played = Played(ALPHA)
    silent = produce("alpha", acks=0)
    assert played.sends(silent, produce("beta", acks=0)) == silent
    assert played.to_client() == b""
    sent = produce("alpha", correlation=5)
    assert played.sends(sent) == sent
    said = answer(PRODUCE, 9, {}, 5)
    assert played.hears(said) == said


def test_a_long_request_passes_as_it_comes() -> None:
    played = Played(ALPHA)
    sent = produce("alpha", records=bytes(50 << 20))
    for start in range(0, len(sent), 1 << 18):
        part = sent[start : start + (1 << 18)]
        assert played.sends(part) == part
        assert not played.conversation.held


def test_what_has_to_be_held_has_a_limit() -> None:
    played = Played(ALPHA)
    sent = produce("beta", records=bytes(limits.LONGEST_HELD))
    with pytest.raises(Malformed, match="too long to be judged"):
        played.sends(sent[:100_000])
    assert played.to_server() == b""


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00",  # TLS
        b"GET / HTTP/1.1\r\n",
        bytes(20),
        (12).to_bytes(4, "big") + (999).to_bytes(2, "big") + bytes(10),  # an API that is not known
        (12).to_bytes(4, "big") + b"\0\1\0\x63" + bytes(8),  # a version that is not known
        request(17, 1, {"Mechanism": "PLAIN"})[:6] + b"\0\0" + request(17, 1, {"Mechanism": "PLAIN"})[8:],
        produce("alpha", "beta")[:-1] + b"\x05",
    ],
)  # fmt: skip
def test_what_cannot_be_understood_ends_the_connection(data: bytes) -> None:
    played = Played(ALPHA)
    with pytest.raises(Malformed):
        played.sends(data)
    assert played.to_server() == b""


def test_answers_that_wait_have_a_limit_too() -> None:
    played = Played(KafkaRule(api_keys=(FETCH,), topic="alpha"))
    assert played.sends(fetch("alpha"))  # which the broker may answer whenever it likes
    refused = request(15, 5, {"Groups": ["group"] * 40_000})
    while not played.conversation.full:
        assert played.sends(refused) == b""
    assert limits.LONGEST_HELD < played.conversation.held < 3 * limits.LONGEST_HELD
    assert played.to_client() == b""
    played.hears(answer(FETCH, 11, {}))
    assert not played.conversation.full
    assert not played.conversation.held


def test_rules_change_for_the_next_request() -> None:
    played = Played(ALPHA)
    assert played.sends(produce("alpha"))
    played.conversation.rules = (KafkaRule(topic="beta"),)
    assert played.sends(produce("alpha", correlation=2)) == b""
    assert played.sends(produce("beta", correlation=3))


def test_versions_are_those_that_both_sides_know() -> None:
    played = Played()  # it always passes
    sent = request(18, 3, {"ClientSoftwareName": "a", "ClientSoftwareVersion": "1"})
    assert played.sends(sent) == sent
    offered = [
        {"ApiKey": 0, "MinVersion": 0, "MaxVersion": 99},
        {"ApiKey": 12, "MinVersion": 1, "MaxVersion": 2},
        {"ApiKey": 17, "MinVersion": 0, "MaxVersion": 1},
        {"ApiKey": 1000, "MinVersion": 0, "MaxVersion": 1},
    ]
    got = read_answer(18, 3, played.hears(answer(18, 3, {"ApiKeys": offered})))["ApiKeys"]
    ranges = {each["ApiKey"]: (each["MinVersion"], each["MaxVersion"]) for each in got}
    assert ranges == {0: (0, VERSIONS[0].stop - 1), 12: (1, 2), 17: (1, 1)}


def test_a_broker_that_does_not_know_the_version_of_the_question_about_versions() -> None:
    played = Played()
    played.sends(request(18, 3, {}))
    said = answer(18, 0, {"ErrorCode": 35, "ApiKeys": [{"ApiKey": 18, "MinVersion": 0, "MaxVersion": 2}]})
    got = read_answer(18, 0, played.hears(said))
    assert (got["ErrorCode"], got["ApiKeys"][0]["MaxVersion"]) == (35, 2)


def test_a_client_that_is_newer_than_the_proxy() -> None:
    played = Played()
    sent = request(18, 5, {})
    newer = sent[:6] + (77).to_bytes(2, "big") + sent[8:]
    assert played.sends(newer) == b""
    got = read_answer(18, 0, played.to_client())
    assert got["ErrorCode"] == 35
    assert got["ApiKeys"] == [{"ApiKey": 18, "MinVersion": 0, "MaxVersion": VERSIONS[18].stop - 1}]


@pytest.mark.parametrize("version", [1, 5, 9, 12, 13])
def test_metadata_is_asked_of_permitted_topics_and_refused_of_the_others(version: int) -> None:
    played = Played(ALPHA)
    header, body = read_request(played.sends(metadata("alpha", "beta", version=version)))
    assert (header.correlation_id, header.client_id) == (1, "me")
    assert [each["Name"] for each in body["Topics"]] == ["alpha"]
    said = {"Brokers": [{"NodeId": 1, "Host": "h", "Port": 1}], "Topics": [{"ErrorCode": 0, "Name": "alpha"}]}
    got = read_answer(METADATA, version, played.hears(answer(METADATA, version, said)))
    assert len(got["Brokers"]) == 1
    assert [(each["Name"], each["ErrorCode"]) for each in got["Topics"]] == [("alpha", 0), ("beta", 29)]
    _, body = read_request(played.sends(metadata("beta", version=version)))
    assert body["Topics"] == []


def test_metadata_of_all_topics_is_no_matter_of_topics() -> None:
    played = Played(ALPHA)
    sent = request(METADATA, 9, {"Topics": None})
    assert played.sends(sent) == sent
    sent = request(METADATA, 0, {"Topics": []})
    assert played.sends(sent) == sent
    assert played.sends(metadata("beta", version=0)) == b""  # as if all were asked for, if it went on without


def test_the_broker_is_asked_for_the_names_of_topics_that_have_ids() -> None:
    played = Played(ALPHA)
    sent = produce_by_id(NUMBER, correlation=7)
    header, body = read_request(played.sends(sent))
    assert (header.api_key, header.client_id) == (METADATA, "me")
    assert [each["TopicId"] for each in body["Topics"]] == [NUMBER]
    assert played.conversation.full
    named = {"Topics": [{"ErrorCode": 0, "Name": "alpha", "TopicId": NUMBER}]}
    assert played.hears(answer(METADATA, 12, named, 7)) == b""
    assert played.to_server() == sent
    assert played.sends(sent) == sent  # it is known now
    played.conversation.rules = (KafkaRule(topic="beta"),)
    assert played.sends(sent) == b""


def test_a_topic_that_the_broker_does_not_know_is_refused() -> None:
    played = Played(ALPHA)
    played.sends(produce_by_id(NUMBER))
    said = {"Topics": [{"ErrorCode": 100, "Name": None, "TopicId": NUMBER}]}
    assert partition_error(PRODUCE, 13, played.hears(answer(METADATA, 12, said))) == 100
    assert played.to_server() == b""


def begin_session(played: Played, *topics: str) -> None:
    assert played.sends(fetch(*topics))
    played.hears(answer(FETCH, 11, {"SessionId": 5}))


def test_a_session_is_about_all_that_it_has() -> None:
    played = Played(ALPHA)
    begin_session(played, "alpha")
    more = fetch(session=5, epoch=1)
    assert played.sends(more) == more
    played.hears(answer(FETCH, 11, {"SessionId": 5}))
    played.conversation.rules = (KafkaRule(topic="beta"),)
    assert played.sends(fetch(session=5, epoch=2)) == b""
    assert read_answer(FETCH, 11, played.to_client())["ErrorCode"] == 70
    assert played.sends(fetch("alpha")) == b""  # the new one that the client begins then
    assert partition_error(FETCH, 11, played.to_client()) == 29


def test_a_session_from_elsewhere_is_not_known() -> None:
    played = Played(ALPHA)
    assert played.sends(fetch("alpha", session=9, epoch=3)) == b""
    assert read_answer(FETCH, 11, played.to_client())["ErrorCode"] == 70


def test_a_session_that_was_free_for_a_while_is_not_known() -> None:
    played = Played(ALPHA)
    begin_session(played, "alpha")
    played.conversation.rules = (ALL,)
    assert played.sends(fetch("beta", session=5, epoch=1))
    played.hears(answer(FETCH, 11, {"SessionId": 5}))
    played.conversation.rules = (ALPHA,)
    assert played.sends(fetch(session=5, epoch=2)) == b""


def test_what_is_only_tried_passes() -> None:
    played = Played(ALPHA, audit=True)
    sent = produce("beta")
    assert played.sends(sent) == sent
    assert played.told == [("AUDIT", ("beta",), "no rule allows topic beta")]
    noise = b"GET / HTTP/1.1\r\n\r\n" * 4
    assert played.sends(noise) == noise


def test_the_error_of_an_answer_is_told_wherever_it_stands() -> None:
    played = Played(ALL)
    played.sends(produce("alpha", correlation=1), fetch("alpha", correlation=2))
    parts = [{"Index": 0, "ErrorCode": 0}, {"Index": 1, "ErrorCode": 6}]
    played.hears(
        answer(PRODUCE, 9, {"Responses": [{"Name": "alpha", "PartitionResponses": parts}]}, 1),
        answer(FETCH, 11, {"ErrorCode": 71}, 2),
    )
    assert played.answered == [("produce", 6), ("fetch", 71)]


def test_an_answer_that_nobody_has_asked_for_ends_the_connection() -> None:
    with pytest.raises(Malformed):
        Played(ALL).hears(answer(PRODUCE, 9, {}))
    played = Played(ALL)
    played.sends(produce("alpha", correlation=1))
    with pytest.raises(Malformed):
        played.hears(answer(PRODUCE, 9, {}, 2))


REQUESTS = [
    produce("alpha", correlation=1),
    produce("beta", correlation=2),
    metadata("alpha", "beta", correlation=3),
    fetch("beta", correlation=4),
    produce("alpha", "beta", correlation=5),
    produce("alpha", acks=0, correlation=6),
    request(HEARTBEAT, 4, {"GroupId": "g", "MemberId": "m"}, 7),
]
ANSWERS = [
    answer(PRODUCE, 9, {}, 1),
    answer(METADATA, 9, {"Topics": [{"Name": "alpha"}]}, 3),
    answer(HEARTBEAT, 4, {}, 7),
]


def test_answers_come_in_the_order_of_requests() -> None:
    played = Played(ALPHA)
    played.sends(*REQUESTS)
    got = frames(played.hears(*ANSWERS))
    assert [int.from_bytes(each[4:8], "big") for each in got] == [1, 2, 3, 4, 5, 7]


@given(st.data())
def test_pieces_make_no_difference(data: st.DataObject) -> None:
    def cut(whole: bytes) -> list[bytes]:
        places = sorted(data.draw(st.sets(st.integers(1, len(whole) - 1), max_size=20)))
        return [whole[a:b] for a, b in zip([0, *places], [*places, len(whole)], strict=True)]

    whole, parts = Played(ALPHA), Played(ALPHA)
    sent = whole.sends(*REQUESTS)
    assert parts.sends(*cut(b"".join(REQUESTS))) == sent
    assert whole.hears(*ANSWERS) == parts.hears(*cut(b"".join(ANSWERS)))
    assert whole.told == parts.told
