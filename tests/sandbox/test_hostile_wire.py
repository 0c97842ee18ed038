"""Damaged and forged frames on real wires: from a pod, and from a machine beside the nodes.

`tests/datapath/test_hostile_packets.py` tries ten thousand kinds without a wire. These here have to get past
real devices and stacks as well; a pod that nobody may call listens to everything that comes in by its link.
"""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from two_nodes import POLICY, Cluster, Pod, connect, inside, listening

from axoneme.model.labels import Selector, equals
from axoneme.model.policy import Direction, Policy, PolicyRef
from oracle.packets import ACK, ICMP, ICMPV6, SYN, TCP, UDP, Address, frame

EVERY_PROTOCOL = 0x0003  # ETH_P_ALL
VXLAN = 8472


CLOSED = Policy(
    PolicyRef(POLICY.kind, POLICY.namespace, POLICY.name),
    Selector((equals("any", "app", "server"),)),
    (),
    frozenset({Direction.INGRESS}),
)


@pytest.fixture(scope="module", params=["overlay", "native"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    made = Cluster(overlay=request.param == "overlay")
    try:
        made.plug(1, "attacker", 10, 300, app="attacker")
        made.plug(1, "near", 11, 301, app="server")
        made.plug(2, "far", 10, 301, app="server")
        made.enforce(CLOSED)
        yield made
    finally:
        made.close()


def raw(namespace: Path, device: str) -> socket.socket:
    with inside(namespace):
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EVERY_PROTOCOL))
        made.bind((device, EVERY_PROTOCOL))
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    made.setblocking(False)
    return made


def mac_of(namespace: Path, device: str) -> bytes:
    with inside(namespace), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as made:
        made.bind((device, 0))
        address: bytes = made.getsockname()[4]
        return address


def heard(listener: socket.socket, own: set[bytes]) -> list[bytes]:
    """IP packets that came in, without what the pod itself has sent."""
    found = []
    while True:
        try:
            packet, (_, _, kind, _, _) = listener.recvfrom(1 << 16)
        except BlockingIOError:
            return found
        source = packet[26:30] if packet[12:14] == b"\x08\x00" else packet[22:38]
        ip = packet[12:14] in (b"\x08\x00", b"\x86\xdd")
        if ip and kind != socket.PACKET_OUTGOING and source not in own and not is_discovery(packet):
            found.append(packet)


def is_discovery(packet: bytes) -> bool:
    """Neighbour discovery and multicast listeners, which every link has."""
    return packet[12:14] == b"\x86\xdd" and (packet[38] == 0xFF or (packet[20] == 58 and packet[54] >= 130))


def hostile(source: Address, victim: Address, others: list[Address]) -> Iterator[bytes]:
    """Truncated at every byte, of wrong lengths, in overlapping fragments, in others' names, martians."""
    version = source.version
    head = 34 if version == 4 else 54
    whole = frame(source, victim, TCP, 40000, 80, payload=b"x" * 40)
    yield from (whole[:length] for length in range(15, len(whole) + 1))
    at = 16 if version == 4 else 18
    for length in (0, 1, 19, 20, 21, 39, 41, 1500, 65535):
        yield whole[:at] + struct.pack(">H", length) + whole[at + 2 :]
    if version == 4:
        yield from (whole[:14] + bytes([first]) + whole[15:] for first in range(0x40, 0x50))
        for first, more in ((0, 1), (1, 1), (2, 0), (1, 0), (0, 0), (8189, 0)):
            yield whole[:20] + struct.pack(">H", more << 13 | first) + whole[22:]
    else:
        for kind in (0, 43, 44, 51, 60, 59, 135, 254):
            yield whole[:20] + bytes([kind]) + whole[21:54] + bytes([TCP, 255]) + whole[56:]
            yield whole[:20] + bytes([kind]) + whole[21:54] + bytes([TCP, 0, 0, 1, 0, 0, 0, 9]) + whole[head:]
    icmp = ICMP if version == 4 else ICMPV6
    martians = (
        ("0.0.0.0", "127.0.0.1", "255.255.255.255", "224.0.0.1") if version == 4 else ("::", "::1", "ff02::1")
    )
    for name in (source, *others, *map(ip_address, martians)):
        for protocol, port in (
            (TCP, 80),
            (UDP, 53),
            (UDP, VXLAN),
            (132, 7),
            (icmp, 8),
            (icmp, 3),
            (icmp, 128),
        ):
            for flags in (SYN, ACK, 0, 0xFF):
                yield frame(name, victim, protocol, 40000, port, flags=flags, payload=whole[14:])


@pytest.mark.parametrize("target", ["near", "far"])
def test_nothing_hostile_of_a_pod_arrives(cluster: Cluster, target: str) -> None:
    attacker, victim = cluster.pods["attacker"], cluster.pods[target]
    own = {ip_address(each).packed for each in victim.addresses.values()}
    with raw(victim.namespace, "eth0") as listener, raw(attacker.namespace, "eth0") as sender:
        sent = sum(attack(sender, cluster, attacker, victim))
        assert sent > 300
        assert_reachable(cluster, attacker)
        assert [packet.hex() for packet in heard(listener, own)] == []


def attack(sender: socket.socket, cluster: Cluster, attacker: Pod, victim: Pod) -> Iterator[bool]:
    others = [pod for pod in cluster.pods.values() if pod is not attacker]
    for version in (4, 6):
        names = [ip_address(each.addresses[version]) for each in (*others, *cluster.nodes)]
        ends = ip_address(attacker.addresses[version]), ip_address(victim.addresses[version])
        for packet in hostile(*ends, names):
            yield sent_by(sender, packet)


def sent_by(sender: socket.socket, packet: bytes) -> bool:
    try:
        sender.send(packet)
    except OSError:  # this kernel itself does not put it on a wire
        return False
    return True


def assert_reachable(cluster: Cluster, attacker: Pod) -> None:
    """All that was sent before has been dealt with, and nothing of it has done harm."""
    with listening(cluster.nodes[0].namespace, 7777) as server:
        connect(attacker.namespace, cluster.nodes[0].addresses[4], 7777).close()
        server.accept()[0].close()


def test_nothing_hostile_of_a_neighbour_of_the_nodes_arrives(cluster: Cluster) -> None:
    """A machine on the nodes' network: in everybody's name, by the wire and by forged tunnels."""
    first, victim = cluster.nodes[0], cluster.pods["near"]
    own = {ip_address(each).packed for each in victim.addresses.values()}
    to_node = mac_of(first.namespace, "eth0")
    sent = 0
    with raw(victim.namespace, "eth0") as listener, raw(cluster.world, "br0") as sender:
        for version in (4, 6):
            target = ip_address(victim.addresses[version])
            names = [
                ip_address(each.addresses[version])
                for each in (*cluster.pods.values(), *cluster.nodes)
                if each is not victim
            ]
            for packet in hostile(
                ip_address("172.31.0.254" if version == 4 else "fd00:a0::fe"), target, names
            ):
                sent += sent_by(sender, to_node + packet[6:])
                for identity in (1, 2, 6, 301, 1 << 23):
                    inside_it = struct.pack(">II", 0x08000000, identity << 8) + packet
                    outer = frame(
                        ip_address("172.31.0.254"),
                        ip_address(first.addresses[4]),
                        UDP,
                        5,
                        VXLAN,
                        payload=inside_it,
                    )
                    sent += sent_by(sender, to_node + outer[6:])
        assert sent > 300
        assert_reachable(cluster, cluster.pods["attacker"])
        assert [packet.hex() for packet in heard(listener, own)] == []


def test_where_nothing_is_forbidden_the_listener_hears(cluster: Cluster) -> None:
    """So that the silence above means something."""
    attacker, victim = cluster.pods["attacker"], cluster.pods["far"]
    own = {ip_address(each).packed for each in victim.addresses.values()}
    cluster.enforce()
    try:
        with raw(victim.namespace, "eth0") as listener, raw(attacker.namespace, "eth0") as sender:
            for version in (4, 6):
                ends = ip_address(attacker.addresses[version]), ip_address(victim.addresses[version])
                sender.send(frame(*ends, TCP, 40000, 80))
            found: list[bytes] = []
            while len(found) < 2 and select.select([listener], [], [], 10)[0]:
                found += heard(listener, own)
            assert len(found) == 2
    finally:
        cluster.enforce(CLOSED)
