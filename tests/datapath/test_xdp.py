"""The fast path makes of a packet what the other way makes of it, or leaves it alone."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from balancing import EXTERNAL, Balancer
from bench_node import REDIRECT, Node
from places import OTHER, OUR, VERSIONS, WORLD

from axoneme.datapath import testrun
from axoneme.datapath.xdp import Acceleration
from oracle.packets import ACK, FIN, RST, SYN, TCP, UDP, Address, dissect, frame, with_checksum

XDP_PASS, XDP_TX = 2, 3
HOST, HOST_FLAGS = 1, 1
SERVICE = {4: ip_address("192.0.2.80"), 6: ip_address("2001:db8:f::80")}
BACKEND = {4: ip_address("198.51.100.7"), 6: ip_address("2001:db8:b::7")}
ROUTER = {4: "172.31.0.254", 6: "fd00:a0::fe"}
ROUTER_MAC = "02:00:00:00:00:fe"
PROTOCOLS = pytest.mark.parametrize("protocol", [TCP, UDP])


@pytest.fixture
def balancer(kernel: Node) -> Iterator[Balancer]:
    kernel.masquerade(OUR[4], OUR[6])
    for version in (4, 6):
        kernel.address(OUR[version], HOST, None, HOST_FLAGS)
        neighbour = f"neigh replace {ROUTER[version]} lladdr {ROUTER_MAC} dev up0"
        subprocess.run(["ip", *neighbour.split()], check=True)
    kernel.plane.accelerate({"up0": kernel.uplink}, Acceleration.NATIVE)
    made = Balancer(kernel.plane, kernel.root)
    made.clear()
    yield made
    made.clear()
    made.close()
    kernel.plane.accelerate({"up0": kernel.uplink}, Acceleration.DISABLED)


def accelerated(kernel: Node, packet: bytes) -> testrun.Run:
    return testrun.run(kernel.plane.program("from_wire"), packet, testrun.xdp(packet, kernel.uplink))


def segment(
    source: Address,
    destination: Address,
    protocol: int,
    ports: tuple[int, int],
    flags: int = ACK,
    size: int = 9,
) -> bytes:
    return with_checksum(
        frame(source, destination, protocol, *ports, payload=bytes(i % 251 for i in range(size)), flags=flags)
    )


def established(kernel: Node, balancer: Balancer, version: int, protocol: int) -> tuple[bytes, bytes]:
    """A packet of a client's connection to a service with a backend elsewhere, and one of an answer."""
    balancer.simple(SERVICE[version], 80, protocol, {1: (BACKEND[version], 8080)})
    call = segment(WORLD[version], SERVICE[version], protocol, (40000, 80), SYN)
    source = dissect(kernel.send("from_uplink", call, kernel.uplink).data).ports[0]
    answer = segment(BACKEND[version], OUR[version], protocol, (8080, source), SYN | ACK)
    assert kernel.send("from_uplink", answer, kernel.uplink).value == REDIRECT
    more = segment(WORLD[version], SERVICE[version], protocol, (40000, 80))
    assert kernel.send("from_uplink", more, kernel.uplink).value == REDIRECT
    return (
        more,
        segment(BACKEND[version], OUR[version], protocol, (8080, source)),
    )


def totals(balancer: Balancer, kernel: Node) -> list[tuple[int, int]]:
    _, flows = kernel.plane.flows.read_all()
    return [(int(leg["packets"]), int(leg["bytes"])) for flow in flows for leg in flow["leg"]]


@VERSIONS
@PROTOCOLS
@pytest.mark.parametrize("size", [0, 1, 9, 1000])
def test_both_ways_make_the_same_of_a_packet(
    kernel: Node, balancer: Balancer, version: int, protocol: int, size: int
) -> None:
    for which, packet in enumerate(established(kernel, balancer, version, protocol)):
        seen = dissect(packet)
        sample = segment(seen.source, seen.destination, protocol, seen.ports, size=size)
        before = totals(balancer, kernel)
        slow = kernel.send("from_uplink", sample, kernel.uplink)
        between = totals(balancer, kernel)
        fast = accelerated(kernel, sample)
        after = totals(balancer, kernel)
        assert (slow.value, fast.value) == (REDIRECT, XDP_TX)
        assert fast.data[14:] == slow.data[14:], "all but the link layer's header, which comes later there"
        assert fast.data[:6] == bytes.fromhex(ROUTER_MAC.replace(":", ""))
        assert dissect(fast.data).checksum_right
        assert between[which] != before[which]
        assert [b - a for a, b in zip(before[which], between[which], strict=True)] == [
            b - a for a, b in zip(between[which], after[which], strict=True)
        ], "counted alike"


@VERSIONS
def test_what_begins_or_ends_a_connection_goes_the_other_way(
    kernel: Node, balancer: Balancer, version: int
) -> None:
    call, answer = established(kernel, balancer, version, TCP)
    for packet in (call, answer):
        seen = dissect(packet)
        for flags in (SYN, SYN | ACK, FIN | ACK, RST):
            sample = segment(seen.source, seen.destination, TCP, seen.ports, flags)
            run = accelerated(kernel, sample)
            assert (run.value, run.data) == (XDP_PASS, sample)
    stranger = segment(WORLD[version], SERVICE[version], TCP, (40001, 80))
    assert accelerated(kernel, stranger).value == XDP_PASS


@VERSIONS
def test_what_it_has_doubts_about_goes_the_other_way(kernel: Node, balancer: Balancer, version: int) -> None:
    call, _ = established(kernel, balancer, version, TCP)
    assert accelerated(kernel, call).value == XDP_TX
    hop_limit = 22 if version == 4 else 21
    doubtful = {
        "the end of its life": call[:hop_limit] + b"\x01" + call[hop_limit + 1 :],
        "cut off": call[:50],
        "no such length": call[:-1],
    }
    if version == 4:
        doubtful["a fragment"] = call[:20] + b"\x20\x00" + call[22:]
        doubtful["options"] = call[:14] + b"\x46" + call[15:]
    for what, packet in doubtful.items():
        run = accelerated(kernel, packet)
        assert (run.value, run.data) == (XDP_PASS, packet), what
    seen = dissect(call)
    direct = segment(seen.source, BACKEND[version], TCP, (40000, 8080))
    assert accelerated(kernel, direct).value == XDP_PASS, "by its inner tuple nobody calls"
    kernel.plane.raise_all()
    assert accelerated(kernel, call).value == XDP_PASS, "it must be decided anew"
    assert kernel.send("from_uplink", call, kernel.uplink).value == REDIRECT
    assert accelerated(kernel, call).value == XDP_TX


def test_an_ipv4_address_in_an_ipv6_packet_is_nobodys(kernel: Node, balancer: Balancer) -> None:
    """In the tables it would be the same; the other way lets no such packet in."""
    call, _ = established(kernel, balancer, 4, TCP)
    source, destination = (bytes(10) + b"\xff\xff" + end.packed for end in (WORLD[4], SERVICE[4]))
    head = b"\x60" + bytes(3) + len(call[34:]).to_bytes(2, "big") + bytes((TCP, 64))
    disguised = call[:12] + b"\x86\xdd" + head + source + destination + call[34:]
    before = totals(balancer, kernel)
    assert accelerated(kernel, disguised).value == XDP_PASS
    assert totals(balancer, kernel) == before


@VERSIONS
def test_larger_than_the_way_takes(kernel: Node, balancer: Balancer, version: int) -> None:
    call, _ = established(kernel, balancer, version, UDP)
    seen = dissect(call)
    large = segment(seen.source, seen.destination, UDP, seen.ports, size=1400)
    assert accelerated(kernel, large).value == XDP_TX
    kernel.narrow_route(BACKEND[version], 1300)
    try:
        assert accelerated(kernel, large).value == XDP_PASS
    finally:
        kernel.forget_routes(BACKEND[version])


def test_a_datagram_without_checksum_stays_without(kernel: Node, balancer: Balancer) -> None:
    call, _ = established(kernel, balancer, 4, UDP)
    bare = call[:40] + bytes(2) + call[42:]
    run = accelerated(kernel, bare)
    assert run.value == XDP_TX
    assert run.data[40:42] == bytes(2)


def test_a_local_pod_is_reached_the_other_way(kernel: Node, balancer: Balancer) -> None:
    balancer.simple(SERVICE[4], 80, TCP, {1: (OTHER[4], 8080)}, flags=EXTERNAL)
    call = segment(WORLD[4], SERVICE[4], TCP, (40000, 80), SYN)
    assert kernel.send("from_uplink", call, kernel.uplink).value == REDIRECT
    assert accelerated(kernel, segment(WORLD[4], SERVICE[4], TCP, (40000, 80))).value == XDP_PASS


def test_it_is_not_there_unless_it_is_asked_for(kernel: Node) -> None:
    with pytest.raises(KeyError):
        kernel.plane.program("from_wire")
