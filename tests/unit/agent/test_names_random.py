"""Random answers, policies and sweeps: after each step the tables say of every address what a naive judge
says, and another agent over the same kernel has nothing to write."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, ip_address, ip_network

import pytest

from axoneme.agent.control import Control
from axoneme.datapath.plane import packed
from axoneme.datapath.schema import OBJECTS
from axoneme.identity.names import NameCache
from axoneme.model.l7 import NameMatch
from axoneme.model.labels import Labels, Selector
from axoneme.model.names import matches
from axoneme.model.policy import (
    ALL_PORTS,
    CIDRPeer,
    Direction,
    NamePeer,
    Peer,
    Policy,
    PolicyRef,
    Rule,
)
from axoneme.policy.engine import Options, PolicyEngine, PolicyKey
from axoneme.policy.lookup import evaluate

from .fakes import FakeJournal, FakePlane

SUBJECT = 300
ADDRESSES = [ip_address(f"10.{a}.0.{b}") for a in (1, 2) for b in (1, 2, 3)]
NAMES = ["a.io", "b.io", "x.a.io"]
SELECTORS = [NameMatch("a.io"), NameMatch("*.io", True), NameMatch("**.io", True), NameMatch("*", True)]
RANGES = [ip_network(text) for text in ("0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.0.1/32")]


def some_peer(rng: random.Random) -> Peer:
    if rng.random() < 0.6:
        return NamePeer(rng.choice(SELECTORS))
    cidr = rng.choice(RANGES)
    inside = [r for r in RANGES if r != cidr and r.subnet_of(cidr)]  # type: ignore[arg-type]
    return CIDRPeer(cidr, tuple(rng.sample(inside, min(len(inside), rng.choice((0, 0, 1))))))


def some_policy(rng: random.Random, key: PolicyKey) -> Policy:
    rules = tuple(
        Rule(Direction.EGRESS, (peer,), ALL_PORTS, deny=isinstance(peer, CIDRPeer) and rng.random() < 0.2)
        for peer in (some_peer(rng) for _ in range(rng.randint(1, 3)))
    )
    ref = PolicyRef(key.kind, key.namespace, key.name)
    return Policy(ref, Selector(), rules, frozenset({Direction.EGRESS}))


def allowed(policies: list[Policy], address: IPv4Address, names: set[str]) -> bool:
    """Every rule is asked."""

    def selects(peer: Peer) -> bool:
        if isinstance(peer, NamePeer):
            return any(matches(peer.match, name) for name in names)
        assert isinstance(peer, CIDRPeer)
        return address in peer.cidr and not any(address in each for each in peer.excepts)

    meant = [rule.deny for policy in policies for rule in policy.rules if selects(rule.peers[0])]
    return not policies or (bool(meant) and not any(meant))


@pytest.mark.skipif(not OBJECTS.is_dir(), reason="needs the compiled datapath: make bpf")
@pytest.mark.parametrize("seed", range(12))
def test_tables_say_what_a_naive_judge_says(seed: int) -> None:
    rng, plane, journal, cache = random.Random(seed), FakePlane(), FakeJournal(), NameCache()

    def agent() -> Control:
        made = Control("node1", PolicyEngine(Options()), plane, journal, names=cache)  # type: ignore[arg-type]
        made.identity_known(SUBJECT, Labels.parse(["k8s:app=web"]))
        made.local_subject(SUBJECT, "web", True)
        return made

    control, policies, now = agent(), dict[PolicyKey, Policy](), 0.0
    control.start()
    for _ in range(60):
        now += 20
        match rng.randrange(4):
            case 0:
                key = PolicyKey("CiliumNetworkPolicy", "default", f"p{rng.randrange(3)}")
                if key in policies and rng.random() < 0.4:
                    del policies[key]
                else:
                    policies[key] = some_policy(rng, key)
                control.policy_changed(key, [policies[key]] if key in policies else [])
            case 1:
                control.outside.touch(cache.sweep(now, rng.sample(list(map(packed, ADDRESSES)), 2), now + 50))
            case _:
                told = dict.fromkeys(map(packed, rng.sample(ADDRESSES, rng.randint(1, 3))), 30.0)
                control.outside.touch(cache.learn("web", rng.choice(NAMES), told, now))
        control.settle()
        for address in ADDRESSES:
            record = control.book.lookup(packed(address))
            number = record.identity if record else 9
            decided = evaluate(control.engine.table, SUBJECT, Direction.EGRESS, number, 6, 443).allowed
            names = set(cache.names(packed(address)))
            assert decided == allowed(list(policies.values()), address, names), (address, names)
    again = agent()
    for key, policy in policies.items():
        again.policy_changed(key, [policy])
    again.outside.touch(cache.addresses)
    assert again.start() == 0
    assert again.reconcile() == 0
