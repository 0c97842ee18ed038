"""Direct server return: the balancing node tells the backend's node what was called, and that one answers."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from balancing import DIRECT, EXTERNAL, WRAPPED, Balancer
from bench_node import REDIRECT, Node
from places import NODE, OTHER, OUR, REMOTE, VERSIONS, WORLD

from oracle.packets import ACK, FIN, SYN, TCP, UDP, Address, checksum, dissect, frame, with_checksum

SERVICE = {4: ip_address("192.0.2.80"), 6: ip_address("2001:db8:f::80")}
ELSEWHERE = {4: ip_address("198.51.100.7"), 6: ip_address("2001:db8:b::7")}
PROTOCOLS = pytest.mark.parametrize("protocol", [TCP, UDP])
TELLS, DIRECTLY, MASQUERADED = 64, 32, 2
HOST, HOST_FLAGS, REMOTE_NODE = 1, 1, 6


@pytest.fixture
def balancer(kernel: Node) -> Iterator[Balancer]:
    kernel.masquerade(OUR[4], OUR[6])
    for version in (4, 6):
        kernel.address(OUR[version], HOST, None, HOST_FLAGS)
    kernel.address(NODE, REMOTE_NODE, None, HOST_FLAGS)
    made = Balancer(kernel.plane, kernel.root)
    made.clear()
    yield made
    made.clear()
    made.close()


def segment(
    source: Address, destination: Address, protocol: int, ports: tuple[int, int], flags: int = SYN
) -> bytes:
    return with_checksum(frame(source, destination, protocol, *ports, payload=b"0123456789", flags=flags))


def option(version: int, frontend: Address, port: int, following: int) -> bytes:
    """As Cilium's nodes have it on the wire."""
    if version == 4:
        return struct.pack("!BBH4s", 0x9A, 8, port, frontend.packed)
    return struct.pack("!BBBB16sHH", following, 2, 0x1B, 20, frontend.packed, port, 0)


def with_option(packet: bytes, frontend: Address, port: int) -> bytes:
    """The packet as another node passes it on."""
    if isinstance(frontend, IPv6Address):
        (length,) = struct.unpack("!H", packet[18:20])
        header = packet[14:18] + struct.pack("!HB", length + 24, 60) + packet[21:54]
        return packet[:14] + header + option(6, frontend, port, packet[20]) + packet[54:]
    (length,) = struct.unpack("!H", packet[16:18])
    header = b"\x47" + packet[15:16] + struct.pack("!H", length + 8) + packet[18:24] + bytes(2)
    header += packet[26:34] + option(4, frontend, port, 0)
    header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    return packet[:14] + header + packet[34:]


def without_option(packet: bytes, version: int) -> tuple[bytes, bytes]:
    """What is told, and the packet as if it were not."""
    if version == 6:
        (length,) = struct.unpack("!H", packet[18:20])
        assert packet[20] == 60
        header = packet[14:18] + struct.pack("!H", length - 24) + packet[54:55] + packet[21:54]
        return packet[54:78], packet[:14] + header + packet[78:]
    header_length = (packet[14] & 15) * 4
    assert checksum(packet[14 : 14 + header_length]) == 0
    assert header_length == 28
    (length,) = struct.unpack("!H", packet[16:18])
    assert length == len(packet) - 14
    header = (
        b"\x45" + packet[15:16] + struct.pack("!H", length - 8) + packet[18:24] + bytes(2) + packet[26:34]
    )
    header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    return packet[34:42], packet[:14] + header + packet[42:]


@VERSIONS
@PROTOCOLS
def test_what_begins_says_what_was_called(
    kernel: Node, balancer: Balancer, version: int, protocol: int
) -> None:
    balancer.simple(SERVICE[version], 80, protocol, {1: (REMOTE[version], 8080)}, flags=EXTERNAL | DIRECT)
    for _ in range(2):
        run = kernel.send(
            "from_uplink", segment(WORLD[version], SERVICE[version], protocol, (40000, 80)), kernel.uplink
        )
        assert run.value == REDIRECT
        told, rest = without_option(run.data, version)
        assert told == option(version, SERVICE[version], 80, protocol)
        seen = dissect(rest)
        assert seen.checksum_right
        assert (seen.source, seen.destination) == (WORLD[version], REMOTE[version])
        assert seen.ports == (40000, 8080)
    (flow,) = balancer.flows()
    assert flow["flags"] & (TELLS | MASQUERADED) == TELLS


@VERSIONS
def test_the_segments_that_follow_do_not(kernel: Node, balancer: Balancer, version: int) -> None:
    balancer.simple(SERVICE[version], 80, TCP, {1: (REMOTE[version], 8080)}, flags=EXTERNAL | DIRECT)
    call = segment(WORLD[version], SERVICE[version], TCP, (40000, 80))
    kernel.send("from_uplink", call, kernel.uplink)
    for flags in (ACK, FIN | ACK):
        more = segment(WORLD[version], SERVICE[version], TCP, (40000, 80), flags)
        run = kernel.send("from_uplink", more, kernel.uplink)
        seen = dissect(run.data)
        assert (run.value, len(run.data)) == (REDIRECT, len(more))
        assert (seen.source, seen.destination, seen.ports) == (WORLD[version], REMOTE[version], (40000, 8080))
        assert seen.checksum_right


@VERSIONS
def test_a_segment_after_the_first_shows_that_there_was_an_answer(
    kernel: Node, balancer: Balancer, version: int
) -> None:
    """It never comes by: the connection must not be forgotten as one that nobody answered."""
    balancer.simple(SERVICE[version], 80, TCP, {1: (REMOTE[version], 8080)}, flags=EXTERNAL | DIRECT)
    call = segment(WORLD[version], SERVICE[version], TCP, (40000, 80))
    for _ in range(2):
        kernel.send("from_uplink", call, kernel.uplink)
    _, flows = kernel.plane.half_open.read_all()
    assert list(flows["state"]) == [0]
    kernel.send(
        "from_uplink", segment(WORLD[version], SERVICE[version], TCP, (40000, 80), ACK), kernel.uplink
    )
    _, flows = kernel.plane.half_open.read_all()
    assert list(flows["state"]) == [1]


@VERSIONS
@PROTOCOLS
def test_the_backends_node_answers_as_from_the_service(
    kernel: Node, balancer: Balancer, version: int, protocol: int
) -> None:
    balancer.simple(
        SERVICE[version], 80, protocol, {1: (OTHER[version], 8080)}, number=3, flags=EXTERNAL | DIRECT
    )
    call = with_option(segment(WORLD[version], OTHER[version], protocol, (40000, 8080)), SERVICE[version], 80)
    run = kernel.send("from_uplink", call, kernel.uplink)
    assert run.value == REDIRECT
    seen = dissect(run.data)
    assert (seen.source, seen.destination) == (WORLD[version], OTHER[version])
    answer = segment(OTHER[version], WORLD[version], protocol, (8080, 40000), SYN | ACK)
    run = kernel.send("from_pod", answer, kernel.uplink)
    assert run.value == REDIRECT
    seen = dissect(run.data)
    assert (seen.source, seen.ports) == (SERVICE[version], (80, 40000))
    assert seen.checksum_right
    (flow,) = balancer.flows()
    assert flow["flags"] & DIRECTLY
    assert flow["frontend"] == (SERVICE[version], 80)
    assert flow["numbers"][0] == 3
    more = segment(WORLD[version], OTHER[version], protocol, (40000, 8080), ACK)
    kernel.plane.raise_all()
    assert kernel.send("from_uplink", more, kernel.uplink).value == REDIRECT
    run = kernel.send("from_pod", answer, kernel.uplink)
    assert dissect(run.data).source == SERVICE[version], "also when it has been decided anew"


@VERSIONS
def test_nobody_makes_a_pod_speak_for_what_is_no_such_service(
    kernel: Node, balancer: Balancer, version: int
) -> None:
    balancer.simple(SERVICE[version], 80, TCP, {1: (OTHER[version], 8080)}, flags=EXTERNAL)
    for frontend, port in ((SERVICE[version], 80), (SERVICE[version], 81), (ELSEWHERE[version], 80)):
        client = 41000 + port + (frontend is ELSEWHERE[version])
        call = with_option(segment(WORLD[version], OTHER[version], TCP, (client, 8080)), frontend, port)
        assert kernel.send("from_uplink", call, kernel.uplink).value == REDIRECT
        answer = segment(OTHER[version], WORLD[version], TCP, (8080, client), SYN | ACK)
        run = kernel.send("from_pod", answer, kernel.uplink)
        assert dissect(run.data).source == OTHER[version]


def test_a_node_port_of_another_node(kernel: Node, balancer: Balancer) -> None:
    """It is this node's as well: on every node's addresses."""
    balancer.simple(ip_address("0.0.0.0"), 30080, TCP, {1: (OTHER[4], 8080)}, flags=EXTERNAL | DIRECT)
    for number, (frontend, source) in enumerate(((NODE, NODE), (ELSEWHERE[4], OTHER[4]))):
        call = with_option(segment(WORLD[4], OTHER[4], TCP, (42000 + number, 8080)), frontend, 30080)
        assert kernel.send("from_uplink", call, kernel.uplink).value == REDIRECT
        answer = segment(OTHER[4], WORLD[4], TCP, (8080, 42000 + number), SYN | ACK)
        assert dissect(kernel.send("from_pod", answer, kernel.uplink).data).source == source


@VERSIONS
@PROTOCOLS
def test_wrapped_the_packet_arrives_as_it_was(
    kernel: Node, balancer: Balancer, version: int, protocol: int
) -> None:
    balancer.simple(SERVICE[version], 80, protocol, {1: (ELSEWHERE[version], 80)}, flags=EXTERNAL | WRAPPED)
    for flags in (SYN, ACK, FIN | ACK):
        call = segment(WORLD[version], SERVICE[version], protocol, (40000, 80), flags)
        run = kernel.send("from_uplink", call, kernel.uplink)
        assert run.value == REDIRECT
        size = 20 if version == 4 else 40
        outer, inner = run.data[14 : 14 + size], run.data[14 + size :]
        assert inner == call[14:]
        if version == 4:
            assert checksum(outer) == 0
            assert struct.unpack("!BxHxxxxBB", outer[:10]) == (0x45, len(inner) + 20, 63, 4)
            assert (IPv4Address(outer[12:16]), IPv4Address(outer[16:20])) == (OUR[4], ELSEWHERE[4])
        else:
            assert struct.unpack("!HBB", outer[4:8]) == (len(inner), 41, 63)
            assert (IPv6Address(outer[8:24]), IPv6Address(outer[24:40])) == (OUR[6], ELSEWHERE[6])


@VERSIONS
def test_who_would_not_understand_is_masqueraded_to(kernel: Node, balancer: Balancer, version: int) -> None:
    """A machine outside of the cluster has no program of ours."""
    balancer.simple(SERVICE[version], 80, TCP, {1: (ELSEWHERE[version], 8080)}, flags=EXTERNAL | DIRECT)
    call = segment(WORLD[version], SERVICE[version], TCP, (40000, 80))
    run = kernel.send("from_uplink", call, kernel.uplink)
    assert (run.value, dissect(run.data).source) == (REDIRECT, OUR[version])


@VERSIONS
def test_a_backend_that_is_another_node_itself_is_masqueraded_to(
    kernel: Node, balancer: Balancer, version: int
) -> None:
    """What a node's own stack answers no program of it would make the service's."""
    other = {4: NODE, 6: ip_address("fd00:a0::9")}[version]
    kernel.address(other, REMOTE_NODE, None, HOST_FLAGS)
    balancer.simple(SERVICE[version], 80, TCP, {1: (other, 8080)}, flags=EXTERNAL | DIRECT)
    call = segment(WORLD[version], SERVICE[version], TCP, (40000, 80))
    run = kernel.send("from_uplink", call, kernel.uplink)
    assert (run.value, dissect(run.data).source) == (REDIRECT, OUR[version])


@VERSIONS
def test_what_is_told_to_a_service_itself_is_balanced_like_any_call(
    kernel: Node, balancer: Balancer, version: int
) -> None:
    """An option sends nothing out again: who is told is a pod."""
    balancer.simple(SERVICE[version], 80, TCP, {1: (OTHER[version], 8080)}, flags=EXTERNAL | DIRECT)
    call = with_option(segment(WORLD[version], SERVICE[version], TCP, (40000, 80)), SERVICE[version], 80)
    run = kernel.send("from_uplink", call, kernel.uplink)
    assert (run.value, dissect(run.data).destination) == (REDIRECT, OTHER[version])


@VERSIONS
@PROTOCOLS
@pytest.mark.parametrize("masqueraded", [True, False])
def test_what_a_backend_has_sent_when_its_connection_was_displaced_keeps_no_client_out(
    kernel: Node, balancer: Balancer, version: int, protocol: int, masqueraded: bool
) -> None:
    if not masqueraded:
        kernel.uplink_is_known()
    balancer.simple(SERVICE[version], 80, protocol, {1: (OTHER[version], 8080)}, flags=EXTERNAL | DIRECT)
    call = with_option(segment(WORLD[version], OTHER[version], protocol, (40000, 8080)), SERVICE[version], 80)
    answer = segment(OTHER[version], WORLD[version], protocol, (8080, 40000), SYN | ACK)
    for _ in range(2):
        kernel.send("from_uplink", call, kernel.uplink)
        kernel.forget_flows()
        kernel.send("from_pod", answer, kernel.uplink)
        assert kernel.send("from_uplink", call, kernel.uplink).value == REDIRECT
        run = kernel.send("from_pod", answer, kernel.uplink)
        assert dissect(run.data).source == SERVICE[version]
