"""What the node answers to packets that go no further."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

import pytest
from bench_node import PASS, REDIRECT, SHOT, Node, node
from places import OTHER, OUR, POD, REMOTE, VERSIONS, WORLD, furnish

from axoneme.datapath import testrun
from axoneme.datapath.plane import Constants
from oracle.packets import (
    ACK,
    ETHERNET,
    FIN,
    ICMP,
    ICMPV6,
    RST,
    SYN,
    TCP,
    UDP,
    Seen,
    dissect,
    frame,
    with_checksum,
)

MTU = 1500
TOO_BIG = {4: (3, 4), 6: (2, 0)}
TIME_EXCEEDED = {4: (11, 0), 6: (3, 0)}
PROHIBITED = {4: (3, 13), 6: (1, 1)}


def icmp_about(run: testrun.Run, packet: bytes, version: int) -> Seen:
    """The answer, sound in all its parts, which carries the beginning of ``packet`` as it was."""
    assert run.value == REDIRECT
    answer = dissect(run.data)
    asked = dissect(packet)
    assert answer.protocol == (ICMP if version == 4 else ICMPV6)
    assert answer.destination == asked.source
    assert (answer.to, answer.sender) == (asked.sender, asked.to)
    assert answer.ip_checksum_right
    assert answer.checksum_right
    quoted = answer.l4[8:]
    assert quoted == packet[14 : 14 + len(quoted)]
    assert len(quoted) >= min(len(packet) - 14, 128)
    return answer


@pytest.fixture(scope="module")
def outspoken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    constants = Constants(world_ipv4=9, world_ipv6=10, answer_denied=1)
    with node(tmp_path_factory.mktemp("outspoken") / "bpf", constants) as made:
        made.uplink_to_everywhere(OUR[4], OUR[6])
        yield made


@pytest.fixture
def strict(outspoken: Node) -> Node:
    """Nothing is allowed, and whoever tries is told."""
    furnish(outspoken)
    outspoken.answer_as(OUR[4], OUR[6])
    return outspoken


# ---- too big -----------------------------------------------------------------------------------


@VERSIONS
def test_what_is_too_big_for_the_way_out_is_told_how_big_it_may_be(kernel: Node, version: int) -> None:
    kernel.masquerade(OUR[version])
    kernel.answer_as(OUR[version])
    fits = frame(POD[version], WORLD[version], UDP, 40000, 53, whole=True, payload=bytes(MTU - 28 - 20))
    assert kernel.send("from_pod", fits).value == REDIRECT
    packet = frame(POD[version], WORLD[version], UDP, 40000, 53, whole=True, payload=bytes(MTU))
    answer = icmp_about(kernel.send("from_pod", packet), packet, version)
    assert answer.source == OUR[version]
    assert tuple(answer.l4[:2]) == TOO_BIG[version]
    assert struct.unpack(">I", answer.l4[4:8])[0] == MTU
    assert 136 in [int(event["reason"]) for event in kernel.events()]


@VERSIONS
def test_a_route_may_be_narrower_than_its_device(kernel: Node, version: int) -> None:
    kernel.narrow_route(WORLD[version], 1400)
    packet = frame(POD[version], WORLD[version], UDP, 40000, 53, whole=True, payload=bytes(1400))
    answer = icmp_about(kernel.send("from_pod", packet), packet, version)
    assert struct.unpack(">I", answer.l4[4:8])[0] == 1400
    assert kernel.send("from_pod", packet[:1000]).value == SHOT, "its own length says more"
    small = frame(POD[version], WORLD[version], UDP, 40000, 53, payload=bytes(1300))
    assert kernel.send("from_pod", small).value == REDIRECT


def test_what_may_be_cut_is_left_to_the_stack_unless_its_address_must_change(kernel: Node) -> None:
    packet = frame(POD[4], WORLD[4], UDP, 40000, 53, payload=bytes(MTU))
    assert kernel.send("from_pod", packet).value == PASS
    kernel.masquerade(OUR[4])
    other = frame(POD[4], WORLD[4], UDP, 40001, 53, payload=bytes(MTU))
    answer = icmp_about(kernel.send("from_pod", other), other, 4)
    assert tuple(answer.l4[:2]) == TOO_BIG[4]


@VERSIONS
def test_between_pods_of_one_node_nothing_is_too_big(kernel: Node, version: int) -> None:
    packet = frame(POD[version], OTHER[version], UDP, 40000, 53, whole=True, payload=bytes(2500))
    assert kernel.send("from_pod", packet).value == REDIRECT
    assert (
        kernel.send("from_pod", packet).data[42 + 20 * (version == 6) :] == packet[42 + 20 * (version == 6) :]
    )


# ---- time --------------------------------------------------------------------------------------


@VERSIONS
def test_a_packet_whose_time_is_up_is_told_so(kernel: Node, version: int) -> None:
    kernel.answer_as(OUR[version])
    for ttl in (0, 1):
        packet = frame(POD[version], OTHER[version], TCP, 40000, 80, ttl=ttl)
        answer = icmp_about(kernel.send("from_pod", packet), packet, version)
        assert answer.source == OUR[version]
        assert tuple(answer.l4[:2]) == TIME_EXCEEDED[version]
        assert 196 in [int(event["reason"]) for event in kernel.events()]
    assert (
        kernel.send("from_pod", frame(POD[version], OTHER[version], TCP, 40000, 80, ttl=2)).value == REDIRECT
    )


@VERSIONS
def test_errors_are_not_answered(kernel: Node, version: int) -> None:
    about = frame(OTHER[version], POD[version], UDP, 7, 9)[14:]
    protocol, kind = (ICMP, 3) if version == 4 else (ICMPV6, 1)
    error = frame(POD[version], OTHER[version], protocol, 0, kind, payload=about, ttl=1)
    assert kernel.send("from_pod", error).value == SHOT


def test_answers_are_limited_in_number(kernel: Node) -> None:
    packet = frame(POD[4], OTHER[4], TCP, 40000, 80, ttl=1)
    answered = [kernel.send("from_pod", packet).value == REDIRECT for _ in range(1000)]
    assert answered[0]
    assert 100 < sum(answered) < 1000


# ---- policy ------------------------------------------------------------------------------------


@VERSIONS
@pytest.mark.parametrize(
    ("flags", "payload", "sequence", "acknowledges"),
    [(SYN, b"", 0, 2), (ACK, b"x" * 7, 0, 0), (FIN, b"", 0, 2)],
)
def test_a_denied_segment_is_reset(
    strict: Node, version: int, flags: int, payload: bytes, sequence: int, acknowledges: int
) -> None:
    packet = frame(POD[version], REMOTE[version], TCP, 40000, 80, flags=flags, payload=payload)
    run = strict.send("from_pod", packet)
    assert run.value == REDIRECT
    seen = dissect(run.data)
    assert (seen.source, seen.destination, seen.ports) == (REMOTE[version], POD[version], (80, 40000))
    assert seen.checksum_right
    assert seen.ip_checksum_right
    numbers, is_flags = struct.unpack(">II", seen.l4[4:12]), seen.l4[13]
    if flags & ACK:
        assert (numbers[0], is_flags) == (1, RST), "the segment's own acknowledgement number"
    else:
        assert (numbers, is_flags) == ((sequence, acknowledges), RST | ACK)


@VERSIONS
def test_a_denied_datagram_is_answered_that_it_is_prohibited(strict: Node, version: int) -> None:
    packet = frame(POD[version], REMOTE[version], UDP, 40000, 53, payload=b"?" * 200)
    answer = icmp_about(strict.send("from_pod", packet), packet, version)
    assert answer.source == OUR[version]
    assert tuple(answer.l4[:2]) == PROHIBITED[version]
    echo = frame(POD[version], REMOTE[version], *((ICMP, 7, 8) if version == 4 else (ICMPV6, 7, 128)))
    icmp_about(strict.send("from_pod", echo), echo, version)


@VERSIONS
def test_both_directions_are_answered(strict: Node, version: int) -> None:
    come_in = frame(WORLD[version], POD[version], UDP, 40000, 53)
    answer = icmp_about(strict.send("from_uplink", come_in, strict.uplink), come_in, version)
    assert answer.source == OUR[version]
    by_host = frame(OUR[version], POD[version], UDP, 40000, 53)
    answer = icmp_about(strict.send("to_pod", by_host), by_host, version)
    assert answer.source == POD[version], "the node takes no message from itself"


@VERSIONS
def test_a_reset_is_not_answered(strict: Node, version: int) -> None:
    packet = frame(POD[version], REMOTE[version], TCP, 40000, 80, flags=RST)
    assert strict.send("from_pod", packet).value == SHOT


@VERSIONS
def test_by_default_what_is_denied_is_dropped_without_a_word(kernel: Node, version: int) -> None:
    kernel.policies({})
    for protocol in (TCP, UDP):
        assert kernel.send("from_pod", frame(POD[version], REMOTE[version], protocol, 1, 2)).value == SHOT


# ---- errors about connections, by whom ever ----------------------------------------------------


def router(version: int) -> IPv4Address | IPv6Address:
    return IPv4Address("192.0.2.77") if version == 4 else IPv6Address("2001:db8:77::1")


@VERSIONS
def test_an_error_of_the_nodes_own_stack_reaches_the_pod(kernel: Node, version: int) -> None:
    sent = frame(POD[version], WORLD[version], UDP, 40000, 53)
    assert kernel.send("from_pod", sent).value == REDIRECT
    protocol, kind = (ICMP, 3) if version == 4 else (ICMPV6, 1)
    error = frame(OUR[version], POD[version], protocol, 0, kind, payload=sent[14:])
    kernel.policies({})
    assert kernel.send("to_pod", error).value == PASS


def test_too_big_reaches_a_masqueraded_connection_with_its_size(kernel: Node) -> None:
    kernel.masquerade(OUR[4])
    out = kernel.send("from_pod", with_checksum(frame(POD[4], WORLD[4], TCP, 40000, 80, whole=True))).data
    # 8 bytes of layer 4 are all that a router has to quote (RFC 792).
    error = bytearray(frame(router(4), OUR[4], ICMP, 0, 3, code=4, payload=out[14:42]))
    error[34 + 4 : 34 + 8] = struct.pack(">HH", 0, 1300)
    run = kernel.send("from_uplink", with_checksum(bytes(error)), kernel.uplink)
    seen = dissect(run.data)
    assert (run.value, seen.destination) == (REDIRECT, POD[4])
    assert struct.unpack(">BBHHH", seen.l4[:8])[::4] == (3, 1300)
    assert seen.checksum_right


def test_an_error_about_a_packet_with_extension_headers_belongs_to_its_connection(kernel: Node) -> None:
    sent = frame(POD[6], REMOTE[6], UDP, 40000, 53)
    options = bytes([UDP, 0, 1, 4, 0, 0, 0, 0])
    with_options = bytearray(sent[:54] + options + sent[54:])
    with_options[20] = 60
    with_options[18:20] = struct.pack(">H", len(with_options) - 54)
    assert kernel.send("from_pod", bytes(with_options)).value != SHOT
    kernel.policies({})
    error = frame(router(6), POD[6], ICMPV6, 0, 1, payload=bytes(with_options[14:]))
    assert kernel.send("to_pod", error).value == PASS
    assert kernel.send("to_pod", error[:-8]).value == SHOT, "cut short: nobody knows whose"
    assert ETHERNET[:6] == error[:6]
