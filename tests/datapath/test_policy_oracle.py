"""The kernel decides as the policies mean: naive evaluator, compiled table and loaded programs agree."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from bench_node import LOOPBACK, PASS, REDIRECT, SHOT, Node, node

from axoneme.model.policy import Direction
from axoneme.policy.lookup import Outcome, evaluate
from oracle.packets import SYN, Address, frame
from oracle.policy import decide
from oracle.scenarios import Scenario, some_packet, some_scenario

SCENARIOS, PACKETS = 210, 500
REASONS = {Outcome.DENIED: 181, Outcome.DEFAULT_DENIED: 133}
PEER_NODE = IPv4Address("172.31.0.9")
NEW, DROP = 1, 3
QUERIES = {1: (8, 13, 15, 17), 58: (128,)}


def address_of(number: int, version: int) -> Address:
    if version == 4:
        return IPv4Address(0x0B000000 + (number & 0xFFFF) + ((number >> 24) << 16) + 1)
    return IPv6Address((0xFD77 << 112) + number + 1)


def populate(kernel: Node, scenario: Scenario, peers: list[int]) -> None:
    for number in peers:
        for version in (4, 6):
            kernel.address(address_of(number, version), number, PEER_NODE)


def judge(kernel: Node, rng: random.Random, scenario: Scenario, packets: int) -> tuple[int, int]:
    """Compares ``packets`` verdicts of the three; how many were drops, how many were answered."""
    engine, world = scenario.engine(rng), scenario.world()
    engine.changes()
    table = dict(engine.table)
    kernel.policies(table)
    kernel.plane.raise_all()
    peers = dict(scenario.peers(engine))
    populate(kernel, scenario, list(peers))
    parties = {number: scenario.party(number) for number in scenario.subjects}
    subjects, numbers = sorted(parties), sorted(peers)
    drops = answered = 0
    for index in range(packets):
        subject, direction = rng.choice(subjects), rng.choice(list(Direction))
        number = rng.choice(numbers)
        protocol, port = some_packet(rng)
        wanted, _ = decide(world, parties[subject], direction, peers[number], protocol, port)
        found = evaluate(table, subject, direction, number, protocol, port)
        assert found.outcome is wanted
        version = {1: 4, 58: 6}.get(protocol, rng.choice((4, 6)))
        if protocol in (1, 58) and (port > 255 or 133 <= port <= 137):
            continue  # no such type on the wire, or neighbour discovery, which is not forwarded
        here = address_of(subject, version) + (1 << 24 if version == 4 else 1 << 40)
        there = address_of(number, version)
        kernel.endpoint(here, subject)
        if protocol not in (6, 17, 132):
            kernel.forget_flows()  # without ports, every case between two ends is one connection
        token = 1024 + index
        if direction is Direction.EGRESS:
            packet, back = (
                frame(here, there, protocol, token, port),
                frame(there, here, protocol, port, token),
            )
            run = kernel.send("from_pod", packet)
        else:
            packet, back = (
                frame(there, here, protocol, token, port),
                frame(here, there, protocol, port, token),
            )
            run = kernel.send("to_pod", packet)
        case = (subject, direction.name, number, protocol, port, str(here), str(there))
        (event,) = kernel.events()
        if wanted is Outcome.ALLOWED:
            assert run.value in (PASS, REDIRECT), case
            assert event["kind"] == NEW, case
            rule = int(event["egress_rule" if direction is Direction.EGRESS else "ingress_rule"])
            assert rule == found.rule, case
        else:
            drops += 1
            assert run.value == SHOT, case
            assert (event["kind"], event["reason"]) == (DROP, REASONS[wanted]), case
            rule = int(event["egress_rule" if direction is Direction.EGRESS else "ingress_rule"])
            assert (rule in found.rules) or not found.rules, case
        assert (int(event["source_identity"]), int(event["destination_identity"])) == (
            (subject, number) if direction is Direction.EGRESS else (number, subject)
        ), case
        if wanted is Outcome.ALLOWED and protocol in (6, 17, 132):
            # The same packet again, and its answer, whatever policy says of the other direction.
            answered += 1
            again = frame(*_ends(direction, here, there), protocol, token, port, flags=SYN)
            assert (
                kernel.send("from_pod" if direction is Direction.EGRESS else "to_pod", again).value
                == run.value
            )
            way = "to_pod" if direction is Direction.EGRESS else "from_pod"
            assert kernel.send(way, back).value in (PASS, REDIRECT), case
            assert not kernel.events(), case
        kernel.remove_endpoint(here)
    return drops, answered


def _ends(direction: Direction, here: Address, there: Address) -> tuple[Address, Address]:
    return (here, there) if direction is Direction.EGRESS else (there, here)


def test_kernel_table_and_oracle_agree_on_a_hundred_thousand_packets(tmp_path: Path) -> None:
    rng = random.Random(20261124)
    with node(tmp_path / "bpf", flows=2048, half_open=512) as kernel:
        drops = answered = 0
        for _ in range(SCENARIOS):
            kernel.forget_flows()
            more = judge(kernel, rng, some_scenario(rng), PACKETS)
            drops, answered = drops + more[0], answered + more[1]
        assert drops > SCENARIOS * PACKETS / 10
        assert answered > SCENARIOS * PACKETS / 10
        assert LOOPBACK == 1
