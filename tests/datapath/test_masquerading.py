"""Masquerading: connections to the outside leave with the node's address and a port of the node's."""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest
from bench_node import PASS, REDIRECT, SHOT, Node, node
from places import CLIENT, OTHER, OUR, POD, REMOTE, SERVER, VERSIONS, WORLD

from axoneme.datapath.plane import Constants
from oracle.packets import (
    ACK,
    ETHERNET,
    FIN,
    ICMP,
    ICMPV6,
    SCTP,
    SYN,
    TCP,
    UDP,
    Address,
    Seen,
    crc32c,
    dissect,
    frame,
    ip_header,
    with_checksum,
)


def masquerade(kernel: Node) -> int:
    kernel.masquerade(OUR[4], OUR[6])
    return kernel.uplink


@VERSIONS
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_a_connection_to_the_outside_leaves_with_the_nodes_address(
    kernel: Node, version: int, protocol: int
) -> None:
    uplink = masquerade(kernel)
    run = kernel.send(
        "from_pod", with_checksum(frame(POD[version], WORLD[version], protocol, 40000, 443, payload=b"hello"))
    )
    seen = dissect(run.data)
    assert run.value == REDIRECT
    assert (seen.source, seen.destination) == (OUR[version], WORLD[version])
    assert 1024 <= seen.ports[0] <= 32767
    assert seen.ports[1] == 443
    assert seen.checksum_right
    assert seen.ip_checksum_right
    (event,) = kernel.events()
    assert int(event["nat_port"]) == seen.ports[0]
    answer = with_checksum(
        frame(WORLD[version], OUR[version], protocol, 443, seen.ports[0], flags=SYN | ACK, payload=b"hi")
    )
    run = kernel.send("from_uplink", answer, uplink)
    back = dissect(run.data)
    assert run.value == REDIRECT
    assert (back.destination, back.ports) == (POD[version], (443, 40000))
    assert back.checksum_right
    assert back.ip_checksum_right


def test_two_pods_with_one_port_get_two(kernel: Node) -> None:
    masquerade(kernel)
    kernel.endpoint(OTHER[4], SERVER, number=6)
    first = dissect(kernel.send("from_pod", frame(POD[4], WORLD[4], TCP, 40000, 443)).data)
    second = dissect(kernel.send("from_pod", frame(OTHER[4], WORLD[4], TCP, 40000, 443)).data)
    assert first.source == second.source == OUR[4]
    assert first.ports[0] != second.ports[0]


@VERSIONS
def test_an_echo_request_is_translated_by_its_identifier(kernel: Node, version: int) -> None:
    uplink = masquerade(kernel)
    protocol, ask, answer = (ICMP, 8, 0) if version == 4 else (ICMPV6, 128, 129)
    run = kernel.send("from_pod", with_checksum(frame(POD[version], WORLD[version], protocol, 77, ask)))
    seen = dissect(run.data)
    assert (run.value, seen.source) == (REDIRECT, OUR[version])
    assert seen.checksum_right
    identifier = struct.unpack(">H", seen.l4[4:6])[0]
    reply = with_checksum(frame(WORLD[version], OUR[version], protocol, identifier, answer))
    run = kernel.send("from_uplink", reply, uplink)
    back = dissect(run.data)
    assert (run.value, back.destination) == (REDIRECT, POD[version])
    assert struct.unpack(">H", back.l4[4:6])[0] == 77
    assert back.checksum_right


@VERSIONS
def test_an_error_about_a_translated_packet_reaches_the_pod_in_its_own_terms(
    kernel: Node, version: int
) -> None:
    uplink = masquerade(kernel)
    run = kernel.send("from_pod", with_checksum(frame(POD[version], WORLD[version], UDP, 40000, 53)))
    sent = run.data[14:]
    router = IPv4Address("192.0.2.77") if version == 4 else IPv6Address("2001:db8:77::1")
    protocol, kind = (ICMP, 3) if version == 4 else (ICMPV6, 1)
    error = with_checksum(frame(router, OUR[version], protocol, 0, kind, payload=sent))
    kernel.events()
    run = kernel.send("from_uplink", error, uplink)
    back = dissect(run.data)
    assert (run.value, back.destination) == (REDIRECT, POD[version])
    inner = dissect(ETHERNET + (b"\x08\x00" if version == 4 else b"\x86\xdd") + back.l4[8:])
    assert (inner.source, inner.ports) == (POD[version], (40000, 53))
    assert back.checksum_right
    assert inner.ip_checksum_right
    assert not kernel.events()


def test_an_error_about_nothing_that_we_know_is_policys_to_judge(kernel: Node) -> None:
    kernel.policies({})
    about = ip_header(POD[4], REMOTE[4], UDP, 8)[2:] + struct.pack(">HHHH", 1, 2, 8, 0)
    run = kernel.send("to_pod", frame(REMOTE[4], POD[4], ICMP, 0, 3, payload=about))
    assert run.value == SHOT


# ---- ports -------------------------------------------------------------------------------------


def out(kernel: Node, port: int, pod: Address = POD[4], ifindex: int = 1) -> Seen:
    return dissect(kernel.send("from_pod", frame(pod, WORLD[4], TCP, port, 443), ifindex).data)


def close(kernel: Node, port: int, seen: int) -> None:
    """In order, by both sides."""
    for flags in (SYN | ACK, FIN | ACK):
        kernel.send("from_uplink", frame(WORLD[4], OUR[4], TCP, 443, seen, flags=flags), kernel.uplink)
    kernel.send("from_pod", frame(POD[4], WORLD[4], TCP, port, 443, flags=FIN | ACK))


def test_a_port_in_time_wait_is_its_own_pods_again_and_nobody_elses(kernel: Node) -> None:
    masquerade(kernel)
    seen = out(kernel, 40000).ports[0]
    close(kernel, 40000, seen)
    assert out(kernel, 40000, OTHER[4], kernel.uplink).ports[0] != seen
    # The same port of the node from another port of the pod: some 31744 further on.
    assert out(kernel, 40000 - 31744).ports[0] == seen


def test_all_ports_taken_is_counted_for_the_destination(tmp_path: Path) -> None:
    constants = Constants(world_ipv4=9, nat_port_first=2000, nat_port_last=2007)
    with node(tmp_path / "bpf", constants) as kernel:
        kernel.uplink_to_everywhere(OUR[4])
        kernel.masquerade(OUR[4])
        kernel.endpoint(POD[4], CLIENT, number=5)
        kernel.open(CLIENT)
        taken = set()
        for port in range(40000, 40100):
            run = kernel.send("from_pod", frame(POD[4], WORLD[4], TCP, port, 443))
            if run.value == REDIRECT:
                taken.add(dissect(run.data).ports[0])
        assert taken == set(range(2000, 2008))
        assert kernel.plane.out_of_ports() == {f"{WORLD[4]}:443/TCP": 100 - 8}
        assert 191 in {int(event["reason"]) for event in kernel.events()}
        # Another destination has ports of its own.
        elsewhere = frame(POD[4], ip_address("203.0.113.11"), TCP, 40000, 443)
        assert kernel.send("from_pod", elsewhere).value == REDIRECT


def test_a_port_that_a_socket_of_the_node_has_is_not_taken(kernel: Node) -> None:
    masquerade(kernel)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours:
        ours.bind(("0.0.0.0", 7946))
        packet = frame(POD[4], WORLD[4], UDP, 7946 - 1024 + 31744, 53)
        assert dissect(kernel.send("from_pod", packet).data).ports[0] != 7946
    packet = frame(POD[4], WORLD[4], UDP, 7946 - 1024 + 31744, 54)
    assert dissect(kernel.send("from_pod", packet).data).ports[0] == 7946


@VERSIONS
def test_sctp_changes_its_port_and_keeps_a_right_checksum(kernel: Node, version: int) -> None:
    uplink = masquerade(kernel)

    def sctp(source: Address, destination: Address, ports: tuple[int, int], size: int) -> bytes:
        body = struct.pack(">HHI", *ports, 0xDECAF) + bytes(4) + bytes(range(size))
        body = body[:8] + struct.pack("<I", crc32c(body)) + body[12:]
        packet = frame(source, destination, SCTP, payload=bytes(len(body) - 8))
        return packet[: -len(body)] + body

    for size in (16, 20, 101):
        run = kernel.send("from_pod", sctp(POD[version], WORLD[version], (40000, 36412), size))
        seen = dissect(run.data)
        assert (run.value, seen.source, seen.ports[1]) == (REDIRECT, OUR[version], 36412)
        assert seen.ports[0] != 40000
        assert seen.l4[8:12] == struct.pack("<I", crc32c(seen.l4[:8] + bytes(4) + seen.l4[12:]))
        answer = sctp(WORLD[version], OUR[version], (36412, seen.ports[0]), size)
        run = kernel.send("from_uplink", answer, uplink)
        back = dissect(run.data)
        assert (run.value, back.destination, back.ports) == (REDIRECT, POD[version], (36412, 40000))
        assert back.l4[8:12] == struct.pack("<I", crc32c(back.l4[:8] + bytes(4) + back.l4[12:]))


# ---- what does not begin at a translated port --------------------------------------------------


def test_nothing_begins_at_a_translated_port(kernel: Node) -> None:
    uplink = masquerade(kernel)
    seen = out(kernel, 40000).ports[0]
    close(kernel, 40000, seen)
    syn = frame(WORLD[4], OUR[4], TCP, 443, seen)
    assert kernel.send("from_uplink", syn, uplink).value == PASS, "the node's own stack answers"
    assert out(kernel, 40000).source == OUR[4]


def test_a_translation_that_was_displaced_is_put_back(kernel: Node) -> None:
    uplink = masquerade(kernel)
    seen = out(kernel, 40000).ports[0]
    kernel.plane.half_open_translations.clear()
    answer = frame(WORLD[4], OUR[4], TCP, 443, seen, flags=SYN | ACK)
    assert kernel.send("from_uplink", answer, uplink).value == PASS
    assert out(kernel, 40000).ports[0] == seen
    assert kernel.send("from_uplink", answer, uplink).value == REDIRECT
