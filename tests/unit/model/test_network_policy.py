"""NetworkPolicy: what is absent, empty and null, and whom selectors mean."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from axoneme.model.paths import ManifestError
from axoneme.model.policy import (
    ALL_PORTS,
    AnyPeer,
    CIDRPeer,
    Direction,
    NamedPort,
    Port,
    PortRange,
    Protocol,
)

from .given import network_policy, only_rule, parsed, selectors

IN, OUT = Direction.INGRESS, Direction.EGRESS
OWN = "k8s:io.kubernetes.pod.namespace=shop"
POD = "k8s:io.kubernetes.pod.namespace"
ALL_TCP = PortRange(Protocol.TCP)


@pytest.mark.parametrize(
    ("spec", "closed", "rules"),
    [
        ({}, {IN}, 0),
        ({"ingress": []}, {IN}, 0),
        ({"ingress": None}, {IN}, 0),
        ({"ingress": [{}]}, {IN}, 1),
        ({"policyTypes": []}, {IN}, 0),
        ({"egress": []}, {IN, OUT}, 0),
        ({"egress": [{}]}, {IN, OUT}, 1),
        ({"policyTypes": ["Egress"]}, {OUT}, 0),
        ({"policyTypes": ["Egress"], "ingress": [{}], "egress": [{}]}, {OUT}, 1),
        ({"policyTypes": ["Ingress"], "egress": [{}]}, {IN}, 0),
        ({"policyTypes": ["Ingress", "Egress"]}, {IN, OUT}, 0),
    ],
)
def test_which_directions_are_closed(spec: dict[str, object], closed: set[Direction], rules: int) -> None:
    policy = parsed(network_policy(**spec))
    assert (set(policy.default_deny), len(policy.rules)) == (closed, rules)


@pytest.mark.parametrize("rule", [{}, {"from": []}, {"ports": []}, {"from": [], "ports": []}])
def test_an_empty_rule_allows_everything(rule: dict[str, object]) -> None:
    found = only_rule(network_policy(ingress=[rule]))
    assert (found.peers, found.ports) == ((AnyPeer(),), ALL_PORTS)


@pytest.mark.parametrize(
    ("peer", "selector"),
    [
        ({"podSelector": {}}, OWN),
        ({"podSelector": {"matchLabels": {"app": "web"}}}, f"k8s:app=web,{OWN}"),
        ({"namespaceSelector": {}}, POD),
        (
            {"namespaceSelector": {"matchLabels": {"team": "a"}}, "podSelector": {}},
            f"k8s:io.cilium.k8s.namespace.labels.team=a,{POD}",
        ),
        (
            {"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]}},
            f"!k8s:io.cilium.k8s.namespace.labels.team,{POD}",
        ),
        (
            {"podSelector": {"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["y", "x"]}]}},
            f"k8s:a notin (x, y),{OWN}",
        ),
        ({"podSelector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}}, f"k8s:a,{OWN}"),
    ],
)
def test_whom_a_peer_means(peer: dict[str, object], selector: str) -> None:
    assert selectors(only_rule(network_policy(ingress=[{"from": [peer]}]))) == [selector]


def test_two_items_are_two_peers() -> None:
    rule = only_rule(network_policy(egress=[{"to": [{"podSelector": {}}, {"namespaceSelector": {}}]}]))
    assert selectors(rule) == [OWN, POD]


def test_peers_are_of_the_own_cluster_when_it_has_a_name() -> None:
    policy = parsed(network_policy(ingress=[{"from": [{"podSelector": {}}]}]), "north")
    assert selectors(policy.rules[0]) == [f"k8s:io.cilium.k8s.policy.cluster=north,{OWN}"]
    assert str(policy.subject) == OWN


def test_address_ranges() -> None:
    block = {"cidr": "10.1.2.3/8", "except": ["10.1.0.0/16"]}
    assert only_rule(network_policy(egress=[{"to": [{"ipBlock": block}]}])).peers == (
        CIDRPeer(ip_network("10.0.0.0/8"), (ip_network("10.1.0.0/16"),)),
    )


@pytest.mark.parametrize(
    ("port", "expected"),
    [
        ({}, ALL_TCP),
        ({"protocol": "SCTP"}, PortRange(Protocol.SCTP)),
        ({"port": 80}, PortRange(Protocol.TCP, 80, 80)),
        ({"port": 80, "endPort": 80}, PortRange(Protocol.TCP, 80, 80)),
        ({"port": 1, "endPort": 65535, "protocol": "UDP"}, PortRange(Protocol.UDP, 1, 65535)),
        ({"port": "http"}, NamedPort(Protocol.TCP, "http")),
        ({"port": "dns", "protocol": "UDP", "endPort": 9}, NamedPort(Protocol.UDP, "dns")),
    ],
)
def test_which_ports_are_meant(port: dict[str, object], expected: Port) -> None:
    assert only_rule(network_policy(ingress=[{"ports": [port]}])).ports == (expected,)


def test_an_absent_pod_selector_selects_every_pod() -> None:
    object = network_policy()
    del object["spec"]["podSelector"]
    assert str(parsed(object).subject) == OWN


@pytest.mark.parametrize(
    ("spec", "path", "remedy"),
    [
        ({"ingres": []}, "spec.ingres", "is it ingress?"),
        ({"podSelector": None}, "spec.podSelector", "leave the field away, or fill it"),
        ({"podSelector": {"matchLabel": {}}}, "spec.podSelector.matchLabel", "is it matchLabels?"),
        ({"policyTypes": ["ingress"]}, "spec.policyTypes[0]", "is it Ingress?"),
        ({"policyTypes": None}, "spec.policyTypes", "leave the field away, or fill it"),
        ({"egress": None}, "spec.egress", "leave the field away, or fill it"),
        ({"ingress": {}}, "spec.ingress", "a list belongs here"),
        ({"ingress": [None]}, "spec.ingress[0]", "cannot be empty"),
        ({"ingress": [{"to": []}]}, "spec.ingress[0].to", "known are from, ports"),
        ({"ingress": [{"from": None}]}, "spec.ingress[0].from", "leave the field away, or fill it"),
        ({"ingress": [{"ports": None}]}, "spec.ingress[0].ports", "leave the field away, or fill it"),
        ({"ingress": [{"from": [{}]}]}, "spec.ingress[0].from[0]", "a peer needs podSelector"),
        (
            {"ingress": [{"from": [{"ipBlock": {"cidr": "::/0"}, "podSelector": {}}]}]},
            "spec.ingress[0].from[0].ipBlock",
            "make them two items",
        ),
        (
            {"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0"}}]}]},
            "spec.ingress[0].from[0].ipBlock.cidr",
            "an address range like 10.0.0.0/8",
        ),
        (
            {"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}}]}]},
            "spec.ingress[0].from[0].ipBlock.except[0]",
            "a smaller range inside 10.0.0.0/8",
        ),
        (
            {"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["::/1"]}}]}]},
            "spec.ingress[0].from[0].ipBlock.except[0]",
            "a smaller range inside 10.0.0.0/8",
        ),
        ({"ingress": [{"ports": [{"port": 0}]}]}, "spec.ingress[0].ports[0].port", "from 1 to 65535"),
        ({"ingress": [{"ports": [{"port": True}]}]}, "spec.ingress[0].ports[0].port", "from 1 to 65535"),
        ({"ingress": [{"ports": [{"port": "80"}]}]}, "spec.ingress[0].ports[0].port", "without quotes: 80"),
        (
            {"ingress": [{"ports": [{"port": 80, "endPort": 79}]}]},
            "spec.ingress[0].ports[0].endPort",
            "a number from 80 to 65535",
        ),
        ({"ingress": [{"ports": [{"endPort": 79}]}]}, "spec.ingress[0].ports[0].endPort", "needs a port"),
        (
            {"ingress": [{"ports": [{"port": 1, "protocol": "ICMP"}]}]},
            "spec.ingress[0].ports[0].protocol",
            "one of TCP, UDP, SCTP",
        ),
        (
            {"podSelector": {"matchExpressions": [{"key": "a", "operator": "In", "values": []}]}},
            "spec.podSelector.matchExpressions[0].values",
            "In needs at least one value",
        ),
        (
            {"podSelector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}},
            "spec.podSelector.matchExpressions[0].values",
            "Exists takes no values",
        ),
        ({"podSelector": {"matchLabels": {"a": 1}}}, "spec.podSelector.matchLabels.a", 'in quotes, "1"'),
        (
            {"podSelector": {"matchLabels": {"k8s:a": "b"}}},
            'spec.podSelector.matchLabels["k8s:a"]',
            "[prefix/]",
        ),
    ],
)
def test_what_is_refused(spec: dict[str, object], path: str, remedy: str) -> None:
    with pytest.raises(ManifestError) as caught:
        parsed(network_policy(**spec))
    assert caught.value.path == path
    assert remedy in caught.value.right
    assert str(caught.value).startswith("NetworkPolicy shop/p: ")


def test_a_misspelt_namespace_does_not_move_the_policy() -> None:
    object = network_policy()
    object["metadata"] = {"name": "p", "nameSpace": "shop"}
    with pytest.raises(ManifestError, match="is it namespace"):
        parsed(object)
