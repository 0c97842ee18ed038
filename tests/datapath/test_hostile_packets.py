"""Ten thousand malformed and forged frames: none gets anywhere that policy does not allow.

The judge is a few lines that know one thing: the single connection that is allowed. A frame may only be let
through if, read strictly, it can belong to that one; whatever is dropped is reported with a reason.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from bench_node import PASS, SHOT, Node, node

from axoneme.datapath.plane import Constants
from axoneme.model.policy import Direction
from axoneme.policy.table import Key, Value
from oracle.packets import ACK, ICMP, ICMPV6, SCTP, SYN, TCP, UDP, Address, frame

FRAMES = 10_000
BATCH = 500
ATTACKER, VICTIM, HOST_IDENTITY, FAR_IDENTITY = 300, 301, 1, 302
MINE = {4: ip_address("10.244.1.5"), 6: ip_address("fd00::1:5")}
TARGET = {4: ip_address("10.244.1.6"), 6: ip_address("fd00::1:6")}
FAR = {4: ip_address("10.244.2.7"), 6: ip_address("fd00::2:7")}
HOST = {4: ip_address("172.31.0.1"), 6: ip_address("fd00:a0::1")}
OTHER_NODE = {4: ip_address("172.31.0.2"), 6: ip_address("fd00:a0::2")}
WORLD = {4: ip_address("203.0.113.9"), 6: ip_address("2001:db8::9")}
MARTIANS = {
    4: [ip_address(each) for each in ("0.0.0.0", "127.0.0.1", "255.255.255.255", "224.0.0.1", "169.254.1.1")],
    6: [ip_address(each) for each in ("::", "::1", "ff02::1", "fe80::1", "::ffff:10.244.1.5")],
}
OVERLAY = 77


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Node]:
    with node(tmp_path / "bpf", Constants(overlay_ifindex=OVERLAY)) as made:
        for version in (4, 6):
            made.endpoint(MINE[version], ATTACKER, ifindex=1, number=1)
            made.endpoint(TARGET[version], VICTIM, ifindex=2, number=2)
            made.address(HOST[version], HOST_IDENTITY, None, 1)
            made.address(OTHER_NODE[version], 6, OTHER_NODE[4], 1)
            made.address(FAR[version], FAR_IDENTITY, OTHER_NODE[4])
        # The attacker may call the victim's port 80 over TCP, and nobody may do anything else.
        made.policies(
            {
                Key(ATTACKER, VICTIM, Direction.EGRESS, TCP, 80, 96): Value(1, 5),
                Key(VICTIM, ATTACKER, Direction.INGRESS, TCP, 80, 96): Value(1, 6),
            }
        )
        yield made


def honest(chance: random.Random) -> bytes:
    """A frame that is well-formed at least, from anywhere to anywhere."""
    version = chance.choice((4, 6))
    everybody: list[Address] = [
        *(each[version] for each in (MINE, TARGET, FAR, HOST, OTHER_NODE, WORLD)),
        *MARTIANS[version],
    ]
    source = MINE[version] if chance.random() < 0.7 else chance.choice(everybody)
    target = TARGET[version] if chance.random() < 0.4 else chance.choice(everybody)
    protocol = chance.choice((TCP, TCP, UDP, SCTP, ICMP if version == 4 else ICMPV6, chance.randrange(256)))
    port = chance.choice((80, 80, 22, 53, 8472, 0, 65535, 8, 128, 135))
    inner = frame(TARGET[version], MINE[version], TCP, 80, 40000)[14:] if chance.random() < 0.2 else b""
    payload = inner or chance.randbytes(chance.choice((0, 4, 32, 200)))
    flags = chance.choice((SYN, ACK, SYN | ACK, 0, 0xFF))
    return frame(
        source,
        target,
        protocol,
        chance.choice((40000, 80, 0)),
        port,
        flags=flags,
        code=chance.randrange(5),
        payload=payload,
        ttl=chance.choice((64, 64, 1, 0, 255)),
    )


def damaged(packet: bytes, chance: random.Random) -> bytes:
    raw = bytearray(packet)
    match chance.randrange(8):
        case 0:  # cut off somewhere
            return bytes(raw[: chance.randrange(14, len(raw))])
        case 1:  # a few bits turned
            for _ in range(chance.randrange(1, 6)):
                place = chance.randrange(12, len(raw))
                raw[place] ^= 1 << chance.randrange(8)
        case 2:  # version and header length
            raw[14] = chance.randrange(256)
        case 3:  # total or payload length
            raw[16 if raw[12] == 8 else 18 : 18 if raw[12] == 8 else 20] = chance.randbytes(2)
        case 4 if raw[12] == 8:  # a fragment
            raw[20:22] = struct.pack(">H", chance.choice((0x2000, 0x2001, 1, 2, 0x1FFF, 0x4000, 0x8000)))
        case 4:  # an extension header, or a chain of them
            kind = chance.choice((0, 43, 44, 60, 51, 135))
            chain = b"".join(
                bytes([kind, chance.choice((0, 0, 1, 255))]) + bytes(6) for _ in range(chance.randrange(9))
            )
            raw = (
                raw[:20]
                + bytes([kind])
                + raw[21:54]
                + chain
                + bytes([raw[20], 0])
                + chance.randbytes(6)
                + raw[54:]
            )
        case 5 if raw[12] == 8:  # options
            raw = (
                raw[:14] + bytes([0x46 + chance.randrange(10)]) + raw[15:34] + chance.randbytes(4) + raw[34:]
            )
        case 6:  # another EtherType
            raw[12:14] = chance.choice((b"\x08\x06", b"\x81\x00", b"\x88\xcc", b"\x08\x00", b"\x86\xdd"))
        case _:
            pass
    return bytes(raw)


def may_pass(packet: bytes, source: dict[int, Address], target: dict[int, Address]) -> bool:
    """Whether it can belong to the allowed connection: TCP from ``source`` to port 80 of ``target``, an ICMP
    error about it, or what somebody sends to himself."""
    kind, ip = packet[12:14], packet[14:]
    if kind == b"\x08\x00" and len(ip) >= 20:
        ends = ip_address(ip[12:16]), ip_address(ip[16:20])
        protocol, l4, later = ip[9], (ip[0] & 15) * 4, bool(struct.unpack(">H", ip[6:8])[0] & 0x1FFF)
        wanted, errors = 4, ICMP
    elif kind == b"\x86\xdd" and len(ip) >= 40:
        ends = ip_address(ip[8:24]), ip_address(ip[24:40])
        protocol, l4, later = ip[6], 40, False
        for _ in range(12):
            if protocol not in (0, 43, 44, 51, 60, 135) or len(ip) < l4 + 8:
                break
            if protocol == 44:
                later = later or bool(struct.unpack(">H", ip[l4 + 2 : l4 + 4])[0] >> 3)
                length = 8
            else:
                length = (ip[l4 + 1] + 2) * 4 if protocol == 51 else (ip[l4 + 1] + 1) * 8
            protocol, l4 = ip[l4], l4 + length
        wanted, errors = 6, ICMPV6
    else:
        return False
    if ends[0] == ends[1] == source[wanted]:
        return True
    if ends != (source[wanted], target[wanted]):
        return False
    if protocol == errors:
        kinds = (3, 5, 11, 12) if errors == ICMP else (1, 2, 3, 4)
        return len(ip) > l4 and ip[l4] in kinds
    return protocol == TCP and (later or ip[l4 + 2 : l4 + 4] == b"\x00\x50")


@pytest.mark.parametrize("seed", range(FRAMES // BATCH))
def test_nothing_forbidden_leaves_a_pod(kernel: Node, seed: int) -> None:
    chance = random.Random(seed)
    kernel.events()
    dropped = 0
    for number in range(BATCH):
        packet = damaged(honest(chance), chance)
        if not long_enough(packet):
            continue
        result = kernel.send("from_pod", packet).value
        if result != SHOT and not is_answer(packet):
            assert may_pass(packet, MINE, TARGET), (seed, number, packet.hex())
        # Messages of neighbour discovery that a pod has no business to send end without a word.
        dropped += result == SHOT and packet[12:14] == b"\x08\x00"
    drops = [event for event in kernel.events() if int(event["reason"])]
    assert len(drops) >= dropped > 0, "every drop is reported"
    assert all(int(event["reason"]) >= 130 for event in drops)


def long_enough(packet: bytes) -> bool:
    """Whether the kernel runs programs on it: it wants the whole IP header that the EtherType promises."""
    return len(packet) >= 14 + {b"\x08\x00": 20, b"\x86\xdd": 40}.get(packet[12:14], 1)


def is_answer(packet: bytes) -> bool:
    """What is answered to the pod itself: ARP requests, neighbour solicitations."""
    if packet[12:14] == b"\x08\x06":
        return True
    return packet[12:14] == b"\x86\xdd" and len(packet) > 54 and 58 in packet[20:] and 135 in packet[54:]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("program", ["from_uplink", "from_overlay"])
def test_nothing_forbidden_comes_from_outside(kernel: Node, program: str, seed: int) -> None:
    chance = random.Random(1000 + seed)
    pods = {address.packed for found in (MINE, TARGET) for address in found.values()}
    for version in (
        4,
        6,
    ):  # the victim behind a device that exists here: packets are put on their way into it
        kernel.endpoint(TARGET[version], VICTIM, ifindex=1, number=2)
        kernel.endpoint(MINE[version], ATTACKER, ifindex=2, number=1)
    for number in range(BATCH):
        packet = damaged(honest(chance), chance)
        if not long_enough(packet):
            continue
        result = kernel.send(program, packet, ifindex=1).value
        if result == SHOT:
            continue
        assert result == PASS, (program, seed, number, packet.hex())
        ip = packet[14:]
        target = ip[16:20] if packet[12:14] == b"\x08\x00" else ip[24:40]
        if target in pods and packet[12:14] in (b"\x08\x00", b"\x86\xdd"):
            # What the node's own stack makes of it, if anything, is judged on its way into the pod.
            inside = kernel.send("to_pod", packet, ifindex=1).value
            assert inside == SHOT, (program, seed, number, packet.hex())


def test_each_truncation_of_an_allowed_packet(kernel: Node) -> None:
    for version in (4, 6):
        whole = frame(MINE[version], TARGET[version], TCP, 40000, 80, payload=b"x" * 20)
        l4 = 14 + (20 if version == 4 else 40)
        assert kernel.send("from_pod", whole).value != SHOT
        for length in range(l4, l4 + 20):
            assert kernel.send("from_pod", whole[:length]).value == SHOT, (version, length)


def test_no_port_lets_a_forged_sender_in(kernel: Node) -> None:
    """Nor that of the tunnel, which only the node itself has."""
    for version in (4, 6):
        for port in (80, 8472):
            forged = frame(MINE[version], TARGET[version], UDP, 40000, port, payload=b"x" * 20)
            assert kernel.send("from_uplink", forged).value == SHOT
        assert (
            kernel.send("from_uplink", frame(OTHER_NODE[version], HOST[version], UDP, 1, 8472)).value == PASS
        )
