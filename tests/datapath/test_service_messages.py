"""Services: errors about connections to them, and packets that come in pieces, or are too big, or too old."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest
from balancing import Balancer
from bench_node import PASS, REDIRECT, SHOT, Node
from places import OTHER, OUR, POD, REMOTE, VERSIONS, WORLD
from test_fragments import fragment
from test_services import ELSEWHERE, SERVICE, balancer, ends, packet, sound

from oracle.packets import (
    ACK,
    ETHERNET,
    ICMP,
    ICMPV6,
    SYN,
    TCP,
    UDP,
    Address,
    Seen,
    dissect,
    frame,
    with_checksum,
)

__all__ = ["balancer"]

TOO_BIG = {4: (ICMP, 3, 4), 6: (ICMPV6, 2, 0)}
UNREACHABLE = {4: (ICMP, 3, 3), 6: (ICMPV6, 1, 4)}
ROUTER = {4: ip_address("192.0.2.77"), 6: ip_address("2001:db8:77::1")}


def error(sender: Address, to: Address, about: bytes, kind: tuple[int, int, int]) -> bytes:
    """An ICMP error about a frame that was sent."""
    protocol, number, code = kind
    return with_checksum(frame(sender, to, protocol, 0, number, code=code, payload=about[14:]))


def inside(seen: Seen) -> Seen:
    """The packet that an error is about."""
    kind = b"\x08\x00" if seen.source.version == 4 else b"\x86\xdd"
    inner = dissect(ETHERNET + kind + seen.l4[8:])
    assert inner.ip_checksum_right
    return inner


# ---- from outside, to a pod of this node -------------------------------------------------------


@VERSIONS
def test_errors_about_a_call_from_outside_in_both_directions(
    kernel: Node, balancer: Balancer, version: int
) -> None:
    balancer.simple(SERVICE[version], 53, UDP, {7: (OTHER[version], 5353)})
    call = packet(WORLD[version], SERVICE[version], UDP, (40000, 53))
    given = kernel.send("from_uplink", call, kernel.uplink).data
    refusal = error(OTHER[version], WORLD[version], given, UNREACHABLE[version])
    run = kernel.send("from_pod", refusal, kernel.uplink)
    assert run.value == REDIRECT
    seen = sound(run.data)
    assert (seen.source, seen.destination) == (SERVICE[version], WORLD[version])
    assert ends(inside(seen)) == ((WORLD[version], 40000), (SERVICE[version], 53))

    answer = packet(OTHER[version], WORLD[version], UDP, (5353, 40000))
    shown = kernel.send("from_pod", answer, kernel.uplink).data
    complaint = error(ROUTER[version], SERVICE[version], shown, TOO_BIG[version])
    run = kernel.send("from_uplink", complaint, kernel.uplink)
    assert run.value == REDIRECT
    seen = sound(run.data)
    assert (seen.source, seen.destination) == (ROUTER[version], OTHER[version])
    assert ends(inside(seen)) == ((OTHER[version], 5353), (WORLD[version], 40000))


@VERSIONS
def test_errors_about_a_call_that_goes_elsewhere_in_both_directions(
    kernel: Node, balancer: Balancer, version: int
) -> None:
    balancer.simple(SERVICE[version], 53, UDP, {7: (ELSEWHERE[version], 5353)})
    call = packet(WORLD[version], SERVICE[version], UDP, (40000, 53))
    sent = kernel.send("from_uplink", call, kernel.uplink).data
    (_, port), _ = ends(dissect(sent))
    for sender, shown_as in ((ELSEWHERE, SERVICE), (ROUTER, ROUTER)):
        refusal = error(sender[version], OUR[version], sent, UNREACHABLE[version])
        run = kernel.send("from_uplink", refusal, kernel.uplink)
        assert run.value == REDIRECT
        seen = sound(run.data)
        assert (seen.source, seen.destination) == (shown_as[version], WORLD[version])
        assert ends(inside(seen)) == ((WORLD[version], 40000), (SERVICE[version], 53))

    answer = packet(ELSEWHERE[version], OUR[version], UDP, (5353, port))
    shown = kernel.send("from_uplink", answer, kernel.uplink).data
    complaint = error(WORLD[version], SERVICE[version], shown, TOO_BIG[version])
    run = kernel.send("from_uplink", complaint, kernel.uplink)
    assert run.value == REDIRECT
    seen = sound(run.data)
    assert (seen.source, seen.destination) == (OUR[version], ELSEWHERE[version])
    assert ends(inside(seen)) == ((ELSEWHERE[version], 5353), (OUR[version], port))


@VERSIONS
def test_errors_of_the_node_itself_about_a_call_that_is_for_it(
    kernel: Node, balancer: Balancer, version: int
) -> None:
    balancer.simple(SERVICE[version], 53, UDP, {7: (OUR[version], 5353)})
    call = packet(WORLD[version], SERVICE[version], UDP, (40000, 53))
    given = kernel.send("from_uplink", call, kernel.uplink).data
    refusal = error(OUR[version], WORLD[version], given, UNREACHABLE[version])
    run = kernel.send("to_uplink", refusal, kernel.uplink)
    assert run.value == PASS
    seen = sound(run.data)
    assert (seen.source, seen.destination) == (SERVICE[version], WORLD[version])
    assert ends(inside(seen)) == ((WORLD[version], 40000), (SERVICE[version], 53))

    shown = kernel.send(
        "to_uplink", packet(OUR[version], WORLD[version], UDP, (5353, 40000)), kernel.uplink
    ).data
    complaint = error(ROUTER[version], SERVICE[version], shown, TOO_BIG[version])
    run = kernel.send("from_uplink", complaint, kernel.uplink)
    assert run.value == PASS
    seen = sound(run.data)
    assert seen.destination == OUR[version]
    assert ends(inside(seen)) == ((OUR[version], 5353), (WORLD[version], 40000))


@VERSIONS
def test_errors_between_a_pod_and_itself(kernel: Node, balancer: Balancer, version: int) -> None:
    balancer.simple(SERVICE[version], 53, UDP, {7: (POD[version], 5353)}, flags=0)
    given = kernel.send("from_pod", packet(POD[version], SERVICE[version], UDP, (40000, 53))).data
    refusal = error(POD[version], SERVICE[version], given, UNREACHABLE[version])
    run = kernel.send("from_pod", refusal)
    assert run.value == REDIRECT
    seen = sound(run.data)
    assert (seen.source, seen.destination) == (SERVICE[version], POD[version])
    assert ends(inside(seen)) == ((POD[version], 40000), (SERVICE[version], 53))


@VERSIONS
def test_an_error_that_is_about_no_connection_of_a_services_reaches_nobody(
    kernel: Node, balancer: Balancer, version: int
) -> None:
    balancer.simple(SERVICE[version], 53, UDP, {7: (OTHER[version], 5353)})
    kernel.send("from_uplink", packet(WORLD[version], SERVICE[version], UDP, (40000, 53)), kernel.uplink)
    never_sent = packet(OTHER[version], WORLD[version], UDP, (5353, 40000))
    kernel.policies({})
    forged = error(ROUTER[version], OTHER[version], never_sent, TOO_BIG[version])
    assert kernel.send("from_uplink", forged, kernel.uplink).value == SHOT
    other = packet(SERVICE[version], WORLD[version], UDP, (53, 40001))
    forged = error(ROUTER[version], SERVICE[version], other, TOO_BIG[version])
    assert kernel.send("from_uplink", forged, kernel.uplink).value == PASS


# ---- pieces ------------------------------------------------------------------------------------

PIECES = ((0, 32), (64, 104), (32, 64))


@VERSIONS
@pytest.mark.parametrize("where", ["a pod", "elsewhere", "the node"])
def test_fragments_of_a_call_and_of_its_answer(
    kernel: Node, balancer: Balancer, version: int, where: str
) -> None:
    backend = {"a pod": OTHER, "elsewhere": ELSEWHERE, "the node": OUR}[where][version]
    balancer.simple(SERVICE[version], 53, UDP, {7: (backend, 5353)})
    whole = with_checksum(frame(WORLD[version], SERVICE[version], UDP, 40000, 53, payload=bytes(range(96))))
    assert (
        kernel.send("from_uplink", fragment(whole, 32, 64, number=70 + len(where)), kernel.uplink).value
        == PASS
    )
    kernel.events()
    got = [
        kernel.send("from_uplink", fragment(whole, *piece, number=70 + len(where)), kernel.uplink)
        for piece in PIECES
    ]
    assert {run.value for run in got} == {PASS if where == "the node" else REDIRECT}
    joined = together([run.data for run in got])
    seen = sound(joined)
    assert seen.destination == backend
    assert seen.ports[1] == 5353
    assert seen.l4[8:] == bytes(range(96))

    asker = seen.source
    answer = with_checksum(frame(backend, asker, UDP, 5353, seen.ports[0], payload=bytes(range(96))))
    program = {"a pod": "from_pod", "elsewhere": "from_uplink", "the node": "to_uplink"}[where]
    got = [kernel.send(program, fragment(answer, *piece, number=71), kernel.uplink) for piece in PIECES]
    seen = sound(together([run.data for run in got]))
    assert ends(seen) == ((SERVICE[version], 53), (WORLD[version], 40000))
    assert seen.l4[8:] == bytes(range(96))


def together(pieces: list[bytes]) -> bytes:
    """The datagram that comes in these fragments, all of its header in the first one."""
    first = pieces[0]
    ipv6 = first[12:14] == b"\x86\xdd"
    body = {}
    for piece in pieces:
        if ipv6:
            assert piece[20] == 44
            body[struct.unpack(">H", piece[56:58])[0] & 0xFFF8] = piece[62:]
        else:
            assert dissect(piece).ip_checksum_right
            body[(struct.unpack(">H", piece[20:22])[0] & 0x1FFF) * 8] = piece[34:]
        assert piece[26:34] == first[26:34] if not ipv6 else piece[22:54] == first[22:54]
    l4 = b"".join(content for _, content in sorted(body.items()))
    seen = dissect(first)
    return frame(seen.source, seen.destination, UDP, 0, 0, payload=bytes(len(l4) - 8))[: -len(l4)] + l4


# ---- too big, too old --------------------------------------------------------------------------


@VERSIONS
def test_what_is_too_big_for_the_way_to_the_backend_is_told_in_the_clients_terms(
    kernel: Node, balancer: Balancer, version: int
) -> None:
    kernel.narrow_route(WORLD[version], 1500)
    kernel.narrow_route(REMOTE[version], 1300)
    balancer.simple(SERVICE[version], 53, UDP, {7: (REMOTE[version], 5353)})
    call = with_checksum(frame(WORLD[version], SERVICE[version], UDP, 40000, 53, payload=bytes(1400)))
    run = kernel.send("from_uplink", call, kernel.uplink)
    kernel.forget_routes(REMOTE[version])
    assert run.value == REDIRECT
    seen = sound(run.data)
    assert (seen.source, seen.destination) == (OUR[version], WORLD[version])
    assert tuple(seen.l4[:2]) == TOO_BIG[version][1:]
    assert struct.unpack(">I", seen.l4[4:8])[0] == 1300
    assert call[14:].startswith(seen.l4[8:])


@VERSIONS
def test_what_is_too_old_is_told_in_the_clients_terms(kernel: Node, balancer: Balancer, version: int) -> None:
    balancer.simple(SERVICE[version], 53, UDP, {7: (OTHER[version], 5353)})
    kernel.plane.uplinks.discard(0)
    call = packet(WORLD[version], SERVICE[version], UDP, (40000, 53), ttl=1)
    run = kernel.send("from_uplink", call, kernel.uplink)
    assert run.value == REDIRECT
    seen = sound(run.data)
    assert (seen.source, seen.destination) == (SERVICE[version], WORLD[version])
    assert tuple(seen.l4[:2]) == ((11, 0) if version == 4 else (3, 0))
    assert call[14:].startswith(seen.l4[8:])


@VERSIONS
def test_a_segment_in_the_middle_of_an_unknown_connection_is_balanced(
    kernel: Node, balancer: Balancer, version: int
) -> None:
    balancer.simple(SERVICE[version], 80, TCP, {7: (OTHER[version], 8080)})
    call = packet(WORLD[version], SERVICE[version], TCP, (40000, 80), flags=ACK)
    assert ends(sound(kernel.send("from_uplink", call, kernel.uplink).data))[1] == (OTHER[version], 8080)
    assert SYN


@VERSIONS
def test_errors_about_a_pods_call_in_both_directions(kernel: Node, balancer: Balancer, version: int) -> None:
    balancer.simple(SERVICE[version], 53, UDP, {7: (OTHER[version], 5353)}, flags=0)
    given = kernel.send("from_pod", packet(POD[version], SERVICE[version], UDP, (40000, 53))).data
    refusal = error(OTHER[version], POD[version], given, UNREACHABLE[version])
    run = kernel.send("from_pod", refusal, kernel.uplink)
    assert run.value == REDIRECT
    seen = sound(run.data)
    assert (seen.source, seen.destination) == (SERVICE[version], POD[version])
    assert ends(inside(seen)) == ((POD[version], 40000), (SERVICE[version], 53))

    answer = packet(OTHER[version], POD[version], UDP, (5353, 40000))
    shown = kernel.send("from_pod", answer, kernel.uplink).data
    refusal = error(POD[version], SERVICE[version], shown, UNREACHABLE[version])
    run = kernel.send("from_pod", refusal)
    assert run.value == REDIRECT
    seen = sound(run.data)
    assert (seen.source, seen.destination) == (POD[version], OTHER[version])
    assert ends(inside(seen)) == ((OTHER[version], 5353), (POD[version], 40000))


@VERSIONS
def test_errors_about_a_pods_call_to_the_node_itself(kernel: Node, balancer: Balancer, version: int) -> None:
    balancer.simple(SERVICE[version], 53, UDP, {7: (OUR[version], 5353)}, flags=0)
    given = kernel.send("from_pod", packet(POD[version], SERVICE[version], UDP, (40000, 53))).data
    refusal = error(OUR[version], POD[version], given, UNREACHABLE[version])
    run = kernel.send("to_pod", refusal)
    assert run.value == PASS
    seen = sound(run.data)
    assert (seen.source, seen.destination) == (SERVICE[version], POD[version])
    assert ends(inside(seen)) == ((POD[version], 40000), (SERVICE[version], 53))
    # As the pod sends it back: to the service, about what came from there.
    shown = kernel.send("to_pod", packet(OUR[version], POD[version], UDP, (5353, 40000))).data
    refusal = error(POD[version], SERVICE[version], shown, UNREACHABLE[version])
    run = kernel.send("from_pod", refusal)
    assert run.value == PASS
    seen = sound(run.data)
    assert (seen.source, seen.destination) == (POD[version], OUR[version])
    assert ends(inside(seen)) == ((OUR[version], 5353), (POD[version], 40000))
