"""What the programs do with packets: connections, forgeries, neighbours, nonsense."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from bench_node import PASS, REDIRECT, SHOT, Node, node
from places import CLIENT, DROP, END, GATEWAY_MAC, NEW, NODE, OTHER, OUR, POD, REMOTE, SERVER, VERSIONS, WORLD

from axoneme.datapath.plane import Constants, packed
from axoneme.policy.table import Key, Value
from oracle.packets import (
    ACK,
    ETHERNET,
    FIN,
    ICMPV6,
    RST,
    SYN,
    TCP,
    UDP,
    dissect,
    frame,
    ip_header,
    with_checksum,
)

# ---- connections -------------------------------------------------------------------------------


@VERSIONS
def test_a_connection_is_reported_once_at_its_beginning_and_once_at_its_end(
    kernel: Node, version: int
) -> None:
    there, back = (POD[version], REMOTE[version]), (REMOTE[version], POD[version])
    kernel.send("from_pod", frame(*there, TCP, 40000, 80, flags=SYN))
    (began,) = kernel.events()
    assert (began["kind"], began["source_identity"], began["destination_identity"]) == (NEW, CLIENT, SERVER)
    assert (int(began["source_port"]), int(began["destination_port"])) == (40000, 80)
    steps = [("to_pod", back, SYN | ACK), ("from_pod", there, ACK), ("from_pod", there, FIN | ACK)]
    for program, ends, flags in steps:
        ports = (40000, 80) if ends is there else (80, 40000)
        assert kernel.send(program, frame(*ends, TCP, *ports, flags=flags)).value in (PASS, REDIRECT)
    assert not kernel.events()
    kernel.send("to_pod", frame(*back, TCP, 80, 40000, flags=FIN | ACK))
    (ended,) = kernel.events()
    assert ended["kind"] == END
    assert ended["packets"].tolist() == [3, 2]
    assert ended["started"] <= began["time"] < ended["time"]


def test_a_reset_ends_a_connection_and_a_new_syn_begins_another(kernel: Node) -> None:
    ends = (POD[4], REMOTE[4])
    kernel.send("from_pod", frame(*ends, TCP, 40000, 80, flags=SYN))
    kernel.send("from_pod", frame(*ends, TCP, 40000, 80, flags=RST))
    assert [int(event["kind"]) for event in kernel.events()] == [NEW, END]
    kernel.send("from_pod", frame(*ends, TCP, 40000, 80, flags=SYN))
    (again,) = kernel.events()
    assert again["kind"] == NEW


@VERSIONS
def test_pods_of_one_node_are_delivered_to_directly(kernel: Node, version: int) -> None:
    run = kernel.send("from_pod", frame(POD[version], OTHER[version], TCP, 40000, 80))
    seen = dissect(run.data)
    assert run.value == REDIRECT
    assert (seen.to, seen.sender) == (bytes([10, 0, 0, 0, 0, 6]), GATEWAY_MAC)
    assert seen.ttl == 63
    assert seen.ip_checksum_right


# ---- policy and time ---------------------------------------------------------------------------


def test_a_raised_epoch_has_a_connection_decided_anew(kernel: Node) -> None:
    packet = frame(POD[4], REMOTE[4], TCP, 40000, 80, flags=ACK)
    assert kernel.send("from_pod", packet).value != SHOT
    kernel.events()
    kernel.policies({})
    assert kernel.send("from_pod", packet).value != SHOT, "nothing was raised yet"
    kernel.plane.raise_subjects([SERVER])
    assert kernel.send("from_pod", packet).value != SHOT, "another subject's epoch"
    kernel.plane.raise_subjects([CLIENT])
    assert kernel.send("from_pod", packet).value == SHOT
    ended, dropped = kernel.events()
    assert (ended["kind"], dropped["kind"], dropped["reason"]) == (END, DROP, 133)
    assert not len(kernel.plane.flows.read_all()[0])


def test_a_reply_is_judged_as_part_of_the_connection_that_it_answers(kernel: Node) -> None:
    egress_only = {Key(CLIENT, 0, 1, 0, 0, 72): Value(1, 0)}
    kernel.policies(egress_only)
    kernel.send("from_pod", frame(POD[4], REMOTE[4], TCP, 40000, 80))
    kernel.events()
    kernel.plane.raise_all()
    assert kernel.send("to_pod", frame(REMOTE[4], POD[4], TCP, 80, 40000, flags=ACK)).value == PASS
    assert kernel.send("to_pod", frame(REMOTE[4], POD[4], TCP, 81, 40000, flags=ACK)).value == SHOT
    (event,) = kernel.events()
    assert event["reason"] == 133


def test_an_address_that_changes_its_identity_is_looked_at_again(kernel: Node) -> None:
    kernel.policies({Key(CLIENT, SERVER, 1, 0, 0, 72): Value(1, 7)})
    packet = frame(POD[4], REMOTE[4], UDP, 40000, 53)
    assert kernel.send("from_pod", packet).value != SHOT
    kernel.address(REMOTE[4], 999, NODE)
    kernel.plane.raise_addresses([packed(REMOTE[4])])
    assert kernel.send("from_pod", packet).value == SHOT


# ---- forgeries ---------------------------------------------------------------------------------


@VERSIONS
def test_a_pod_may_send_from_its_own_addresses_only(kernel: Node, version: int) -> None:
    for forged in (OTHER[version], REMOTE[version], WORLD[version], OUR[version]):
        assert kernel.send("from_pod", frame(forged, REMOTE[version], TCP, 40000, 80)).value == SHOT
        (event,) = kernel.events()
        assert event["reason"] == 132


def test_a_forged_tuple_does_not_hit_another_pods_connection(kernel: Node) -> None:
    packet = frame(POD[4], REMOTE[4], TCP, 40000, 80, flags=ACK)
    assert kernel.send("from_pod", packet).value != SHOT
    assert kernel.send("from_pod", packet, kernel.uplink).value == SHOT
    assert kernel.send("from_pod", packet).value != SHOT


def test_an_address_of_this_node_or_its_pods_does_not_come_from_outside(kernel: Node) -> None:
    kernel.address(OUR[4], 1, NODE, flags=1)
    for forged in (OTHER[4], OUR[4]):
        run = kernel.send("from_uplink", frame(forged, POD[4], TCP, 40000, 80), kernel.uplink)
        assert run.value == SHOT


def test_pods_may_not_speak_the_overlays_protocol_to_nodes(tmp_path: Path) -> None:
    with node(tmp_path / "overlay", Constants(overlay_ifindex=99, overlay_port=8472)) as kernel:
        kernel.endpoint(POD[4], CLIENT)
        kernel.open(CLIENT)
        kernel.address(NODE, 6, NODE, flags=1)
        assert kernel.send("from_pod", frame(POD[4], NODE, UDP, 40000, 8472)).value == SHOT
        (event,) = kernel.events()
        assert event["reason"] == 170
        # And a pod of another node does not come in without the overlay.
        kernel.address(REMOTE[4], SERVER, NODE)
        assert kernel.send("from_uplink", frame(REMOTE[4], POD[4], TCP, 1, 2)).value == SHOT


# ---- neighbours --------------------------------------------------------------------------------


def test_arp_is_answered_with_the_gateways_address(kernel: Node) -> None:
    asker, target = POD[4].packed, IPv4Address("169.254.1.1").packed
    request = b"\xff" * 6 + ETHERNET[6:] + b"\x08\x06" + struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1)
    request += ETHERNET[6:] + asker + bytes(6) + target
    run = kernel.send("from_pod", request)
    assert run.value == REDIRECT
    assert run.data[:12] == ETHERNET[6:] + GATEWAY_MAC
    assert run.data[20:22] == b"\x00\x02"
    assert run.data[22:42] == GATEWAY_MAC + target + ETHERNET[6:] + asker
    probe = request[:28] + bytes(4) + request[32:]
    assert kernel.send("from_pod", probe).value == SHOT


def test_neighbour_solicitations_are_answered(kernel: Node) -> None:
    source, target = IPv6Address("fe80::5"), IPv6Address("fe80::1")
    message = struct.pack(">BBHI", 135, 0, 0, 0) + target.packed + b"\x01\x01" + ETHERNET[6:]
    packet = ETHERNET + ip_header(source, target, ICMPV6, len(message), ttl=255) + message
    run = kernel.send("from_pod", with_checksum(packet))
    answer = dissect(run.data)
    assert run.value == REDIRECT
    assert (answer.source, answer.destination) == (target, source)
    assert answer.l4[0] == 136
    assert answer.l4[26:32] == GATEWAY_MAC
    assert answer.checksum_right


# ---- nonsense --------------------------------------------------------------------


@VERSIONS
def test_a_packet_cut_short_anywhere_never_passes(kernel: Node, version: int) -> None:
    whole = frame(POD[version], OTHER[version], TCP, 40000, 80)
    for length in range(34 if version == 4 else 54, len(whole)):
        assert kernel.send("from_pod", whole[:length]).value == SHOT, length
    assert kernel.send("from_pod", whole).value == REDIRECT


def test_a_mapped_address_on_the_wire_is_refused(kernel: Node) -> None:
    forged = IPv6Address("::ffff:10.244.1.5")
    assert kernel.send("from_pod", frame(forged, REMOTE[6], TCP, 40000, 80)).value == SHOT
    (event,) = kernel.events()
    assert event["reason"] == 134


def test_nothing_hides_behind_more_options_than_are_read(kernel: Node) -> None:
    """Else it would pass as a protocol of its own, which a rule for all of them allows."""
    kernel.policies({Key(CLIENT, 0, 1, 0, 0, 72): Value(1, 3), Key(CLIENT, 0, 1, TCP, 80, 96): Value(2, 4)})
    whole = frame(POD[6], REMOTE[6], TCP, 40000, 80)
    for count in range(12):
        headers = b"".join(bytes([60 if n < count - 1 else TCP, 0, 1, 4, 0, 0, 0, 0]) for n in range(count))
        length = (len(whole) - 54 + len(headers)).to_bytes(2, "big")
        head = whole[14:18] + length + bytes([60 if count else TCP]) + whole[21:54]
        assert kernel.send("from_pod", whole[:14] + head + headers + whole[54:]).value == SHOT, count
