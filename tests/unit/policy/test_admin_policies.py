"""The published cases of admin network policies, by the compiled table and by the naive judge."""

from __future__ import annotations

from itertools import count

import pytest

from axoneme.identity.labels import pod_labels
from axoneme.model.policies import parse_policy
from axoneme.model.policy import Direction, Policy, Protocol
from axoneme.policy.engine import PolicyEngine, PolicyKey
from axoneme.policy.explain import why
from axoneme.policy.lookup import Outcome, evaluate
from oracle.adminpolicies import CASES, NAMESPACES, Case, Object
from oracle.policy import Party, World, decide

LABELS = {
    namespace: pod_labels({"app": "head"}, namespace=namespace, cluster="default") for namespace in NAMESPACES
}
NUMBERS = dict(zip(NAMESPACES, count(256), strict=False))


def parsed(objects: tuple[Object, ...]) -> dict[PolicyKey, tuple[Policy, ...]]:
    return {
        PolicyKey(
            each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"]
        ): parse_policy(each)
        for each in objects
    }


def engine_of(case: Case) -> PolicyEngine:
    engine = PolicyEngine()
    for namespace, number in NUMBERS.items():
        engine.upsert_identity(number, LABELS[namespace])
        engine.add_subject(number)
    for key, policies in parsed(case.policies).items():
        engine.upsert_policy(key, policies)
    engine.changes()
    return engine


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_who_reaches_whom_and_by_which_policy(case: Case) -> None:
    engine, policies = engine_of(case), [each for some in parsed(case.policies).values() for each in some]
    for each in case.tries:
        sides = {
            (each.source, Direction.EGRESS, each.destination),
            (each.destination, Direction.INGRESS, each.source),
        }
        refs = set()
        allowed = True
        for subject, direction, peer in sides:
            packet = int(Protocol[each.protocol]), each.port
            found = evaluate(engine.table, NUMBERS[subject], direction, NUMBERS[peer], *packet)
            named = frozenset(ref for rule in found.rules for ref in engine.rules(rule))
            judged = decide(World(policies), Party(LABELS[subject]), direction, Party(LABELS[peer]), *packet)
            assert (found.outcome, named) == judged, each
            assert why(engine, NUMBERS[subject], direction, NUMBERS[peer], *packet).refs == tuple(
                sorted(named)
            )
            allowed = allowed and found.allowed
            refs |= named
        assert allowed is each.allowed, each
        assert {f"{ref.kind} {ref.namespace}/{ref.name}".replace(" /", " ") for ref in refs} == (
            {each.by} if each.by else set()
        ), each


def test_a_change_of_priority_is_a_change_of_the_table() -> None:
    late, early = (
        next(case for case in CASES if case.name == f"a pass with {how} priority than a deny")
        for how in ("less", "more")
    )
    engine = engine_of(late)
    probe = (NUMBERS["north"], Direction.EGRESS, NUMBERS["south"], 6, 80)
    assert evaluate(engine.table, *probe).outcome is Outcome.DENIED
    engine.upsert_policy(PolicyKey("AdminNetworkPolicy", "", "pass"), parse_policy(early.policies[-1]))
    assert engine.changes().changed == {NUMBERS["north"]}
    assert evaluate(engine.table, *probe).outcome is Outcome.ALLOWED


def test_without_layered_rules_no_entry_is_complete() -> None:
    case = next(case for case in CASES if case.name == "an admin's deny over a NetworkPolicy")
    engine = engine_of(Case("", case.policies[1:2]))
    assert engine.table and not any(value.complete for value in engine.table.values())
    engine.upsert_policy(PolicyKey("AdminNetworkPolicy", "", "rules"), parse_policy(case.policies[0]))
    engine.changes()
    assert {key.subject for key, value in engine.table.items() if value.complete} == {NUMBERS["north"]}
    engine.remove_policy(PolicyKey("AdminNetworkPolicy", "", "rules"))
    engine.changes()
    assert not any(value.complete for value in engine.table.values())


def test_a_pod_that_has_policies_only_tried_does_not_get_rid_of_an_admins() -> None:
    pods = {"podSelector": {}, "namespaceSelector": {}}
    rule = {
        "action": "Deny",
        "from": [{"namespaces": {}}],
        "ports": [{"portNumber": {"port": 22, "protocol": "TCP"}}],
    }
    admin = {"kind": "AdminNetworkPolicy", "metadata": {"name": "no-ssh"}}
    admin["spec"] = {"priority": 1, "subject": {"pods": pods}, "ingress": [rule]}
    closed = {"kind": "NetworkPolicy", "metadata": {"name": "closed", "namespace": NAMESPACES[0]}}
    closed["spec"] = {"podSelector": {}, "policyTypes": ["Ingress"]}
    engine = PolicyEngine()
    subject, peer = (NUMBERS[name] for name in NAMESPACES[:2])
    for namespace in NAMESPACES[:2]:
        engine.upsert_identity(NUMBERS[namespace], LABELS[namespace])
    engine.add_subject(subject)
    engine.set_audited(subject, True)
    for key, policies in parsed((admin, closed)).items():
        engine.upsert_policy(key, policies)
    engine.changes()
    ssh, web = (evaluate(engine.table, subject, Direction.INGRESS, peer, 6, port) for port in (22, 80))
    assert ssh.outcome is Outcome.DENIED and web.allowed and web.audited
    assert [ref.name for ref in why(engine, subject, Direction.INGRESS, peer, 6, 22).refs] == ["no-ssh"]
