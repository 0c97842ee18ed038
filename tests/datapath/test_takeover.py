"""What others may try with connections that are not theirs."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address
from pathlib import Path

from bench_node import LOOPBACK, PASS, REDIRECT, SHOT, Node, node
from places import CLIENT, NODE, OTHER, OUR, POD, REMOTE, SERVER, WORLD

from axoneme.datapath import testrun
from axoneme.datapath.plane import Constants
from axoneme.policy.table import Key, Value
from oracle.packets import ACK, ICMP, SYN, TCP, UDP, frame

THIRD = ip_address("10.244.1.7")


def connect(kernel: Node) -> None:
    """A connection from the pod to the other one, answered; nobody takes calls but the other."""
    kernel.policies({Key(CLIENT, 0, 1, 0, 0, 72): Value(1, 1), Key(SERVER, 0, 0, 0, 0, 72): Value(1, 1)})
    assert kernel.send("from_pod", frame(POD[4], OTHER[4], TCP, 40000, 80)).value == REDIRECT
    reply = frame(OTHER[4], POD[4], TCP, 80, 40000, flags=SYN | ACK)
    assert kernel.send("from_pod", reply, kernel.uplink).value == REDIRECT


def lives(kernel: Node) -> bool:
    reply = frame(OTHER[4], POD[4], TCP, 80, 40000, flags=ACK)
    return kernel.send("from_pod", reply, kernel.uplink).value == REDIRECT


def test_a_forged_packet_ends_nobodys_connection(kernel: Node) -> None:
    connect(kernel)
    kernel.endpoint(THIRD, 302, ifindex=kernel.elsewhere, number=8)
    forged = frame(POD[4], OTHER[4], TCP, 40000, 80, flags=ACK)
    assert kernel.send("from_pod", forged, kernel.elsewhere).value == SHOT
    assert kernel.send("from_uplink", forged, kernel.uplink).value == SHOT
    assert lives(kernel)


def test_a_call_from_the_other_end_is_no_answer(kernel: Node) -> None:
    connect(kernel)
    call = frame(OTHER[4], POD[4], TCP, 80, 40000, flags=SYN)
    assert kernel.send("from_pod", call, kernel.uplink).value == SHOT
    assert lives(kernel), "and the connection goes on"


def test_a_new_pod_has_none_of_the_connections_of_the_one_before(kernel: Node) -> None:
    connect(kernel)
    kernel.endpoint(POD[4], CLIENT, ifindex=kernel.elsewhere, number=5)
    late = frame(OTHER[4], POD[4], TCP, 80, 40000, flags=ACK)
    assert kernel.send("from_pod", late, kernel.uplink).value != SHOT, "its old link is where it goes"
    kernel.plane.raise_all()  # as the agent does when an address changes its pod
    assert kernel.send("from_pod", late, kernel.uplink).value == SHOT


def test_an_answer_to_an_echo_opens_no_other_question(kernel: Node) -> None:
    echo, answer, timestamp = 8, 0, 13
    kernel.policies(
        {Key(CLIENT, 0, 1, ICMP, echo, 96): Value(1, 1), Key(SERVER, 0, 0, 0, 0, 72): Value(1, 1)}
    )
    ends, back = (POD[4], OTHER[4]), (OTHER[4], POD[4])
    assert kernel.send("from_pod", frame(*ends, ICMP, 9, echo)).value == REDIRECT
    assert kernel.send("from_pod", frame(*back, ICMP, 9, answer), kernel.uplink).value == REDIRECT
    assert kernel.send("from_pod", frame(*ends, ICMP, 9, timestamp)).value == SHOT
    assert kernel.send("from_pod", frame(*back, ICMP, 9, echo), kernel.uplink).value == SHOT


def test_a_pod_sends_no_errors_about_others(kernel: Node) -> None:
    connect(kernel)
    kernel.endpoint(THIRD, 302, ifindex=kernel.elsewhere, number=8)
    about = frame(POD[4], OTHER[4], TCP, 40000, 80)[14:]
    error = frame(THIRD, POD[4], ICMP, 0, 3, payload=about + b"whatever I like")
    assert kernel.send("from_pod", error, kernel.elsewhere).value == SHOT
    by_the_other = frame(OTHER[4], POD[4], ICMP, 0, 3, payload=about)
    assert kernel.send("from_pod", by_the_other, kernel.uplink).value == REDIRECT


def test_errors_from_outside_come_by_an_uplink_and_in_no_pods_name(kernel: Node) -> None:
    kernel.masquerade(OUR[4])
    sent = kernel.send("from_pod", frame(POD[4], WORLD[4], UDP, 40000, 53)).data[14:]
    for source, wanted in ((IPv4Address("192.0.2.77"), REDIRECT), (OTHER[4], SHOT), (POD[4], SHOT)):
        error = frame(source, OUR[4], ICMP, 0, 3, payload=sent)
        passed = kernel.send("from_uplink", error, kernel.uplink).value == REDIRECT
        assert passed == (wanted == REDIRECT)


def test_errors_stop_when_policy_stops_what_they_are_about(kernel: Node) -> None:
    connect(kernel)
    error = frame(OTHER[4], POD[4], ICMP, 0, 3, payload=frame(POD[4], OTHER[4], TCP, 40000, 80)[14:])
    assert kernel.send("from_pod", error, kernel.uplink).value == REDIRECT
    kernel.policies({})
    kernel.plane.raise_all()
    assert kernel.send("from_pod", error, kernel.uplink).value == SHOT


def test_a_reply_by_another_way_does_not_move_the_connection_there(kernel: Node) -> None:
    there = frame(POD[4], WORLD[4], TCP, 40000, 80, flags=ACK)
    assert kernel.send("from_pod", there).value == REDIRECT
    reply = frame(WORLD[4], POD[4], TCP, 80, 40000, flags=SYN | ACK)
    assert kernel.send("from_uplink", reply, kernel.elsewhere).value == REDIRECT
    _, flows = kernel.plane.flows.read_all()
    _, half_open = kernel.plane.half_open.read_all()
    ways = [int(each["leg"][0]["ifindex"]) for each in (*flows, *half_open)]
    assert ways == [kernel.uplink]


def test_a_vlan_tag_goes_nowhere(kernel: Node) -> None:
    packet = frame(POD[4], OTHER[4], TCP, 40000, 80)
    tagged = packet[:12] + b"\x81\x00\x00\x64" + packet[12:]
    assert kernel.send("from_pod", packet).value == REDIRECT
    assert kernel.send("from_pod", tagged).value == SHOT


def test_an_address_of_the_node_that_no_table_names_is_the_node(kernel: Node) -> None:
    """The uplink has it, so no route leads out to it."""
    kernel.policies({Key(CLIENT, 9, 1, 0, 0, 72): Value(1, 1)})
    assert kernel.send("from_pod", frame(POD[4], WORLD[4], TCP, 40000, 80)).value == REDIRECT
    assert kernel.send("from_pod", frame(POD[4], OUR[4], TCP, 40000, 10250)).value == SHOT
    kernel.policies({Key(CLIENT, 1, 1, 0, 0, 72): Value(1, 1)})
    assert kernel.send("from_pod", frame(POD[4], OUR[4], TCP, 40000, 10250)).value == PASS
    assert len(kernel.plane.half_open.read_all()[0]) == 1, "the one to the outside"


def test_link_local_addresses_are_not_the_outside(kernel: Node) -> None:
    packet = frame(POD[6], ip_address("fe80::61:78ff:fe6f:1"), TCP, 40000, 10250)
    assert kernel.send("from_pod", packet).value == SHOT


def test_the_stack_speaks_for_pods_and_nodes_only_when_they_came_by_a_guarded_way(kernel: Node) -> None:
    kernel.address(OUR[4], 1, NODE, flags=1)

    def by(source: str, came: int) -> int:
        packet = frame(ip_address(source), POD[4], TCP, 40000 + came, 80)
        skb = testrun.skb(ifindex=LOOPBACK, ingress_ifindex=came)
        return testrun.run(kernel.plane.program("to_pod"), packet, skb).value

    kernel.uplink_is_known()
    assert by(str(OUR[4]), 0) == PASS
    assert by(str(OUR[4]), 99) == SHOT
    assert by(str(OTHER[4]), 99) == SHOT
    assert by(str(OTHER[4]), kernel.uplink) == PASS, "the other pod's own link"
    assert by(str(REMOTE[4]), 99) == SHOT
    assert by(str(WORLD[4]), 99) == PASS


def test_the_overlay_takes_errors_from_the_node_of_the_peer_only(tmp_path: Path) -> None:
    with node(tmp_path / "bpf", Constants(overlay_ifindex=LOOPBACK, world_ipv4=9)) as kernel:
        kernel.uplink_to_everywhere()
        kernel.endpoint(POD[4], CLIENT, ifindex=kernel.uplink, number=5)
        kernel.address(REMOTE[4], SERVER, NODE)
        kernel.policies({Key(CLIENT, 0, 1, 0, 0, 72): Value(1, 1)})
        sent = frame(POD[4], REMOTE[4], TCP, 40000, 80)
        assert kernel.send("from_pod", sent, kernel.uplink).value == REDIRECT
        # Without metadata of a tunnel: whoever it is, it is not that node.
        error = frame(REMOTE[4], POD[4], ICMP, 0, 3, payload=sent[14:])
        assert kernel.send("from_overlay", error).value == SHOT
