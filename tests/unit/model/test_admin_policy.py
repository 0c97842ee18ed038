"""AdminNetworkPolicy and BaselineAdminNetworkPolicy: what is read, what is refused and how."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from axoneme.model.l7 import NameMatch
from axoneme.model.paths import ManifestError
from axoneme.model.policies import parse_policy
from axoneme.model.policy import (
    ALL_PORTS,
    AnyPeer,
    CIDRPeer,
    Direction,
    EntityPeer,
    LabelPeer,
    NamedPort,
    NamePeer,
    NodePeer,
    Policy,
    PortRange,
    Protocol,
    Tier,
)

EVERYWHERE = {"namespaces": {}}


def admin(egress: Any = (), *, kind: str = "AdminNetworkPolicy", **spec: Any) -> dict[str, Any]:
    more = {"priority": 7} if kind == "AdminNetworkPolicy" else {}
    return {
        "apiVersion": "policy.networking.k8s.io/v1alpha1",
        "kind": kind,
        "metadata": {"name": "default"},
        "spec": {**more, "subject": EVERYWHERE, "egress": list(egress), **spec},
    }


def rule(*peers: Any, action: str = "Deny", **more: Any) -> dict[str, Any]:
    return {"action": action, "to": list(peers), **more}


def parse(object: dict[str, Any]) -> Policy:
    (policy,) = parse_policy(object)
    return policy


def test_rules_keep_their_order_and_the_policy_its_priority() -> None:
    policy = parse(
        admin([rule(EVERYWHERE, action="Allow"), rule(EVERYWHERE, action="Pass"), rule(EVERYWHERE)])
    )
    assert (policy.tier, policy.priority) == (Tier.ADMIN, 7)
    assert [(r.deny, r.passes, r.order, r.path) for r in policy.rules] == [
        (False, False, 0, "spec.egress[0]"),
        (False, True, 1, "spec.egress[1]"),
        (True, False, 2, "spec.egress[2]"),
    ]
    assert policy.rules[0].ports == ALL_PORTS
    assert not policy.default_deny


@pytest.mark.parametrize("kind", ["AdminNetworkPolicy", "BaselineAdminNetworkPolicy"])
def test_a_policy_can_be_only_tried(kind: str) -> None:
    object = admin([rule(EVERYWHERE)], kind=kind)
    assert not parse_policy(object)[0].audit
    object["metadata"]["annotations"] = {"axoneme.io/audit": "true"}
    assert parse_policy(object)[0].audit
    object["metadata"]["annotations"] = {"axoneme.io/audit": "yes"}
    with pytest.raises(ManifestError, match=r"axoneme\.io/audit"):
        parse_policy(object)


def test_a_selector_of_everything_means_pods_only() -> None:
    policy = parse(admin([rule(EVERYWHERE)]))
    assert "io.kubernetes.pod.namespace" in str(policy.subject)
    (peer,) = policy.rules[0].peers
    assert isinstance(peer, LabelPeer) and "io.kubernetes.pod.namespace" in str(peer.selector)


def test_namespaces_and_pods_are_selected_by_their_own_labels() -> None:
    chosen = {
        "namespaceSelector": {"matchLabels": {"team": "a"}},
        "podSelector": {"matchLabels": {"app": "b"}},
    }
    policy = parse(admin([rule({"pods": chosen})], subject={"pods": chosen}))
    (peer,) = policy.rules[0].peers
    for selector in (policy.subject, peer.selector):  # type: ignore[union-attr]
        assert "k8s:io.cilium.k8s.namespace.labels.team=a" in str(selector)
        assert "k8s:app=b" in str(selector)


def test_ports_of_three_kinds() -> None:
    ports = [
        {"portNumber": {"port": 80}},
        {"portRange": {"protocol": "UDP", "start": 1, "end": 65535}},
        {"namedPort": "web"},
    ]
    assert parse(admin([rule(EVERYWHERE, ports=ports)])).rules[0].ports == (
        PortRange(Protocol.TCP, 80, 80),
        PortRange(Protocol.UDP, 1, 65535),
        NamedPort(Protocol.ANY, "web"),
    )


def test_networks_mean_what_is_outside_and_whole_address_spaces_the_cluster_too() -> None:
    some = CIDRPeer(ip_network("192.0.2.0/24"))
    assert parse(admin([rule({"networks": ["192.0.2.0/24"]})])).rules[0].peers == (some,)
    whole = CIDRPeer(ip_network("0.0.0.0/0"))
    assert parse(admin([rule({"networks": ["0.0.0.0/0"]})])).rules[0].peers == (whole, EntityPeer("cluster"))
    allow = rule({"networks": ["0.0.0.0/0"]}, action="Allow")
    assert parse(admin([allow])).rules[0].peers == (whole,)
    assert parse(admin([rule({"networks": ["0.0.0.0/0", "::/0"]})])).rules[0].peers == (AnyPeer(),)


def test_nodes_mean_this_node_too_and_domains_any_depth() -> None:
    chosen = rule(
        {"nodes": {"matchLabels": {"pool": "a"}}}, {"domainNames": ["*.Example.org.", "a.io"]}, action="Allow"
    )
    other, own, deep, plain = parse(admin([chosen])).rules[0].peers
    assert isinstance(other, NodePeer) and str(other.selector) == "node:pool=a"
    assert isinstance(own, LabelPeer) and "reserved:host" in str(own.selector)
    assert deep == NamePeer(NameMatch("**.example.org", pattern=True))
    assert plain == NamePeer(NameMatch("a.io"))


def test_a_baseline_has_one_name_and_no_priority() -> None:
    ingress = [{"action": "Allow", "from": [EVERYWHERE]}]
    policy = parse(admin(kind="BaselineAdminNetworkPolicy", ingress=ingress))
    assert (policy.tier, policy.rules[0].direction) == (Tier.BASELINE, Direction.INGRESS)
    other = admin(kind="BaselineAdminNetworkPolicy")
    other["metadata"]["name"] = "other"
    with pytest.raises(ManifestError, match=r"metadata.name: found \"other\""):
        parse(other)


BASELINE = "BaselineAdminNetworkPolicy"
TWO = {"namespaces": {}, "pods": {"namespaceSelector": {}, "podSelector": {}}}
REFUSED: list[tuple[dict[str, Any], str]] = [
    (admin(priority=1001), "spec.priority: found 1001"),
    (admin(priority="1"), "spec.priority"),
    (admin(priority=None), "spec.priority"),
    (admin(kind=BASELINE, priority=1), "spec.priority"),
    (admin(subject=None), "spec.subject"),
    (admin(subject={}), "spec.subject: found an empty mapping; exactly one of namespaces, pods"),
    (admin(subject=TWO), "spec.subject: found a mapping"),
    (admin(subject={"pods": {"podSelector": {}}}), "spec.subject.pods.namespaceSelector"),
    (admin(subject={"namespaces": None}), "spec.subject.namespaces: found null"),
    (admin([{"to": [EVERYWHERE]}]), "spec.egress[0].action"),
    (admin([rule(EVERYWHERE, action="Log")]), 'spec.egress[0].action: found "Log"'),
    (admin([rule(EVERYWHERE, action="Pass")], kind=BASELINE), "must be one of Allow, Deny"),
    (admin([rule()]), "spec.egress[0].to: found an empty list"),
    (admin([{"action": "Deny"}]), "spec.egress[0].to"),
    (admin([rule({})]), "spec.egress[0].to[0]"),
    (admin([rule(EVERYWHERE, ports=[])]), "spec.egress[0].ports: found an empty list"),
    (admin([rule(EVERYWHERE, ports=None)]), "spec.egress[0].ports: found null"),
    (admin([rule(EVERYWHERE, ports=[{"portNumber": {"port": 0}}])]), "ports[0].portNumber.port: found 0"),
    (admin([rule(EVERYWHERE, ports=[{"portNumber": {"protocol": "ICMP", "port": 1}}])]), "protocol"),
    (admin([rule(EVERYWHERE, ports=[{"portRange": {"start": 9, "end": 8}}])]), "portRange.end: found 8"),
    (admin([rule({"networks": ["192.0.2.1/33"]})]), "networks[0]"),
    (admin([rule({"networks": []})]), "networks"),
    (admin([rule({"domainNames": ["a.io"]})]), "only an Allow can name domains"),
    (admin([rule({"domainNames": ["*.*.io"]}, action="Allow")]), "domainNames[0]"),
    (admin([rule({"nodes": {}}, ports=[{"namedPort": "web"}])]), "only pods name their ports"),
    (admin([rule({"networks": ["::/0"]}, ports=[{"namedPort": "web"}])]), "only pods name their ports"),
    (
        admin(ingress=[{"action": "Deny", "from": [{"networks": ["::/0"]}]}]),
        "spec.ingress[0].from[0].networks",
    ),
    (admin([rule(EVERYWHERE)] * 101), "at most 100"),
    (admin([rule(EVERYWHERE, name="n" * 101)]), "spec.egress[0].name"),
    (admin(rules=[]), "spec.rules"),
]


@pytest.mark.parametrize(("object", "says"), REFUSED, ids=[says for _, says in REFUSED])
def test_what_cannot_be_taken_is_refused_by_name(object: dict[str, Any], says: str) -> None:
    with pytest.raises(ManifestError) as refusal:
        parse(object)
    assert says in str(refusal.value)
    assert str(refusal.value).startswith(object["kind"])
