"""Near misses: what they say, and that the mend which they name lets the packet pass."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from axoneme.model.l7 import NameMatch
from axoneme.model.labels import Labels, Selector, equals
from axoneme.model.policy import (
    ALL_PORTS,
    AnyPeer,
    CIDRGroupPeer,
    CIDRPeer,
    Direction,
    EntityPeer,
    LabelPeer,
    NamedPort,
    NamePeer,
    NodePeer,
    Peer,
    Policy,
    PolicyRef,
    Port,
    PortRange,
    Protocol,
    Rule,
    ServicePeer,
)
from axoneme.policy.engine import PolicyEngine, PolicyKey
from axoneme.policy.explain import why
from axoneme.policy.lookup import Outcome, evaluate
from axoneme.policy.nearest import Condition, Miss, nearest
from oracle.policy import decide
from oracle.scenarios import some_packet, some_scenario

WEB, DB, OUTSIDE = 300, 301, 1 << 24
REF = PolicyRef("NetworkPolicy", "shop", "rule1")
TCP80 = PortRange(Protocol.TCP, 80, 80)


def shop(app: str, namespace: str = "shop") -> LabelPeer:
    wanted = equals("k8s", "io.kubernetes.pod.namespace", namespace), equals("any", "app", app)
    return LabelPeer(Selector().and_(*wanted))


def misses(
    *rules: Rule,
    peer: int = DB,
    packet: tuple[int, int] = (6, 8080),
    address: str = "",
) -> tuple[Miss, ...]:
    """Of a packet into the web server."""
    engine = PolicyEngine()
    namespace = "k8s:io.kubernetes.pod.namespace=shop"
    engine.upsert_identity(WEB, Labels.parse([namespace, "k8s:app=web"]))
    engine.upsert_identity(DB, Labels.parse([namespace, "k8s:app=db"]))
    engine.set_named_ports(WEB, {("http", Protocol.TCP): frozenset({8000})})
    engine.upsert_cidr_identity(OUTSIDE, ip_network("10.1.0.0/16"))
    engine.add_subject(WEB)
    policy = Policy(REF, Selector((equals("any", "app", "web"),)), rules, frozenset({Direction.INGRESS}))
    engine.upsert_policy(PolicyKey("NetworkPolicy", "shop", "rule1"), (policy,))
    engine.changes()
    return nearest(engine, WEB, Direction.INGRESS, peer, *packet, ip_address(address) if address else None)


def ingress(*peers: Peer, ports: tuple[Port, ...] = (TCP80,), path: str = "spec.ingress[0]") -> Rule:
    return Rule(Direction.INGRESS, peers, ports, path=path)


RANGE = CIDRPeer(ip_network("10.0.0.0/8"), (ip_network("10.1.0.0/16"), ip_network("10.2.0.0/16")))


@pytest.mark.parametrize(
    ("rule", "peer", "packet", "said"),
    [
        (ingress(shop("db")), DB, (6, 8080), "the port (it allows 80/TCP, this is 8080/TCP)"),
        (ingress(AnyPeer(), ports=(TCP80, PortRange(Protocol.TCP, 90, 99), PortRange(Protocol.UDP))), DB,
         (6, 8080),
         "the port (it allows 80/TCP or 90-99/TCP, this is 8080/TCP)"),
        (ingress(shop("db")), DB, (17, 80), "the protocol (it allows 80/TCP, this is 80/UDP)"),
        (ingress(shop("db")), DB, (1, 8), "the protocol (it allows 80/TCP, this is ICMP type 8)"),
        (ingress(shop("db")), DB, (47, 0), "the protocol (it allows 80/TCP, this is protocol 47)"),
        (ingress(shop("db"), ports=(PortRange(Protocol.ICMP, 0, 0),)), DB, (1, 8),
         "the ICMP type (it allows ICMP type 0, this is ICMP type 8)"),
        (ingress(shop("db"), ports=(NamedPort(Protocol.TCP, "http"),)), DB, (6, 80),
         "the port (it allows the port http (8000/TCP), this is 80/TCP)"),
        (ingress(shop("db"), ports=(NamedPort(Protocol.TCP, "metrics"),)), DB, (6, 80),
         "the named port (it allows the port metrics (which is nobody here), this is 80/TCP)"),
        (ingress(shop("db"), ports=()), DB, (6, 80), "the port (it lists no port, this is 80/TCP)"),
        (ingress(shop("cache")), DB, (6, 80), "the label (it wants app=cache, the peer has app=db)"),
        (ingress(LabelPeer(Selector((equals("k8s", "tier", "front"),)))), DB, (6, 80),
         "the label (it wants k8s:tier=front, the peer has no tier)"),
        (ingress(shop("db", "bank")), DB, (6, 80),
         "the namespace (it wants k8s:io.kubernetes.pod.namespace=bank, "
         "the peer has io.kubernetes.pod.namespace=shop)"),
        (ingress(shop("cache", "bank")), DB, (6, 81),
         "the label (it wants app=cache, the peer has app=db), the namespace "
         "(it wants k8s:io.kubernetes.pod.namespace=bank, the peer has io.kubernetes.pod.namespace=shop) "
         "and the port (it allows 80/TCP, this is 81/TCP)"),
        (ingress(RANGE), OUTSIDE, (6, 80),
         "the exception (it leaves out 10.1.0.0/16, the peer is 10.1.2.3, outside the cluster)"),
        (ingress(CIDRPeer(ip_network("192.0.2.0/24"))), OUTSIDE, (6, 80),
         "the range (it wants 192.0.2.0/24, the peer is 10.1.2.3, outside the cluster)"),
        (ingress(CIDRPeer(ip_network("0.0.0.0/0"))), DB, (6, 80),
         "the kind of peer (0.0.0.0/0 means what is outside the cluster, the peer is a pod)"),
        (ingress(EntityPeer("world")), DB, (6, 80),
         "the kind of peer (it wants the entity world, the peer is a pod)"),
        (ingress(shop("db")), OUTSIDE, (6, 80),
         "the kind of peer (it wants pods with app=db,k8s:io.kubernetes.pod.namespace=shop, "
         "the peer is 10.1.2.3, outside the cluster)"),
        (ingress(), DB, (6, 80), "the kind of peer (it selects nobody, the peer is a pod)"),
        (ingress(CIDRGroupPeer("partners")), OUTSIDE, (6, 80),
         "the range (it wants the CIDR group partners, the peer is 10.1.2.3, outside the cluster)"),
        (ingress(ServicePeer("shop", "db")), DB, (6, 80),
         "the kind of peer (it wants what is behind the service shop/db, the peer is a pod)"),
        (replace(ingress(AnyPeer()), direction=Direction.EGRESS), DB, (6, 80),
         "the direction (it is about what goes out of the subject, this goes into it)"),
    ],
)  # fmt: skip
def test_what_is_unmet_is_said(rule: Rule, peer: int, packet: tuple[int, int], said: str) -> None:
    (found,) = misses(rule, peer=peer, packet=packet, address="10.1.2.3" if peer == OUTSIDE else "")
    assert str(found) == f"NetworkPolicy shop/rule1 {rule.path} would allow it but for {said}"


def test_the_fewest_unmet_conditions_come_first_then_what_is_most_often_a_slip() -> None:
    found = misses(
        ingress(shop("cache", "bank"), path="two labels"),
        ingress(EntityPeer("host"), ports=ALL_PORTS, path="kind"),
        ingress(shop("cache"), ports=ALL_PORTS, path="label"),
        ingress(shop("db"), path="port"),
        ingress(shop("db"), ports=(PortRange(Protocol.UDP, 8080, 8080),), path="protocol"),
        ingress(shop("db"), path="port again"),
    )
    assert [each.ref.rule for each in found] == [
        "port",
        "port again",
        "protocol",
        "label",
        "kind",
        "two labels",
    ]
    assert [len(each.unmet) for each in found] == [1, 1, 1, 1, 1, 3]


def test_of_several_peers_the_nearest_counts() -> None:
    (found,) = misses(ingress(shop("cache", "bank"), EntityPeer("host"), shop("cache")), packet=(6, 80))
    assert [each.condition for each in found.unmet] == [Condition.LABEL]
    assert len(found.mended.peers) == 3


def test_where_a_deny_decides_no_allow_is_near() -> None:
    deny = replace(ingress(AnyPeer()), deny=True, path="spec.ingressDeny[0]")
    assert misses(deny, ingress(shop("cache")), packet=(6, 80)) == ()
    assert [each.ref.rule for each in misses(deny, ingress(shop("cache")), packet=(6, 81))] == [
        "spec.ingress[0]"
    ]


def test_nothing_is_near_what_passes_or_is_not_known() -> None:
    assert misses(ingress(shop("db")), packet=(6, 80)) == ()
    assert misses(ingress(shop("db")), peer=999) == ()


def test_names_and_nodes_are_named_as_such() -> None:
    """Both are egress or ingress alike here: the engine does not care."""
    (name,) = misses(ingress(NamePeer(NameMatch("*.a.io", True)), ports=ALL_PORTS), peer=OUTSIDE)
    assert "the DNS name (it wants addresses of names like *.a.io, the peer is 10.1.0.0/16" in str(name)
    (node,) = misses(ingress(NodePeer(Selector((equals("any", "disk", "ssd"),))), ports=ALL_PORTS), peer=6)
    assert str(node).endswith("the label (it wants disk=ssd, the peer has no disk)")
    (pod,) = misses(ingress(NodePeer(Selector()), ports=ALL_PORTS), peer=DB)
    assert str(pod).endswith("the kind of peer (it wants other nodes with *, the peer is a pod)")


# ---- the mend ----------------------------------------------------------------------------------

SCENARIOS, PACKETS = 40, 25


def test_why_and_the_naive_judge_agree_and_every_mend_lets_the_packet_pass() -> None:
    rng = random.Random(20261127)
    seen: Counter[Condition] = Counter()
    far = 0
    for _ in range(SCENARIOS):
        scenario = some_scenario(rng)
        engine, world = scenario.engine(rng), scenario.world()
        engine.changes()
        peers, subjects = list(scenario.peers(engine)), sorted(scenario.subjects)
        for _ in range(PACKETS):
            subject, direction = rng.choice(subjects), rng.choice(list(Direction))
            number, party = rng.choice(peers)
            protocol, port = some_packet(rng)
            wanted, refs = decide(world, scenario.party(subject), direction, party, protocol, port)
            explained = why(engine, subject, direction, number, protocol, port)
            assert explained.decision.outcome is wanted
            assert set(explained.refs) == refs
            found = nearest(engine, subject, direction, number, protocol, port, party.address)
            if wanted is not Outcome.DEFAULT_DENIED:
                assert not found
                continue
            for miss in dict.fromkeys((*found[:1], *found[-1:])):
                seen.update(each.condition for each in miss.unmet)
                far = max(far, len(miss.unmet))
                other = scenario.mended(miss)
                again = other.engine()
                again.changes()
                peer = other.number(again, party, number)
                decision = evaluate(again.table, subject, direction, peer, protocol, port)
                assert decision.allowed, (str(miss), miss.mended, protocol, port)
                assert miss.ref in {ref for rule in decision.rules for ref in again.rules(rule)}, str(miss)
                after, _ = decide(other.world(), other.party(subject), direction, party, protocol, port)
                assert after is Outcome.ALLOWED
    assert seen.keys() == set(Condition) - {Condition.NAME}, "the scenarios meet every kind of condition"
    assert far > 2
