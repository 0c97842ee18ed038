"""The kernel does as `axo policy why` says, and lets pass what the nearest miss says would pass if mended."""

from __future__ import annotations

import random
from pathlib import Path

from bench_node import PASS, REDIRECT, SHOT, Node, node
from test_policy_oracle import PEER_NODE, address_of

from axoneme.model.policy import Direction
from axoneme.policy.engine import PolicyEngine
from axoneme.policy.explain import why
from axoneme.policy.lookup import Outcome
from axoneme.policy.nearest import nearest
from oracle.packets import frame
from oracle.scenarios import some_packet, some_scenario

SCENARIOS, PACKETS = 30, 30
#: Of a scenario so many denials are mended.
MENDS = 4


def sent(
    kernel: Node, engine: PolicyEngine, subject: int, direction: Direction, peer: int, packet: tuple[int, int]
) -> int:
    """What becomes of a packet between two identities, under the engine's tables."""
    protocol, port = packet
    kernel.policies(dict(engine.table))
    kernel.plane.raise_all()
    kernel.forget_flows()
    version = {1: 4, 58: 6}.get(protocol, 4)
    here = address_of(subject, version) + (1 << 24 if version == 4 else 1 << 40)
    there = address_of(peer, version)
    kernel.address(there, peer, PEER_NODE)
    kernel.endpoint(here, subject)
    egress = direction is Direction.EGRESS
    ends = (here, there) if egress else (there, here)
    verdict = kernel.send("from_pod" if egress else "to_pod", frame(*ends, protocol, 1024, port)).value
    kernel.events()
    kernel.remove_endpoint(here)
    return verdict


def test_why_and_the_kernel_agree_and_a_mended_rule_lets_the_packet_pass(tmp_path: Path) -> None:
    rng = random.Random(20261128)
    mends = denials = 0
    with node(tmp_path / "bpf") as kernel:
        for _ in range(SCENARIOS):
            scenario = some_scenario(rng)
            engine = scenario.engine(rng)
            engine.changes()
            peers, left = list(scenario.peers(engine)), MENDS
            for _ in range(PACKETS):
                subject, direction = rng.choice(sorted(scenario.subjects)), rng.choice(list(Direction))
                number, party = rng.choice(peers)
                protocol, port = packet = some_packet(rng)
                if protocol in (1, 58) and (port > 255 or 133 <= port <= 137):
                    continue  # no such type on the wire, or neighbour discovery, which is not forwarded
                explained = why(engine, subject, direction, number, protocol, port)
                verdict = sent(kernel, engine, subject, direction, number, packet)
                assert (verdict in (PASS, REDIRECT)) == explained.decision.allowed
                assert (verdict == SHOT) == (not explained.decision.allowed)
                misses = nearest(engine, subject, direction, number, protocol, port, party.address)
                assert not misses or explained.decision.outcome is Outcome.DEFAULT_DENIED
                denials += bool(misses)
                if misses and left:
                    left -= 1
                    mends += 1
                    other = scenario.mended(misses[0])
                    again = other.engine()
                    again.changes()
                    known_as = other.number(again, party, number)
                    passes = sent(kernel, again, subject, direction, known_as, packet)
                    assert passes in (PASS, REDIRECT), str(misses[0])
    assert mends > SCENARIOS and denials > mends
