"""Service addresses on a link: who asks for one that this node announces gets the device's own address."""

from __future__ import annotations

import struct
import subprocess
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

import numpy as np
import pytest
from bench_node import PASS, REDIRECT, Node
from places import OUR

from axoneme.datapath.plane import packed
from axoneme.datapath.testrun import Run
from oracle.packets import ETHERNET, ICMPV6, dissect, ip_header, with_checksum

OURS = bytes.fromhex("0a0000000c01")
ASKER = ETHERNET[6:]
SERVICE = {4: IPv4Address("172.31.0.200"), 6: IPv6Address("fd00:a0::200")}
ASKED_BY = IPv6Address("fe80::77")
NEIGHBOUR = {4: IPv4Address("172.31.0.77"), 6: ASKED_BY}
NOBODY = IPv6Address("::")
FROM = b"\x01\x01" + ASKER  # the option with the asker's link address
NONCE = b"\x0e\x01abcdef"  # RFC 7527
EVER = 2**63


@pytest.fixture
def announcing(kernel: Node) -> Iterator[Node]:
    for address in SERVICE.values():
        announce(kernel, address)
    yield kernel
    kernel.plane.announced.clear()


def announce(
    node: Node, address: IPv4Address | IPv6Address, ifindex: int | None = None, until: int = EVER
) -> None:
    key = np.zeros((), node.plane.announced.key)
    key["address"] = np.frombuffer(packed(address), "u1")
    key["ifindex"] = node.uplink if ifindex is None else ifindex
    value = np.zeros((), node.plane.announced.value)
    value["mac"] = np.frombuffer(OURS, "u1")
    value["until"] = until
    node.plane.announced.put(key, value)


def arp(
    target: IPv4Address, sender: IPv4Address = NEIGHBOUR[4], to: bytes = b"\xff" * 6, **fields: int
) -> bytes:
    head = {"hardware": 1, "protocol": 0x0800, "hardware_length": 6, "length": 4, "operation": 1} | fields
    packet = to + ASKER + b"\x08\x06" + struct.pack(">HHBBH", *head.values())
    return packet + ASKER + sender.packed + bytes(6) + target.packed


def solicited(target: IPv6Address) -> IPv6Address:
    """The multicast group by which a node with this address is asked (RFC 4291, section 2.7.1)."""
    return IPv6Address(int(IPv6Address("ff02::1:ff00:0")) | int(target) & 0xFFFFFF)


def solicitation(
    target: IPv6Address,
    source: IPv6Address = ASKED_BY,
    options: bytes = FROM,
    destination: IPv6Address | None = None,
    to: bytes | None = None,
    ttl: int = 255,
    code: int = 0,
) -> bytes:
    destination = destination or solicited(target)
    message = struct.pack(">BBHI", 135, code, 0, 0) + target.packed + options
    frame = (to or b"\x33\x33" + destination.packed[12:]) + ASKER
    return with_checksum(frame + ip_header(source, destination, ICMPV6, len(message), ttl=ttl) + message)


def ask(node: Node, packet: bytes, ifindex: int | None = None) -> Run:
    return node.send("from_uplink", packet, node.uplink if ifindex is None else ifindex)


def own_mac(device: str) -> bytes:
    shown = subprocess.run(["ip", "-o", "link", "show", device], capture_output=True, text=True, check=True)
    return bytes.fromhex(shown.stdout.split("link/ether ")[1].split()[0].replace(":", ""))


# ---- ARP ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("sender", [NEIGHBOUR[4], IPv4Address(0)], ids=["a request", "a probe"])
def test_a_request_for_an_announced_address_is_answered(announcing: Node, sender: IPv4Address) -> None:
    run = ask(announcing, arp(SERVICE[4], sender))
    assert run.value == REDIRECT
    assert run.data[:14] == ASKER + OURS + b"\x08\x06"
    assert run.data[14:22] == struct.pack(">HHBBH", 1, 0x0800, 6, 4, 2)
    assert run.data[22:42] == OURS + SERVICE[4].packed + ASKER + sender.packed


def test_a_unicast_request_is_answered_when_it_is_for_this_device(announcing: Node) -> None:
    """As neighbours make sure of what they know."""
    assert ask(announcing, arp(SERVICE[4], to=own_mac("up0"))).value == REDIRECT
    strange = arp(SERVICE[4], to=bytes.fromhex("0a00000000ee"))
    assert_untouched(ask(announcing, strange), strange)


def assert_untouched(run: Run, packet: bytes) -> None:
    """It is the node's own stack's, as it came."""
    assert (run.value, run.data) == (PASS, packet)


@pytest.mark.parametrize(
    "packet",
    [
        arp(OUR[4]),
        arp(IPv4Address("172.31.0.201")),
        arp(SERVICE[4], SERVICE[4]),
        arp(SERVICE[4], operation=2),
        arp(SERVICE[4], operation=3),
        arp(SERVICE[4], hardware=6),
        arp(SERVICE[4], protocol=0x86DD),
        arp(SERVICE[4], length=16),
        arp(SERVICE[4], hardware_length=8),
        arp(SERVICE[4])[:41],
    ],
    ids=[
        "the node's own address",
        "an address of nobody",
        "another's announcement",
        "a reply",
        "a reverse request",
        "other hardware",
        "another protocol",
        "long addresses",
        "long link addresses",
        "cut short",
    ],
)
def test_other_arp_is_left_to_the_node(announcing: Node, packet: bytes) -> None:
    assert_untouched(ask(announcing, packet), packet)


def test_it_is_answered_on_its_device_only(announcing: Node) -> None:
    for packet in (arp(SERVICE[4]), solicitation(SERVICE[6])):
        assert_untouched(ask(announcing, packet, announcing.elsewhere), packet)


def test_nothing_is_answered_when_the_lease_is_over(announcing: Node) -> None:
    for address in SERVICE.values():
        announce(announcing, address, until=time.clock_gettime_ns(time.CLOCK_BOOTTIME))
    for packet in (arp(SERVICE[4]), solicitation(SERVICE[6])):
        assert_untouched(ask(announcing, packet), packet)


# ---- neighbour discovery -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [FROM, b"", FROM + NONCE, NONCE + FROM, b"\x0e\x03" + bytes(22) + FROM],
    ids=["as usual", "bare", "with a nonce", "nonce first", "a long option first"],
)
def test_a_solicitation_for_an_announced_address_is_answered(announcing: Node, options: bytes) -> None:
    run = ask(announcing, solicitation(SERVICE[6], options=options))
    assert run.value == REDIRECT
    answer = dissect(run.data)
    assert (answer.to, answer.sender) == (ASKER, OURS)
    assert (answer.source, answer.destination) == (SERVICE[6], NEIGHBOUR[6])
    assert answer.checksum_right
    assert run.data[21] == 255
    assert answer.l4[:2] == b"\x88\x00"
    assert answer.l4[4:] == struct.pack(">I", 0x60000000) + SERVICE[6].packed + b"\x02\x01" + OURS


def test_a_unicast_solicitation_is_answered(announcing: Node) -> None:
    asked = solicitation(SERVICE[6], destination=SERVICE[6], to=own_mac("up0"), options=b"")
    assert ask(announcing, asked).value == REDIRECT
    strange = solicitation(SERVICE[6], destination=SERVICE[6], to=bytes.fromhex("0a00000000ee"))
    assert_untouched(ask(announcing, strange), strange)


@pytest.mark.parametrize("options", [b"", NONCE])
def test_who_looks_whether_the_address_is_free_hears_that_it_is_not(announcing: Node, options: bytes) -> None:
    run = ask(announcing, solicitation(SERVICE[6], NOBODY, options))
    assert run.value == REDIRECT
    answer = dissect(run.data)
    assert (answer.to, answer.destination) == (bytes.fromhex("333300000001"), ip_address("ff02::1"))
    assert answer.checksum_right
    assert answer.l4[4:8] == struct.pack(">I", 0x20000000)


def wrong_sum(packet: bytes) -> bytes:
    return packet[:56] + bytes([packet[56] ^ 1]) + packet[57:]


@pytest.mark.parametrize(
    "packet",
    [
        solicitation(OUR[6]),
        solicitation(IPv6Address("fd00:a0::201")),
        solicitation(SERVICE[6], ttl=254),
        solicitation(SERVICE[6], code=1),
        wrong_sum(solicitation(SERVICE[6])),
        solicitation(SERVICE[6], NOBODY, FROM),
        solicitation(SERVICE[6], options=b"\x01\x00" + ASKER),
        solicitation(SERVICE[6], options=b"\x01\x02" + ASKER),
        solicitation(SERVICE[6], options=FROM[:7]),
        solicitation(SERVICE[6], options=7 * NONCE),
        solicitation(IPv6Address("ff02::1"), destination=IPv6Address("ff02::1")),
    ],
    ids=[
        "the node's own address",
        "an address of nobody",
        "from behind a router",
        "another code",
        "a wrong sum",
        "nobody with a link address",
        "an option of no length",
        "an option longer than the packet",
        "half an option",
        "more options than anybody sends",
        "a group",
    ],
)
def test_other_solicitations_are_left_to_the_node(announcing: Node, packet: bytes) -> None:
    assert_untouched(ask(announcing, packet), packet)


def test_a_solicitation_cut_short_is_not_answered(announcing: Node) -> None:
    whole = solicitation(SERVICE[6])
    for length in range(54, len(whole)):
        assert ask(announcing, whole[:length]).value != REDIRECT, length
