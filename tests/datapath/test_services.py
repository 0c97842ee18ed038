"""Services, packet by packet: from what a client calls to a backend, and back."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from balancing import ANY, EXTERNAL, RANGES, Balancer
from bench_node import PASS, REDIRECT, SHOT, Node
from places import CLIENT, NODE, OTHER, OUR, POD, REMOTE, SERVER, VERSIONS, WORLD

from oracle.packets import ACK, SCTP, SYN, TCP, UDP, Address, Seen, crc32c, dissect, frame, with_checksum

#: A service's own address, a backend outside, and the node itself, by IP version.
SERVICE = {4: ip_address("10.96.0.10"), 6: ip_address("fd00:10:96::10")}
ELSEWHERE = {4: ip_address("198.51.100.7"), 6: ip_address("2001:db8:b::7")}
HOST, HOST_FLAGS, REMOTE_NODE = 1, 1, 6
MASQUERADED, SERVED = 2, 16
PROTOCOLS = pytest.mark.parametrize("protocol", [TCP, UDP, SCTP])


@pytest.fixture
def balancer(kernel: Node) -> Iterator[Balancer]:
    kernel.masquerade(OUR[4], OUR[6])
    kernel.answer_as(OUR[4], OUR[6])
    for version in (4, 6):
        kernel.address(OUR[version], HOST, None, HOST_FLAGS)
    made = Balancer(kernel)
    made.clear()
    yield made
    made.clear()
    made.close()


def packet(
    source: Address, destination: Address, protocol: int, ports: tuple[int, int], **fields: int
) -> bytes:
    """With right checksums."""
    made = frame(source, destination, protocol, *ports, payload=b"0123456789", **fields)  # type: ignore[arg-type]
    if protocol != SCTP:
        return with_checksum(made)
    start = dissect(made).l4_offset
    l4 = made[start : start + 8] + bytes(4) + made[start + 12 :]
    return made[:start] + l4[:8] + crc32c(l4).to_bytes(4, "little") + l4[12:]


def sound(data: bytes) -> Seen:
    """A packet that arrives: its checksums are right."""
    seen = dissect(data)
    assert seen.ip_checksum_right
    if seen.protocol == SCTP:
        l4 = seen.l4[:8] + bytes(4) + seen.l4[12:]
        assert seen.l4[8:12] == crc32c(l4).to_bytes(4, "little")
    else:
        assert seen.checksum_right
    return seen


def ends(seen: Seen) -> tuple[tuple[Address, int], tuple[Address, int]]:
    return (seen.source, seen.ports[0]), (seen.destination, seen.ports[1])


# ---- from outside ------------------------------------------------------------------------------


@VERSIONS
@PROTOCOLS
def test_from_outside_to_a_pod_of_this_node_and_back(
    kernel: Node, balancer: Balancer, version: int, protocol: int
) -> None:
    balancer.simple(SERVICE[version], 80, protocol, {7: (OTHER[version], 8080)}, number=3)
    call = packet(WORLD[version], SERVICE[version], protocol, (40000, 80))
    for _ in range(2):
        run = kernel.send("from_uplink", call, kernel.uplink)
        assert run.value == REDIRECT
        assert ends(sound(run.data)) == ((WORLD[version], 40000), (OTHER[version], 8080))
    answer = packet(OTHER[version], WORLD[version], protocol, (8080, 40000), flags=SYN | ACK)
    run = kernel.send("from_pod", answer, kernel.uplink)
    assert run.value == REDIRECT
    assert ends(sound(run.data)) == ((SERVICE[version], 80), (WORLD[version], 40000))
    run = kernel.send("from_uplink", call, kernel.uplink)
    assert ends(sound(run.data))[1] == (OTHER[version], 8080), "also when it has been settled"
    (flow,) = balancer.flows()
    assert (flow["client"], flow["backend"]) == ((WORLD[version], 40000), (OTHER[version], 8080))
    assert flow["frontend"] == (SERVICE[version], 80)
    assert flow["numbers"] == (3, 7)
    assert balancer.served() == {(3, 7): 1}
    (event,) = kernel.events()
    assert (int(event["service"]), int(event["backend"])) == (3, 7)
    assert int(event["source_identity"]) == {4: 9, 6: 10}[version], "the client keeps its address"


@VERSIONS
@PROTOCOLS
def test_from_outside_to_a_backend_elsewhere_and_back(
    kernel: Node, balancer: Balancer, version: int, protocol: int
) -> None:
    """Another node's pod by native routing, or a machine of nobody's: they answer the node."""
    for number, backend in enumerate((REMOTE[version], ELSEWHERE[version]), 1):
        balancer.simple(OUR[version], 30000 + number, protocol, {number: (backend, 8080)}, number=number)
        call = packet(WORLD[version], OUR[version], protocol, (40000, 30000 + number))
        run = kernel.send("from_uplink", call, kernel.uplink)
        assert run.value == REDIRECT
        source, destination = ends(sound(run.data))
        assert source[0] == OUR[version]
        assert 1024 <= source[1] <= 32767
        assert destination == (backend, 8080)
        answer = packet(backend, OUR[version], protocol, (8080, source[1]), flags=SYN | ACK)
        for _ in range(2):
            run = kernel.send("from_uplink", answer, kernel.uplink)
            assert run.value == REDIRECT
            assert ends(sound(run.data)) == ((OUR[version], 30000 + number), (WORLD[version], 40000))
        again = kernel.send("from_uplink", call, kernel.uplink)
        assert ends(sound(again.data)) == (source, destination)
    assert all(flow["flags"] & (MASQUERADED | SERVED) == MASQUERADED | SERVED for flow in balancer.flows())


@VERSIONS
def test_policy_judges_the_client_and_the_backend(kernel: Node, balancer: Balancer, version: int) -> None:
    balancer.simple(SERVICE[version], 80, TCP, {7: (OTHER[version], 8080)})
    kernel.policies({})
    call = packet(WORLD[version], SERVICE[version], TCP, (40000, 80))
    assert kernel.send("from_uplink", call, kernel.uplink).value == SHOT
    (event,) = kernel.events()
    assert (int(event["reason"]), int(event["destination_identity"])) == (133, SERVER)
    assert int(event["service"]) == 1


@VERSIONS
def test_a_node_port_is_on_every_address_of_the_node_and_on_no_other(
    kernel: Node, balancer: Balancer, version: int
) -> None:
    balancer.simple(ANY[version], 30080, TCP, {7: (OTHER[version], 8080)})
    call = packet(WORLD[version], OUR[version], TCP, (40000, 30080))
    assert ends(sound(kernel.send("from_uplink", call, kernel.uplink).data))[1] == (OTHER[version], 8080)
    for elsewhere in (ELSEWHERE[version], SERVICE[version]):
        call = packet(WORLD[version], elsewhere, TCP, (40000, 30080))
        assert kernel.send("from_uplink", call, kernel.uplink).value == PASS


@VERSIONS
def test_only_external_frontends_serve_who_calls_from_outside(
    kernel: Node, balancer: Balancer, version: int
) -> None:
    balancer.simple(SERVICE[version], 80, TCP, {7: (OTHER[version], 8080)}, flags=0)
    call = packet(WORLD[version], SERVICE[version], TCP, (40000, 80))
    run = kernel.send("from_uplink", call, kernel.uplink)
    assert (run.value, run.data) == (PASS, call)
    node = NODE if version == 4 else ip_address("fd00:a0::9")
    kernel.address(node, REMOTE_NODE, node, HOST_FLAGS)
    call = packet(node, SERVICE[version], TCP, (40000, 80))
    assert kernel.send("from_uplink", call, kernel.uplink).value == REDIRECT, "another node is of the cluster"


@VERSIONS
def test_callers_from_outside_may_have_other_backends(kernel: Node, balancer: Balancer, version: int) -> None:
    balancer.simple(SERVICE[version], 80, TCP, {7: (REMOTE[version], 8080)}, number=1)
    balancer.backend(8, OTHER[version], 8081, TCP)
    balancer.service(2, [8])
    balancer.frontend(SERVICE[version], 80, TCP, 1, EXTERNAL, outside=2)
    call = packet(WORLD[version], SERVICE[version], TCP, (40000, 80))
    assert ends(sound(kernel.send("from_uplink", call, kernel.uplink).data))[1] == (OTHER[version], 8081)
    call = packet(POD[version], SERVICE[version], TCP, (40000, 80))
    assert ends(sound(kernel.send("from_pod", call).data))[1] == (REMOTE[version], 8080)


@VERSIONS
def test_source_ranges(kernel: Node, balancer: Balancer, version: int) -> None:
    balancer.simple(SERVICE[version], 80, TCP, {7: (OTHER[version], 8080)}, flags=EXTERNAL | RANGES)
    call = packet(WORLD[version], SERVICE[version], TCP, (40000, 80))
    assert kernel.send("from_uplink", call, kernel.uplink).value == SHOT
    (event,) = kernel.events()
    assert int(event["reason"]) == 177
    assert int(event["service"]) == 1
    balancer.source_range(1, WORLD[version], 24)
    assert kernel.send("from_uplink", call, kernel.uplink).value == REDIRECT
    call = packet(POD[version], SERVICE[version], TCP, (40000, 80))
    assert kernel.send("from_pod", call).value == REDIRECT, "they are for who calls from outside"
    assert CLIENT


# ---- from pods ---------------------------------------------------------------------------------


@VERSIONS
@PROTOCOLS
def test_from_a_pod_to_another_and_back(
    kernel: Node, balancer: Balancer, version: int, protocol: int
) -> None:
    balancer.simple(SERVICE[version], 80, protocol, {7: (OTHER[version], 8080)}, flags=0)
    call = packet(POD[version], SERVICE[version], protocol, (40000, 80))
    for _ in range(2):
        run = kernel.send("from_pod", call)
        assert run.value == REDIRECT
        assert ends(sound(run.data)) == ((POD[version], 40000), (OTHER[version], 8080))
    answer = packet(OTHER[version], POD[version], protocol, (8080, 40000), flags=SYN | ACK)
    run = kernel.send("from_pod", answer, kernel.uplink)
    assert ends(sound(run.data)) == ((SERVICE[version], 80), (POD[version], 40000))
    assert ends(sound(kernel.send("from_pod", call).data))[1] == (OTHER[version], 8080)
    (event,) = kernel.events()
    assert (int(event["egress_rule"]), int(event["service"]), int(event["backend"])) == (0, 1, 7)


@VERSIONS
@PROTOCOLS
def test_a_pod_that_calls_itself_through_its_service_is_answered_through_us(
    kernel: Node, balancer: Balancer, version: int, protocol: int
) -> None:
    balancer.simple(SERVICE[version], 80, protocol, {7: (POD[version], 8080)}, flags=0)
    call = packet(POD[version], SERVICE[version], protocol, (40000, 80))
    run = kernel.send("from_pod", call)
    assert run.value == REDIRECT
    source, destination = ends(sound(run.data))
    assert source[0] == SERVICE[version]
    assert destination == (POD[version], 8080)
    answer = packet(POD[version], SERVICE[version], protocol, (8080, source[1]), flags=SYN | ACK)
    for _ in range(2):
        run = kernel.send("from_pod", answer)
        assert run.value == REDIRECT
        assert ends(sound(run.data)) == ((SERVICE[version], 80), (POD[version], 40000))
    assert ends(sound(kernel.send("from_pod", call).data)) == (source, destination)


@VERSIONS
@PROTOCOLS
def test_from_a_pod_to_the_outside_through_a_service(
    kernel: Node, balancer: Balancer, version: int, protocol: int
) -> None:
    balancer.simple(SERVICE[version], 80, protocol, {7: (ELSEWHERE[version], 8080)}, flags=0)
    call = packet(POD[version], SERVICE[version], protocol, (40000, 80))
    source, destination = ends(sound(kernel.send("from_pod", call).data))
    assert source[0] == OUR[version]
    assert destination == (ELSEWHERE[version], 8080)
    answer = packet(ELSEWHERE[version], OUR[version], protocol, (8080, source[1]), flags=SYN | ACK)
    for _ in range(2):
        run = kernel.send("from_uplink", answer, kernel.uplink)
        assert ends(sound(run.data)) == ((SERVICE[version], 80), (POD[version], 40000))


# ---- the node itself as a backend --------------------------------------------------------------


@VERSIONS
@PROTOCOLS
def test_the_node_itself_is_a_backend(kernel: Node, balancer: Balancer, version: int, protocol: int) -> None:
    balancer.simple(SERVICE[version], 80, protocol, {7: (OUR[version], 8080)})
    answer = packet(OUR[version], WORLD[version], protocol, (8080, 40000), flags=SYN | ACK)
    run = kernel.send("to_uplink", answer, kernel.uplink)
    assert (run.value, run.data) == (PASS, answer)
    call = packet(WORLD[version], SERVICE[version], protocol, (40000, 80))
    for _ in range(2):
        run = kernel.send("from_uplink", call, kernel.uplink)
        assert run.value == PASS, "into the stack"
        assert ends(sound(run.data)) == ((WORLD[version], 40000), (OUR[version], 8080))
        run = kernel.send("to_uplink", answer, kernel.uplink)
        assert run.value == PASS
        assert ends(sound(run.data)) == ((SERVICE[version], 80), (WORLD[version], 40000))
    other = packet(OUR[version], WORLD[version], protocol, (8080, 40001), flags=ACK)
    assert kernel.send("to_uplink", other, kernel.uplink).data == other


@VERSIONS
@PROTOCOLS
def test_a_pod_calls_the_node_itself_through_a_service(
    kernel: Node, balancer: Balancer, version: int, protocol: int
) -> None:
    balancer.simple(SERVICE[version], 80, protocol, {7: (OUR[version], 8080)}, flags=0)
    call = packet(POD[version], SERVICE[version], protocol, (40000, 80))
    run = kernel.send("from_pod", call)
    assert run.value == PASS
    assert ends(sound(run.data)) == ((POD[version], 40000), (OUR[version], 8080))
    answer = packet(OUR[version], POD[version], protocol, (8080, 40000), flags=SYN | ACK)
    for _ in range(2):
        run = kernel.send("to_pod", answer)
        assert run.value == PASS
        assert ends(sound(run.data)) == ((SERVICE[version], 80), (POD[version], 40000))
