"""Services, packet by packet: from what a client calls to a backend, and back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from balancing import ANY, EXTERNAL, LEAVING, RANDOM, RANGES, Balancer
from bench_node import PASS, REDIRECT, SHOT, Node, node
from places import CLIENT, NODE, OTHER, OUR, POD, REMOTE, SERVER, VERSIONS, WORLD, furnish

from axoneme.datapath.plane import Constants
from axoneme.datapath.testrun import Run
from oracle.packets import (
    ACK,
    FIN,
    ICMP,
    ICMPV6,
    RST,
    SCTP,
    SYN,
    TCP,
    UDP,
    Address,
    Seen,
    crc32c,
    dissect,
    frame,
    with_checksum,
)

#: A service's own address, a backend outside, and the node itself, by IP version.
SERVICE = {4: ip_address("10.96.0.10"), 6: ip_address("fd00:10:96::10")}
SECOND = {4: ip_address("10.96.0.11"), 6: ip_address("fd00:10:96::11")}
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
    made = Balancer(kernel.plane, kernel.root)
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
def test_a_call_that_another_machine_is_to_serve_is_not_served_twice(
    kernel: Node, balancer: Balancer, version: int
) -> None:
    """A switch that does not know where a machine is sends its frames to all who may share the address."""
    balancer.simple(SERVICE[version], 80, TCP, {7: (OTHER[version], 8080)})
    call = packet(WORLD[version], SERVICE[version], TCP, (40000, 80))
    flooded = bytes.fromhex("020000000099") + call[6:]
    run = kernel.send("from_uplink", flooded, kernel.uplink)
    assert (run.value, run.data) == (PASS, flooded)
    assert not balancer.flows()
    assert kernel.send("from_uplink", call, kernel.uplink).value == REDIRECT


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


# ---- refused -----------------------------------------------------------------------------------


def refused(run: Run, asked: bytes, version: int) -> None:
    """By a reset, or by an ICMP message that it cannot be reached, as from where it was sent to."""
    assert run.value == REDIRECT
    answer, was = dissect(run.data), dissect(asked)
    assert answer.checksum_right
    assert answer.ip_checksum_right
    assert answer.destination == was.source
    assert (answer.to, answer.sender) == (was.sender, was.to)
    if was.protocol == TCP:
        assert (answer.source, answer.ports) == (was.destination, was.ports[::-1])
        assert answer.l4[13] & RST
    else:
        assert answer.source == OUR[version]
        assert answer.protocol == (ICMP if version == 4 else ICMPV6)
        assert tuple(answer.l4[:2]) == ((3, 3) if version == 4 else (1, 4))
        assert asked[14:].startswith(answer.l4[8:])


@VERSIONS
@PROTOCOLS
def test_a_service_without_backends_refuses(
    kernel: Node, balancer: Balancer, version: int, protocol: int
) -> None:
    balancer.simple(SERVICE[version], 80, protocol, {}, number=4)
    for program, source, ifindex in (("from_uplink", WORLD, kernel.uplink), ("from_pod", POD, 1)):
        call = packet(source[version], SERVICE[version], protocol, (40000, 80))
        refused(kernel.send(program, call, ifindex), call, version)
        (event,) = kernel.events()
        assert (int(event["reason"]), int(event["service"]), int(event["frontend_port"])) == (158, 4, 80)
    assert balancer.served() == {(4, 0): 2}
    assert not balancer.flows()


@VERSIONS
@PROTOCOLS
def test_other_ports_of_a_services_address_are_refused(
    kernel: Node, balancer: Balancer, version: int, protocol: int
) -> None:
    balancer.marker(SERVICE[version])
    for program, source, ifindex in (("from_uplink", WORLD, kernel.uplink), ("from_pod", POD, 1)):
        call = packet(source[version], SERVICE[version], protocol, (40000, 81))
        refused(kernel.send(program, call, ifindex), call, version)


@VERSIONS
def test_echo_to_a_services_address_is_answered(kernel: Node, balancer: Balancer, version: int) -> None:
    balancer.marker(SERVICE[version])
    protocol, ask, answer = (ICMP, 8, 0) if version == 4 else (ICMPV6, 128, 129)
    for program, source, ifindex in (("from_uplink", WORLD, kernel.uplink), ("from_pod", POD, 1)):
        asked = with_checksum(
            frame(source[version], SERVICE[version], protocol, 77, ask, payload=b"payload", ttl=3)
        )
        run = kernel.send(program, asked, ifindex)
        assert run.value == REDIRECT
        seen = sound(run.data)
        assert (seen.source, seen.destination, seen.ttl) == (SERVICE[version], source[version], 64)
        assert seen.l4[0] == answer
        assert seen.l4[4:] == dissect(asked).l4[4:]
        assert (seen.to, seen.sender) == (asked[6:12], asked[:6])
    assert not kernel.events()
    balancer.marker(SECOND[version], 0)
    for not_ours in (ELSEWHERE, SECOND):
        asked = with_checksum(frame(WORLD[version], not_ours[version], protocol, 77, ask))
        assert kernel.send("from_uplink", asked, kernel.uplink).value == PASS


def test_nobody_is_answered_without_end(kernel: Node, balancer: Balancer) -> None:
    balancer.marker(SERVICE[4])
    asked = with_checksum(frame(WORLD[4], SERVICE[4], ICMP, 77, 8))
    answers = [kernel.send("from_uplink", asked, kernel.uplink).value == REDIRECT for _ in range(1000)]
    assert 0 < sum(answers) < 1000


# ---- a connection and its backend --------------------------------------------------------------


@VERSIONS
@PROTOCOLS
def test_a_connection_keeps_its_backend_when_the_service_gets_others(
    kernel: Node, balancer: Balancer, version: int, protocol: int
) -> None:
    balancer.simple(SERVICE[version], 80, protocol, {7: (OTHER[version], 8080)})
    call = packet(WORLD[version], SERVICE[version], protocol, (40000, 80))
    kernel.send("from_uplink", call, kernel.uplink)
    kernel.send(
        "from_pod",
        packet(OTHER[version], WORLD[version], protocol, (8080, 40000), flags=SYN | ACK),
        kernel.uplink,
    )
    balancer.backend(8, REMOTE[version], 8080, protocol)
    balancer.service(1, [8])
    balancer.backend(7, OTHER[version], 8080, protocol, LEAVING)
    kernel.plane.raise_all()
    more = packet(WORLD[version], SERVICE[version], protocol, (40000, 80), flags=ACK)
    assert ends(sound(kernel.send("from_uplink", more, kernel.uplink).data))[1] == (OTHER[version], 8080)
    fresh = packet(WORLD[version], SERVICE[version], protocol, (40001, 80))
    assert ends(sound(kernel.send("from_uplink", fresh, kernel.uplink).data))[1] == (REMOTE[version], 8080)


@VERSIONS
def test_when_its_backend_is_gone_a_connection_is_reset_and_a_datagram_goes_to_another(
    kernel: Node, balancer: Balancer, version: int
) -> None:
    for number, protocol in enumerate((TCP, UDP, SCTP), 1):
        balancer.simple(SERVICE[version], 80, protocol, {number: (OTHER[version], 8080)}, number=number)
        call = packet(WORLD[version], SERVICE[version], protocol, (40000, 80))
        kernel.send("from_uplink", call, kernel.uplink)
        answer = packet(OTHER[version], WORLD[version], protocol, (8080, 40000), flags=SYN | ACK)
        assert kernel.send("from_pod", answer, kernel.uplink).value == REDIRECT
        balancer.backend(number + 10, REMOTE[version], 8080, protocol)
        balancer.service(number, [number + 10])
        balancer.remove_backend(number)
        kernel.events()
        if protocol == TCP:
            late = kernel.send("from_pod", answer, kernel.uplink)
            assert (late.value, dissect(late.data).l4[13] & RST) == (REDIRECT, RST), "the backend as well"
        more = packet(WORLD[version], SERVICE[version], protocol, (40000, 80), flags=ACK)
        run = kernel.send("from_uplink", more, kernel.uplink)
        if protocol == TCP:
            refused(run, more, version)
            drop = [event for event in kernel.events() if int(event["kind"]) == 3][-1]
            assert (int(drop["reason"]), int(drop["service"]), int(drop["backend"])) == (158, 1, 1)
            run = kernel.send("from_uplink", call, kernel.uplink)
        assert ends(sound(run.data))[1] == (REMOTE[version], 8080)
    assert {flow["numbers"] for flow in balancer.flows()} == {(1, 11), (2, 12), (3, 13)}


@VERSIONS
def test_a_policy_that_changes_ends_a_served_connection(
    kernel: Node, balancer: Balancer, version: int
) -> None:
    balancer.simple(SERVICE[version], 80, TCP, {7: (OTHER[version], 8080)})
    call = packet(WORLD[version], SERVICE[version], TCP, (40000, 80))
    assert kernel.send("from_uplink", call, kernel.uplink).value == REDIRECT
    kernel.policies({})
    kernel.plane.raise_subjects([SERVER])
    assert kernel.send("from_uplink", call, kernel.uplink).value == SHOT
    kernel.open(CLIENT, SERVER)
    kernel.plane.raise_subjects([SERVER])
    assert kernel.send("from_uplink", call, kernel.uplink).value == REDIRECT


@VERSIONS
def test_a_client_with_affinity_keeps_its_backend_while_that_takes_connections(
    kernel: Node, balancer: Balancer, version: int
) -> None:
    backends = {number: (OTHER[version], 8000 + number) for number in range(1, 21)}
    balancer.simple(SERVICE[version], 80, TCP, backends, affinity=1000)

    def backend(port: int) -> int:
        call = packet(WORLD[version], SERVICE[version], TCP, (port, 80))
        return int(sound(kernel.send("from_uplink", call, kernel.uplink).data).ports[1]) - 8000

    first = backend(40000)
    assert {backend(port) for port in range(40001, 40021)} == {first}
    balancer.backend(first, OTHER[version], 8000 + first, TCP, LEAVING)
    balancer.service(1, [number for number in backends if number != first], affinity=1000)
    assert backend(40021) != first


@VERSIONS
def test_a_client_that_calls_anew_from_the_same_port_is_balanced_anew(
    kernel: Node, balancer: Balancer, version: int
) -> None:
    balancer.simple(SERVICE[version], 80, TCP, {7: (OTHER[version], 8080)})
    call = packet(WORLD[version], SERVICE[version], TCP, (40000, 80))
    kernel.send("from_uplink", call, kernel.uplink)
    kernel.send(
        "from_uplink",
        packet(WORLD[version], SERVICE[version], TCP, (40000, 80), flags=RST),
        kernel.uplink,
    )
    balancer.backend(8, REMOTE[version], 8080, TCP)
    balancer.service(1, [8])
    assert ends(sound(kernel.send("from_uplink", call, kernel.uplink).data))[1] == (REMOTE[version], 8080)


@VERSIONS
def test_one_port_of_a_client_has_one_connection_to_a_backend(
    kernel: Node, balancer: Balancer, version: int
) -> None:
    balancer.simple(SERVICE[version], 80, TCP, {1: (OTHER[version], 8080)}, number=1)
    direct = packet(POD[version], OTHER[version], TCP, (40000, 8080))
    assert kernel.send("from_pod", direct).value == REDIRECT
    call = packet(POD[version], SERVICE[version], TCP, (40000, 80))
    assert kernel.send("from_pod", call).value == SHOT
    assert int(kernel.events()[-1]["reason"]) == 191
    balancer.backend(2, REMOTE[version], 8080, TCP)
    balancer.service(1, [2])
    assert ends(sound(kernel.send("from_pod", call).data))[1] == (REMOTE[version], 8080)
    other = packet(POD[version], REMOTE[version], TCP, (40000, 8080))
    assert kernel.send("from_pod", other).value == SHOT, "it would be taken for the service's"


@VERSIONS
def test_of_datagrams_by_two_ways_from_one_port_the_last_ones_are_answered(
    kernel: Node, balancer: Balancer, version: int
) -> None:
    """A port comes again before anybody can know that its last owner is gone."""
    backend = OTHER[version]
    balancer.simple(SERVICE[version], 80, UDP, {1: (backend, 8080)}, number=1, affinity=100)
    balancer.simple(SERVICE[version], 81, UDP, {2: (backend, 8080)}, number=2, affinity=100)
    answer = packet(backend, POD[version], UDP, (8080, 40000))
    for _ in range(2):
        for to in ((SERVICE[version], 80), (SERVICE[version], 81), (backend, 8080)):
            for _ in range(2):
                run = kernel.send("from_pod", packet(POD[version], to[0], UDP, (40000, to[1])))
                assert run.value == REDIRECT
                assert ends(sound(run.data)) == ((POD[version], 40000), (backend, 8080))
                back = kernel.send("from_pod", answer, kernel.uplink)
                assert ends(sound(back.data)) == (to, (POD[version], 40000))


# ---- what is not what it says ------------------------------------------------------------------


@VERSIONS
def test_nobody_answers_for_a_service(kernel: Node, balancer: Balancer, version: int) -> None:
    balancer.simple(SERVICE[version], 80, TCP, {7: (OTHER[version], 8080)}, flags=0)
    call = packet(POD[version], SERVICE[version], TCP, (40000, 80))
    kernel.send("from_pod", call)
    forged = packet(SERVICE[version], POD[version], TCP, (80, 40000), flags=SYN | ACK)
    assert kernel.send("from_pod", forged, kernel.uplink).value == SHOT, "a pod, by the service's address"
    assert int(kernel.events()[-1]["reason"]) == 132
    kernel.policies({})
    assert kernel.send("from_uplink", forged, kernel.uplink).value == SHOT
    forged = packet(OTHER[version], POD[version], TCP, (8080, 40000), flags=SYN | ACK)
    assert kernel.send("from_uplink", forged, kernel.elsewhere).value == SHOT, "the backend's, from outside"


@VERSIONS
def test_a_pod_calls_by_its_own_address_only(kernel: Node, balancer: Balancer, version: int) -> None:
    balancer.simple(SERVICE[version], 80, TCP, {7: (OTHER[version], 8080)}, flags=0)
    forged = packet(WORLD[version], SERVICE[version], TCP, (40000, 80))
    assert kernel.send("from_pod", forged).value == SHOT
    assert (
        kernel.send("from_uplink", packet(POD[version], SERVICE[version], TCP, (1, 80)), kernel.uplink).value
        == SHOT
    )
    assert [int(event["reason"]) for event in kernel.events()] == [132, 132]
    assert not balancer.served()


@VERSIONS
def test_a_forged_packet_ends_no_connection(kernel: Node, balancer: Balancer, version: int) -> None:
    """Pods and machines that send as another pod: past its service, and as if it began anew."""
    for number, protocol in enumerate((TCP, UDP), 1):
        balancer.simple(
            SERVICE[version], 80, protocol, {number: (REMOTE[version], 8080)}, number=number, flags=0
        )
        call = packet(POD[version], SERVICE[version], protocol, (40000, 80))
        assert kernel.send("from_pod", call).value == REDIRECT
        answer = packet(REMOTE[version], POD[version], protocol, (8080, 40000), flags=SYN | ACK)
        assert kernel.send("from_uplink", answer, kernel.uplink).value == REDIRECT
        closing = packet(POD[version], SERVICE[version], protocol, (40000, 80), flags=FIN | ACK)
        assert kernel.send("from_pod", closing).value == REDIRECT
        before = balancer.flows()
        direct = packet(POD[version], REMOTE[version], protocol, (40000, 8080))
        for forged in (direct, call):
            for program, hook in (("from_pod", kernel.elsewhere), ("from_uplink", kernel.uplink)):
                kernel.send(program, forged, hook)
                assert balancer.flows() == before
        back = kernel.send("from_uplink", answer, kernel.uplink)
        assert ends(sound(back.data))[0] == (SERVICE[version], 80)


@VERSIONS
@PROTOCOLS
def test_what_a_backend_has_sent_when_its_connection_was_displaced_keeps_no_client_out(
    kernel: Node, balancer: Balancer, version: int, protocol: int
) -> None:
    balancer.simple(SERVICE[version], 80, protocol, {7: (OTHER[version], 8080)})
    call = packet(WORLD[version], SERVICE[version], protocol, (40000, 80))
    answer = packet(OTHER[version], WORLD[version], protocol, (8080, 40000), flags=SYN | ACK)
    for _ in range(2):
        kernel.send("from_uplink", call, kernel.uplink)
        kernel.forget_flows()
        kernel.send("from_pod", answer, kernel.uplink)
        run = kernel.send("from_uplink", call, kernel.uplink)
        assert run.value == REDIRECT
        assert ends(sound(run.data))[1] == (OTHER[version], 8080)
        run = kernel.send("from_pod", answer, kernel.uplink)
        assert ends(sound(run.data))[0] == (SERVICE[version], 80)


@VERSIONS
def test_what_was_a_service_is_policys_to_judge_like_any_address(
    kernel: Node, balancer: Balancer, version: int
) -> None:
    """Though it is known still whom the client had got there."""
    balancer.simple(SERVICE[version], 80, UDP, {7: (REMOTE[version], 8080)}, flags=0)
    call = packet(POD[version], SERVICE[version], UDP, (40000, 80))
    assert kernel.send("from_pod", call).value == REDIRECT
    balancer.remove_frontend(SERVICE[version], 80, UDP)
    assert kernel.send("from_pod", call).value == REDIRECT, "a connection goes on"
    kernel.forget_flows()
    kernel.policies({})
    kernel.events()
    assert kernel.send("from_pod", call).value == SHOT
    assert [int(event["reason"]) for event in kernel.events()] == [133]


def test_a_datagram_without_a_checksum_gets_none(kernel: Node, balancer: Balancer) -> None:
    balancer.simple(SERVICE[4], 80, UDP, {7: (ELSEWHERE[4], 8080)})
    run = kernel.send("from_uplink", frame(WORLD[4], SERVICE[4], UDP, 40000, 80), kernel.uplink)
    assert dissect(run.data).destination == ELSEWHERE[4]
    assert dissect(run.data).l4[6:8] == b"\0\0"


@VERSIONS
def test_a_backend_that_is_a_frontend_is_called_as_it_stands(
    kernel: Node, balancer: Balancer, version: int
) -> None:
    """To itself, and to each other: one translation each, and out."""
    balancer.simple(SERVICE[version], 80, TCP, {1: (SERVICE[version], 80)}, number=1)
    balancer.simple(SERVICE[version], 81, TCP, {2: (SERVICE[version], 82)}, number=2)
    balancer.simple(SERVICE[version], 82, TCP, {3: (SERVICE[version], 81)}, number=3)
    for port, leads_to in ((80, 80), (81, 82), (82, 81)):
        for program, source, ifindex in (("from_uplink", WORLD, kernel.uplink), ("from_pod", POD, 1)):
            run = kernel.send(
                program, packet(source[version], SERVICE[version], TCP, (40000 + port, port)), ifindex
            )
            assert run.value == REDIRECT
            seen = sound(run.data)
            assert (seen.source, seen.destination, seen.ports[1]) == (
                OUR[version],
                SERVICE[version],
                leads_to,
            )
            back = kernel.send("from_uplink", run.data, kernel.uplink)
            assert back.value in (PASS, SHOT), "what comes back to us goes no round"


def test_a_flood_of_calls_displaces_no_connection(tmp_path: Path) -> None:
    sizes = {"half_open": 256, "half_open_translations": 256}
    with node(tmp_path / "bpf", Constants(), **sizes) as kernel:
        kernel.uplink_to_everywhere(OUR[4], OUR[6])
        furnish(kernel)
        kernel.open(CLIENT, SERVER)
        balancer = Balancer(kernel.plane, kernel.root)
        for version in (4, 6):
            flooded(kernel, balancer, version)
        balancer.close()


def flooded(kernel: Node, balancer: Balancer, version: int) -> None:
    balancer.simple(
        SERVICE[version], 80, TCP, {version: (OTHER[version], 8080)}, number=version, algorithm=RANDOM
    )
    call = packet(WORLD[version], SERVICE[version], TCP, (40000, 80))
    assert kernel.send("from_uplink", call, kernel.uplink).value == REDIRECT
    answer = packet(OTHER[version], WORLD[version], TCP, (8080, 40000), flags=SYN | ACK)
    assert kernel.send("from_pod", answer, kernel.uplink).value == REDIRECT
    more = packet(WORLD[version], SERVICE[version], TCP, (40000, 80), flags=ACK)
    assert kernel.send("from_uplink", more, kernel.uplink).value == REDIRECT
    for port in range(1024, 5024):
        flood = frame(WORLD[version] + 1, SERVICE[version], TCP, port, 80)
        assert kernel.send("from_uplink", flood, kernel.uplink).value == REDIRECT
    kernel.events()
    assert ends(sound(kernel.send("from_uplink", more, kernel.uplink).data))[1] == (OTHER[version], 8080)
    assert kernel.send("from_pod", answer, kernel.uplink).value == REDIRECT
    fresh = packet(WORLD[version], SERVICE[version], TCP, (40001, 80))
    assert kernel.send("from_uplink", fresh, kernel.uplink).value == REDIRECT
    assert not kernel.events()[1:], "nothing is dropped; one connection has begun"


def test_connections_outlive_their_tables(tmp_path: Path) -> None:
    """Tables of another size take over what the former ones held, whom clients have got as well."""
    with node(tmp_path / "bpf", Constants(), flows=1024, translations=1024) as kernel:
        kernel.uplink_to_everywhere(OUR[4], OUR[6])
        furnish(kernel)
        kernel.open(CLIENT, SERVER)
        kernel.masquerade(OUR[4], OUR[6])
        before: dict[bytes, bytes] = {}
        balancer = Balancer(kernel.plane, kernel.root)
        for version in (4, 6):
            for number, backend in enumerate((OTHER, ELSEWHERE), version):
                address = SERVICE[version]
                balancer.simple(address, 80 + number, UDP, {number: (backend[version], 8080)}, number=number)
                for port in (40000, 40001):
                    call = packet(WORLD[version], address, UDP, (port, 80 + number))
                    before[call] = kernel.send("from_uplink", call, kernel.uplink).data
                (client, at), to = ends(dissect(before[call]))
                answer = packet(to[0], client, UDP, (to[1], at))
                program = "from_pod" if backend is OTHER else "from_uplink"
                assert kernel.send(program, answer, kernel.uplink).value == REDIRECT
                balancer.service(number, [])
        settled = len(kernel.plane.translations.read_all()[0])
        kernel.plane.grow({"flows": 4096, "translations": 4096})
        assert len(kernel.plane.translations.read_all()[0]) == settled
        for call, sent in before.items():
            assert kernel.send("from_uplink", call, kernel.uplink).data == sent
        balancer.close()


@VERSIONS
def test_whatever_comes_for_a_service_does_no_harm(kernel: Node, balancer: Balancer, version: int) -> None:
    """Calls, answers and errors, cut short and with bytes changed: none is passed on with a wrong address."""
    rng = random.Random(version)
    balancer.marker(SERVICE[version])
    for number, (protocol, backend) in enumerate(
        [(TCP, OTHER), (UDP, ELSEWHERE), (SCTP, OUR), (UDP, POD)], 1
    ):
        balancer.simple(
            SERVICE[version], 80 + number, protocol, {number: (backend[version], 8080)}, number=number
        )
    calls = [
        packet(client[version], SERVICE[version], protocol, (40000, port))
        for client in (WORLD, POD)
        for protocol in (TCP, UDP, SCTP)
        for port in range(80, 86)
    ]
    kind = (ICMP, 3) if version == 4 else (ICMPV6, 1)
    errors = [
        frame(WORLD[version], SERVICE[version], kind[0], 0, kind[1], payload=each[14:]) for each in calls
    ]
    allowed = {each[version] for each in (OTHER, POD, ELSEWHERE, OUR, REMOTE, WORLD, SERVICE)}
    for _ in range(3000):
        data = bytearray(rng.choice(calls + errors))
        start = 34 if version == 4 else 54
        for _ in range(rng.choice((0, 1, 1, 2, 8))):
            data[rng.randrange(start, len(data))] = rng.randrange(256)
        if rng.random() < 0.3:
            del data[rng.randrange(start, len(data)) :]
        program, ifindex = rng.choice(
            [("from_uplink", kernel.uplink), ("from_pod", 1), ("to_uplink", kernel.uplink)]
        )
        run = kernel.send(program, bytes(data), ifindex)
        assert run.value in (PASS, SHOT, REDIRECT)
        if run.value == REDIRECT and len(run.data) >= 54:
            assert dissect(run.data).destination in allowed


@VERSIONS
def test_a_segment_for_a_port_that_a_service_has_not_is_refused(
    kernel: Node, balancer: Balancer, version: int
) -> None:
    """Also in a connection that was there before the port was taken away; no router gets it back."""
    balancer.marker(SERVICE[version])
    segment = packet(WORLD[version], SERVICE[version], TCP, (40001, 81), flags=ACK)
    run = kernel.send("from_uplink", segment, kernel.uplink)
    assert run.value == REDIRECT
    seen = dissect(run.data)
    assert (seen.destination, seen.ports, seen.l4[13] & RST) == (WORLD[version], (81, 40001), RST)


@VERSIONS
def test_a_connection_to_the_node_itself_is_none_of_a_service_that_is_over(
    kernel: Node, balancer: Balancer, version: int
) -> None:
    """From the port that a client's connection through the service had, to the same backend."""
    balancer.simple(OUR[version], 30080, TCP, {7: (OUR[version], 8080)})
    call, answer = (WORLD[version], OUR[version]), (OUR[version], WORLD[version])
    kernel.send("from_uplink", packet(*call, TCP, (40000, 30080)), kernel.uplink)
    accepted = packet(*answer, TCP, (8080, 40000), flags=SYN | ACK)
    assert ends(sound(kernel.send("to_uplink", accepted, kernel.uplink).data))[0][1] == 30080
    kernel.send("from_uplink", packet(*call, TCP, (40000, 30080), flags=RST), kernel.uplink)
    assert kernel.send("from_uplink", packet(*call, TCP, (40000, 8080)), kernel.uplink).value == PASS
    for flags in (SYN | ACK, ACK):
        run = kernel.send("to_uplink", packet(*answer, TCP, (8080, 40000), flags=flags), kernel.uplink)
        assert ends(sound(run.data))[0] == (OUR[version], 8080)
