"""Explanations: each policy's part in a verdict, and the near misses."""

from __future__ import annotations

from ipaddress import ip_network

from axoneme.model.labels import Labels, Selector, equals
from axoneme.model.policy import (
    ALL_PORTS,
    CIDRPeer,
    Direction,
    EntityPeer,
    LabelPeer,
    Policy,
    PolicyRef,
    PortRange,
    Protocol,
    Rule,
)
from axoneme.policy.engine import PolicyEngine, PolicyKey
from axoneme.policy.explain import Explanation, why
from axoneme.policy.lookup import Outcome

WEB, DB, OUTSIDE = 300, 301, 1 << 24
DBS = LabelPeer(Selector((equals("any", "app", "db"),)))
RANGE = CIDRPeer(ip_network("10.0.0.0/8"), (ip_network("10.1.0.0/16"),))


def told(peer: int, port: int, *rules: Rule, protocol: int = 6) -> Explanation:
    engine = PolicyEngine()
    engine.upsert_identity(WEB, Labels.parse(["k8s:app=web"]))
    engine.upsert_identity(DB, Labels.parse(["k8s:app=db"]))
    engine.upsert_cidr_identity(OUTSIDE, ip_network("10.0.0.0/8"))
    engine.add_subject(WEB)
    if rules:
        ref, subject = PolicyRef("CiliumNetworkPolicy", "shop", "a"), Selector((equals("any", "app", "web"),))
        policy = Policy(ref, subject, rules, frozenset({Direction.EGRESS}))
        engine.upsert_policy(PolicyKey(ref.kind, ref.namespace, ref.name), (policy,))
    engine.changes()
    return why(engine, WEB, Direction.EGRESS, peer, protocol, port)


def egress(
    peer: LabelPeer | CIDRPeer | EntityPeer, *ports: PortRange, deny: bool = False, path: str = "r"
) -> Rule:
    return Rule(Direction.EGRESS, (peer,), ports or ALL_PORTS, deny, path)


def test_an_allow_names_its_rule_its_selector_and_its_port() -> None:
    http = PortRange(Protocol.TCP, 80, 81)
    found = told(DB, 80, egress(DBS, http, path="spec.egress[0]"))
    assert found.decision.allowed and found.enforced
    (policy,) = found.policies
    assert policy.selector == "app=web" and policy.default_deny
    (rule,) = policy.rules
    assert (rule.peer, rule.ports, rule.applies) == ("app=db", (http,), True)
    assert found.refs == (rule.ref,) == (PolicyRef("CiliumNetworkPolicy", "shop", "a", "spec.egress[0]"),)


def test_a_near_miss_is_told_from_a_rule_about_somebody_else() -> None:
    found = told(DB, 443, egress(DBS, PortRange(Protocol.TCP, 80, 80)), egress(RANGE, path="s"))
    assert found.decision.outcome is Outcome.DEFAULT_DENIED and found.refs == () and found.deciding == ()
    near, far = found.rules
    assert near.missed_by_port and not near.applies
    assert far.peer is None and not far.missed_by_port


def test_a_deny_is_blamed_alone() -> None:
    found = told(OUTSIDE, 80, egress(EntityPeer("all"), path="allow"), egress(RANGE, deny=True, path="deny"))
    assert found.decision.outcome is Outcome.DENIED
    assert [ref.rule for ref in found.refs] == ["deny"]
    assert [rule.peer for rule in found.rules] == ["every peer", "10.0.0.0/8 except 10.1.0.0/16"]
    assert [rule.ref.rule for rule in found.deciding] == ["deny"]


def test_an_open_direction_is_nobodys_doing() -> None:
    found = told(DB, 8, protocol=1)
    assert found.decision.allowed and not found.enforced and not found.policies and not found.refs
    assert found.decision.own is None and found.decision.every is not None


def test_it_says_what_it_does_not_know() -> None:
    found = told(999, 80, egress(DBS))
    assert found.subject_known and not found.peer_known
    assert found.subject_labels.texts() == ["k8s:app=web"] and len(found.peer_labels) == 0
