"""Fragments: later ones have no ports of their own, and go by what the first one said."""

from __future__ import annotations

import struct

import pytest
from bench_node import REDIRECT, SHOT, Node
from fragmented import fragment
from places import CLIENT, OTHER, OUR, POD, REMOTE, SERVER, VERSIONS, WORLD

from axoneme.policy.table import Key, Value
from oracle.packets import ICMP, ICMPV6, TCP, UDP, dissect, frame, with_checksum

NOT_FOUND, INVALID = 175, 134


@VERSIONS
def test_later_fragments_follow_the_first_in_any_order(kernel: Node, version: int) -> None:
    kernel.policies({Key(CLIENT, 0, 1, UDP, 53, 96): Value(1, 3)})
    whole = frame(POD[version], REMOTE[version], UDP, 40000, 53, payload=bytes(96))
    first, second, third = (fragment(whole, *ends) for ends in ((0, 32), (32, 64), (64, 104)))
    assert kernel.send("from_pod", second).value == SHOT
    (event,) = kernel.events()
    assert event["reason"] == NOT_FOUND
    for packet in (first, third, second):
        assert kernel.send("from_pod", packet).value != SHOT
    assert kernel.send("from_pod", fragment(whole, 32, 64, number=8)).value == SHOT


@VERSIONS
def test_what_policy_denies_it_denies_in_fragments_too(kernel: Node, version: int) -> None:
    kernel.policies({Key(CLIENT, 0, 1, UDP, 53, 96): Value(1, 3)})
    whole = frame(POD[version], REMOTE[version], UDP, 40000, 54, payload=bytes(96))
    for ends, reason in (((0, 32), 133), ((32, 104), NOT_FOUND)):
        assert kernel.send("from_pod", fragment(whole, *ends, number=20)).value == SHOT
        (event,) = kernel.events()
        assert event["reason"] == reason


@VERSIONS
def test_nobody_speaks_for_anothers_fragments(kernel: Node, version: int) -> None:
    """A first fragment that is refused says nothing of those that follow, whoever sends them."""
    kernel.policies({Key(CLIENT, 0, 1, UDP, 53, 96): Value(1, 3), Key(SERVER, 0, 1, 0, 0, 72): Value(1, 3)})
    allowed = frame(POD[version], REMOTE[version], UDP, 40000, 53, payload=bytes(96))
    denied = frame(POD[version], REMOTE[version], UDP, 40000, 54, payload=bytes(96))
    forged = fragment(allowed, 0, 32, number=30)
    assert kernel.send("from_pod", forged, kernel.uplink).value == SHOT, "not its address"
    assert kernel.send("from_pod", fragment(denied, 32, 104, number=30)).value == SHOT


@VERSIONS
def test_fragments_of_a_masqueraded_datagram_and_of_its_answer(kernel: Node, version: int) -> None:
    kernel.masquerade(OUR[version])
    whole = with_checksum(frame(POD[version], WORLD[version], UDP, 40000, 53, payload=bytes(96)))
    outside = kernel.send("from_pod", fragment(whole, 0, 32, number=40))
    port = struct.unpack(">H", dissect(outside.data).l4[8 * (version == 6) :][:2])[0]
    assert dissect(outside.data).source == OUR[version]
    later = kernel.send("from_pod", fragment(whole, 32, 104, number=40))
    assert (later.value, dissect(later.data).source) == (REDIRECT, OUR[version])
    answer = with_checksum(frame(WORLD[version], OUR[version], UDP, 53, port, payload=bytes(96)))
    for ends in ((0, 32), (64, 104), (32, 64)):
        run = kernel.send("from_uplink", fragment(answer, *ends, number=41), kernel.uplink)
        assert (run.value, dissect(run.data).destination) == (REDIRECT, POD[version])


@VERSIONS
def test_a_large_echo_in_fragments(kernel: Node, version: int) -> None:
    protocol, ask, answer = (ICMP, 8, 0) if version == 4 else (ICMPV6, 128, 129)
    there = frame(POD[version], OTHER[version], protocol, 77, ask, payload=bytes(96))
    back = frame(OTHER[version], POD[version], protocol, 77, answer, payload=bytes(96))
    for ends in ((0, 32), (32, 104)):
        assert kernel.send("from_pod", fragment(there, *ends, number=50)).value == REDIRECT
    kernel.policies({})
    for ends in ((0, 32), (32, 104)):
        run = kernel.send("from_pod", fragment(back, *ends, number=51), kernel.uplink)
        assert run.value == REDIRECT


@pytest.mark.parametrize("cut", [8, 16])
def test_a_first_fragment_without_a_whole_tcp_header_is_refused(kernel: Node, cut: int) -> None:
    whole = frame(POD[4], OTHER[4], TCP, 40000, 80, payload=bytes(64))
    assert kernel.send("from_pod", fragment(whole, 0, cut)).value == SHOT
    assert kernel.send("from_pod", fragment(whole, 8, 84)).value == SHOT, "it would overwrite the flags"
    assert [int(event["reason"]) for event in kernel.events()] == [INVALID, INVALID]


@VERSIONS
def test_padding_behind_a_packet_is_not_read(kernel: Node, version: int) -> None:
    """A frame is longer than its packet where it must be; what follows the packet says nothing."""
    whole = frame(POD[version], OTHER[version], UDP, 40000, 53)
    short = bytearray(whole)
    at, length = (16, 20 + 4) if version == 4 else (18, 4)
    short[at : at + 2] = struct.pack(">H", length)
    assert kernel.send("from_pod", bytes(short)).value == SHOT
    assert kernel.send("from_pod", whole + bytes(20)).value == REDIRECT
    longer = bytearray(whole)
    longer[at : at + 2] = struct.pack(">H", length + 400)
    assert kernel.send("from_pod", bytes(longer)).value == SHOT
