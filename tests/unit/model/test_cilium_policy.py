"""CiliumNetworkPolicy and its cluster-wide kind: what is absent and empty, and whom selectors mean."""

from __future__ import annotations

import pytest

from axoneme.model.paths import ManifestError
from axoneme.model.policies import parse_policy
from axoneme.model.policy import (
    ALL_PORTS,
    AnyPeer,
    Direction,
    EntityPeer,
    NamedPort,
    Peer,
    Port,
    PortRange,
    Protocol,
)

from .given import Object, cilium, clusterwide, only_rule, parsed, selectors

IN, OUT = Direction.INGRESS, Direction.EGRESS
ANYBODY: tuple[Peer, ...] = (AnyPeer(),)
NOBODY: tuple[Peer, ...] = ()
HTTP = [{"ports": [{"port": "80", "protocol": "TCP"}]}]
TCP_80 = (PortRange(Protocol.TCP, 80, 80),)
OWN = "k8s:io.kubernetes.pod.namespace=shop"
POD = "k8s:io.kubernetes.pod.namespace"
L4 = (Protocol.TCP, Protocol.UDP, Protocol.SCTP)


# ---- absent and empty --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "peers", "ports"),
    [
        ({}, NOBODY, ALL_PORTS),
        ({"toPorts": []}, NOBODY, ALL_PORTS),
        ({"icmps": []}, NOBODY, ALL_PORTS),
        ({"fromEndpoints": []}, NOBODY, ALL_PORTS),
        ({"fromEndpoints": [], "toPorts": HTTP}, NOBODY, TCP_80),
        ({"fromCIDR": [], "toPorts": HTTP}, NOBODY, TCP_80),
        ({"fromCIDRSet": [], "toPorts": HTTP}, NOBODY, TCP_80),
        ({"fromEntities": [], "toPorts": HTTP}, NOBODY, TCP_80),
        ({"fromNodes": [], "toPorts": HTTP}, NOBODY, TCP_80),
        ({"fromRequires": [], "toPorts": HTTP}, ANYBODY, TCP_80),
        ({"toPorts": HTTP}, ANYBODY, TCP_80),
        ({"toPorts": [{}]}, ANYBODY, ()),
        ({"toPorts": [{"ports": []}]}, ANYBODY, ()),
        ({"icmps": [{}]}, ANYBODY, ()),
        ({"fromEntities": ["all"]}, (EntityPeer("all"),), ALL_PORTS),
        ({"fromEntities": ["none"], "toPorts": []}, (EntityPeer("none"),), ALL_PORTS),
        ({"fromEntities": ["all", "all"], "toPorts": HTTP}, (EntityPeer("all"),), TCP_80),
        ({"toPorts": [{**HTTP[0], "rules": {"http": []}}]}, ANYBODY, TCP_80),
        ({"toPorts": [{**HTTP[0], "rules": {}}]}, ANYBODY, TCP_80),
        ({"toPorts": HTTP, "authentication": {"mode": "disabled"}}, ANYBODY, TCP_80),
    ],
)
def test_what_a_rule_covers(
    rule: dict[str, object], peers: tuple[Peer, ...], ports: tuple[Port, ...]
) -> None:
    policy = parsed(cilium(ingress=[rule]))
    assert (policy.rules[0].peers, policy.rules[0].ports) == (peers, ports)
    assert policy.default_deny == {IN}


@pytest.mark.parametrize("member", ["toFQDNs", "toServices", "toCIDR", "toEndpoints"])
def test_an_empty_member_is_nobody_and_never_everybody(member: str) -> None:
    rule = only_rule(cilium(egress=[{member: [], "toPorts": HTTP}]))
    assert (rule.peers, rule.ports) == (NOBODY, TCP_80)


@pytest.mark.parametrize(
    ("spec", "closed"),
    [
        ({"ingress": [{}]}, {IN}),
        ({"ingress": [{}], "egress": []}, {IN}),
        ({"egress": [{}]}, {OUT}),
        ({"ingressDeny": [{"fromEntities": ["world"]}]}, {IN}),
        ({"egressDeny": [{}]}, {OUT}),
        ({"ingress": [{}], "egressDeny": [{}]}, {IN, OUT}),
        ({"ingress": [{}], "enableDefaultDeny": {}}, {IN}),
        ({"ingress": [{}], "enableDefaultDeny": {"egress": True}}, {IN, OUT}),
        ({"ingress": [{}], "egress": [{}], "enableDefaultDeny": {"egress": False}}, {IN}),
        ({"ingress": [{}], "enableDefaultDeny": {"ingress": False}}, set()),
    ],
)
def test_which_directions_are_closed(spec: dict[str, object], closed: set[Direction]) -> None:
    assert parsed(cilium(**spec)).default_deny == closed


def test_deny_rules_are_told_apart() -> None:
    policy = parsed(cilium(ingress=[{}], ingressDeny=[{}], egress=[{}], egressDeny=[{}]))
    assert [(rule.path, rule.direction, rule.deny) for rule in policy.rules] == [
        ("spec.ingress[0]", IN, False),
        ("spec.ingressDeny[0]", IN, True),
        ("spec.egress[0]", OUT, False),
        ("spec.egressDeny[0]", OUT, True),
    ]


def test_each_spec_is_a_policy_of_its_own() -> None:
    object = cilium(ingress=[{}])
    object["specs"] = [{"endpointSelector": {}, "egress": [{}]}, object["spec"]]
    first, second, third = parse_policy(object)
    assert [policy.rules[0].path for policy in (first, second, third)] == [
        "spec.ingress[0]",
        "specs[0].egress[0]",
        "specs[1].ingress[0]",
    ]
    assert first.ref == second.ref and second.default_deny == {OUT}


def test_what_people_note() -> None:
    labels = ["a", "k8s:b=c", {"key": "d", "source": "k8s", "value": "e"}]
    policy = parsed(cilium(ingress=[{}], labels=labels, description="why", log={"value": "look here"}))
    assert policy.labels == ("unspec:a", "k8s:b=c", "k8s:d=e")
    assert (policy.description, policy.log) == ("why", "look here")


# ---- whom selectors mean -----------------------------------------------------------------------


def expression(key: str, operator: str, *values: str) -> Object:
    return {
        "matchExpressions": [{"key": key, "operator": operator, **({"values": values} if values else {})}]
    }


NAMESPACED = [
    ({}, OWN),
    ({"matchLabels": {}}, OWN),
    ({"matchLabels": {"app": "web"}}, f"app=web,{OWN}"),
    ({"matchLabels": {"k8s:app": "web"}}, f"k8s:app=web,{OWN}"),
    ({"matchLabels": {POD: "other"}}, f"{POD}=other"),
    ({"matchLabels": {"io.kubernetes.pod.namespace": "other"}}, "io.kubernetes.pod.namespace=other"),
    (expression(POD, "Exists"), POD),
    (expression(POD, "In", "b", "a"), f"{POD} in (a, b)"),
    (expression(POD, "NotIn", "prod"), f"{POD},{POD} notin (prod)"),
    (expression("app", "DoesNotExist"), f"!app,{OWN}"),
    (
        {"matchLabels": {"io.cilium.k8s.namespace.labels.team": "a"}},
        f"io.cilium.k8s.namespace.labels.team=a,{POD}",
    ),
    (
        expression("k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name", "NotIn", "prod"),
        f"k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name notin (prod),{POD}",
    ),
    ({"matchLabels": {"reserved:host": ""}}, "reserved:host="),
]


@pytest.mark.parametrize(("selector", "meaning"), NAMESPACED)
def test_a_selector_means_the_policys_namespace_unless_it_names_one(selector: Object, meaning: str) -> None:
    assert selectors(only_rule(cilium(ingress=[{"fromEndpoints": [selector]}]))) == [meaning]


@pytest.mark.parametrize(("selector", "meaning"), NAMESPACED)
def test_a_clusterwide_selector_means_all_namespaces(selector: Object, meaning: str) -> None:
    rule = only_rule(clusterwide(egress=[{"toEndpoints": [selector]}]))
    assert selectors(rule) == [meaning.replace(OWN, POD)]


def test_peers_are_of_the_own_cluster_unless_the_selector_names_one() -> None:
    key = "k8s:io.cilium.k8s.policy.cluster"
    peers: list[Object] = [{}, {"matchLabels": {key: "south"}}, {"matchLabels": {"reserved:host": ""}}]
    rule = only_rule(cilium(ingress=[{"fromEndpoints": peers}]), "north")
    assert selectors(rule) == [f"{key}=north,{OWN}", f"{key}=south,{OWN}", "reserved:host="]


def test_pods_without_labels_yet_are_reached_by_clusterwide_policies_about_them() -> None:
    init = {"matchLabels": {"reserved:init": ""}}
    object = clusterwide(ingress=[{"fromEndpoints": [{}]}], endpointSelector=init)
    assert str(parsed(object).subject) == "reserved:init="
    assert selectors(only_rule(object)) == ["*"]


@pytest.mark.parametrize(
    ("selector", "meaning"),
    [
        ({}, OWN),
        ({"matchLabels": {"app": "web"}}, f"app=web,{OWN}"),
        ({"matchLabels": {POD: "shop"}}, OWN),
        (expression("a", "NotIn", "b"), f"a notin (b),{OWN}"),
    ],
)
def test_a_policy_selects_pods_of_its_namespace(selector: Object, meaning: str) -> None:
    assert str(parsed(cilium(endpointSelector=selector, ingress=[{}])).subject) == meaning


@pytest.mark.parametrize(("selector", "meaning"), [({}, "*"), ({"matchLabels": {"app": "web"}}, "app=web")])
def test_a_clusterwide_policy_selects_pods_of_all(selector: Object, meaning: str) -> None:
    assert str(parsed(clusterwide(endpointSelector=selector, ingress=[{}])).subject) == meaning


# ---- ports -------------------------------------------------------------------------------------


def each(first: int = 0, last: int = 65535) -> tuple[Port, ...]:
    return tuple(PortRange(protocol, first, last) for protocol in L4)


@pytest.mark.parametrize(
    ("port", "expected"),
    [
        ({"port": "80", "protocol": "TCP"}, TCP_80),
        ({"port": "80"}, each(80, 80)),
        ({"port": "80", "protocol": ""}, each(80, 80)),
        ({"port": "80", "protocol": "ANY"}, each(80, 80)),
        ({"port": "0"}, each()),
        ({"port": "0", "protocol": "UDP"}, (PortRange(Protocol.UDP),)),
        ({"protocol": "UDP"}, (PortRange(Protocol.UDP),)),
        ({}, each()),
        ({"port": "80", "endPort": 90, "protocol": "TCP"}, (PortRange(Protocol.TCP, 80, 90),)),
        ({"port": "80", "endPort": 70, "protocol": "TCP"}, TCP_80),
        ({"port": "80", "endPort": 0, "protocol": "TCP"}, TCP_80),
        ({"port": "http", "protocol": "TCP"}, (NamedPort(Protocol.TCP, "http"),)),
        ({"port": "HTTP"}, (NamedPort(Protocol.ANY, "http"),)),
        ({"port": "http", "endPort": 90}, (NamedPort(Protocol.ANY, "http"),)),
    ],
)
def test_which_ports_are_meant(port: Object, expected: tuple[Port, ...]) -> None:
    assert only_rule(cilium(ingress=[{"toPorts": [{"ports": [port]}]}])).ports == expected


@pytest.mark.parametrize(
    ("type_", "protocol", "number"),
    [
        ({"type": 8}, Protocol.ICMP, 8),
        ({"type": 0, "family": "IPv4"}, Protocol.ICMP, 0),
        ({"type": "EchoReply"}, Protocol.ICMP, 0),
        ({"type": "8"}, Protocol.ICMP, 8),
        ({"type": "EchoRequest", "family": "IPv6"}, Protocol.ICMPV6, 128),
        ({"type": 255, "family": "IPv6"}, Protocol.ICMPV6, 255),
    ],
)
def test_which_icmp_types_are_meant(type_: Object, protocol: Protocol, number: int) -> None:
    rule = only_rule(cilium(egress=[{"icmps": [{"fields": [type_]}]}]))
    assert (rule.peers, rule.ports) == (ANYBODY, (PortRange(protocol, number, number),))


# ---- refused -----------------------------------------------------------------------------------

UNCLEAR = "leave the field away, or fill it"
INGRESS: list[tuple[object, str, str]] = [
    ({"fromEndpoint": []}, ".fromEndpoint", "is it fromEndpoints?"),
    ({"toEndpoints": []}, ".toEndpoints", "there is no such field"),
    ({"fromEndpoints": None}, ".fromEndpoints", UNCLEAR),
    ({"fromEndpoints": [None]}, ".fromEndpoints[0]", "cannot be empty"),
    ({"toPorts": None}, ".toPorts", UNCLEAR),
    ({"fromEndpoints": [{}], "fromCIDR": ["10.0.0.0/8"]}, ".fromCIDR", "one kind of peers"),
    ({"fromEndpoints": [], "fromEntities": ["all"]}, ".fromEntities", "one kind of peers"),
    ({"fromEntities": ["World"]}, ".fromEntities[0]", "is it world?"),
    ({"fromCIDR": ["10.0.0.0/33"]}, ".fromCIDR[0]", "an address range like"),
    ({"fromCIDR": ["::ffff:10.0.0.0/104"]}, ".fromCIDR[0]", "an IPv4 range must be written as one"),
    ({"fromRequires": [{}]}, ".fromRequires", "the field was removed"),
    ({"fromNodes": [{"matchLabels": {"reserved:host": ""}}]}, ".fromNodes[0]", "only labels of the object"),
    ({"fromGroups": [{}]}, ".fromGroups[0]", "not supported yet"),
    (
        {"fromEndpoints": [{"matchLabels": {"app:x": "y"}}]},
        '.fromEndpoints[0].matchLabels["app:x"]',
        "source",
    ),
    (
        {"fromEndpoints": [{"matchLabels": {"reserved:hots": ""}}]},
        '.fromEndpoints[0].matchLabels["reserved:hots"]',
        "is it host?",
    ),
    ({"fromEndpoints": [{"matchLabels": {"cidr:10.0.0.0/8": ""}}]}, ".fromEndpoints[0]", "no pod has labels"),
    ({"fromEndpoints": [expression(POD, "DoesNotExist")]}, ".fromEndpoints[0]", "every pod has a namespace"),
    ({"fromEndpoints": [expression("reserved:host", "DoesNotExist")]}, ".fromEndpoints[0]", "name entities"),
    ({"authentication": {"mode": "always"}}, ".authentication.mode", "must be one of"),
    ({"authentication": {}}, ".authentication.mode", "required"),
    ({"toPorts": HTTP, "icmps": [{"fields": [{"type": 8}]}]}, ".icmps", "make two rules"),
    ({"icmps": [{"fields": [{"type": "Ping"}]}]}, ".icmps[0].fields[0].type", "must be one of EchoReply"),
    ({"icmps": [{"fields": [{"type": 256}]}]}, ".icmps[0].fields[0].type", "from 0 to 255"),
    ({"icmps": [{"fields": [{"family": "IPv6"}]}]}, ".icmps[0].fields[0].type", "by number or name"),
    ({"icmps": [{"fields": [{"type": 8, "code": 0}]}]}, ".icmps[0].fields[0].code", "no such field"),
]
PORTS: list[tuple[object, str, str]] = [
    ({"port": 80}, ".port", 'in quotes, "80"'),
    ({"port": None}, ".port", UNCLEAR),
    ({"port": ""}, ".port", 'from "0" to'),
    ({"port": "65536"}, ".port", 'from "0" to'),
    ({"port": "080"}, ".port", 'from "0" to'),
    ({"port": "-1"}, ".port", 'from "0" to'),
    ({"port": "much-too-long-name"}, ".port", 'from "0" to'),
    ({"port": "0", "endPort": 9}, ".endPort", "every port already"),
    ({"endPort": 9}, ".endPort", "needs a port"),
    ({"port": "80", "endPort": 65536}, ".endPort", "from 0 to 65535"),
    ({"port": "80", "endPort": "90"}, ".endPort", "a number"),
    ({"port": "80", "protocol": "tcp"}, ".protocol", "is it TCP?"),
    ({"port": "80", "protocol": None}, ".protocol", UNCLEAR),
    ({"port": "0", "protocol": "VRRP"}, ".protocol", "not supported yet"),
    ({"port": "8", "protocol": "ICMP"}, ".protocol", "under icmps"),
    ({"port": "80", "name": "x"}, ".name", "no such field"),
]


def refusal(object: Object) -> ManifestError:
    with pytest.raises(ManifestError) as caught:
        parsed(object)
    assert str(caught.value).startswith(caught.value.object) and caught.value.object.endswith("p")
    return caught.value


@pytest.mark.parametrize(("rule", "path", "remedy"), INGRESS)
def test_rules_that_are_refused(rule: object, path: str, remedy: str) -> None:
    error = refusal(cilium(ingress=[rule]))
    assert error.path == f"spec.ingress[0]{path}" and remedy in error.right


@pytest.mark.parametrize(("port", "path", "remedy"), PORTS)
def test_ports_that_are_refused(port: object, path: str, remedy: str) -> None:
    error = refusal(cilium(egress=[{"toPorts": [{"ports": [port]}]}]))
    assert error.path == f"spec.egress[0].toPorts[0].ports[0]{path}" and remedy in error.right


def test_null_above_ports_is_refused() -> None:
    error = refusal(cilium(egress=[{"toPorts": [{**HTTP[0], "rules": None}]}]))
    assert error.path == "spec.egress[0].toPorts[0].rules" and UNCLEAR in error.right


EGRESS: list[tuple[object, str, str]] = [
    ({"toFQDNs": [{}]}, ".toFQDNs[0]", "either matchName or matchPattern"),
    ({"toFQDNs": [{"matchName": "*.b"}]}, ".toFQDNs[0].matchName", "a DNS name of at most 255"),
    (
        {"toFQDNs": [{"matchName": "a.b"}], "toEntities": ["world"]},
        ".toFQDNs",
        "a rule has one kind of peers: put this beside toEntities",
    ),
    ({"toNodes": [{"matchLabels": {"k8s:a": "b"}}]}, ".toNodes[0]", "only labels of the object itself"),
    ({"toServices": [{}]}, ".toServices[0]", "either k8sService or k8sServiceSelector"),
    ({"toServices": [{"k8sService": {}}]}, ".toServices[0].k8sService.serviceName", "required"),
    ({"toCIDRSet": [{}]}, ".toCIDRSet[0]", "exactly one of cidr"),
    ({"toCIDRSet": [{"cidr": "10.0.0.1"}]}, ".toCIDRSet[0].cidr", "an address range like"),
    ({"toCIDRSet": [{"cidr": "10.0.0.0/8", "cidrGroupRef": "g"}]}, ".toCIDRSet[0]", "exactly one of cidr"),
    (
        {"toCIDRSet": [{"cidr": "10.0.0.0/8", "except": ["11.0.0.0/9"]}]},
        ".toCIDRSet[0].except[0]",
        "must lie inside 10.0.0.0/8",
    ),
    (
        {"toCIDRSet": [{"cidrGroupRef": "g", "except": ["11.0.0.0/9"]}]},
        ".toCIDRSet[0].except",
        "only a cidr can have excepts",
    ),
]


@pytest.mark.parametrize(("rule", "path", "remedy"), EGRESS)
def test_peers_of_egress_that_are_refused(rule: object, path: str, remedy: str) -> None:
    error = refusal(cilium(egress=[rule]))
    assert error.path == f"spec.egress[0]{path}" and remedy in error.right


@pytest.mark.parametrize(
    ("object", "path", "remedy"),
    [
        (cilium(), "spec", "at least one of ingress, ingressDeny, egress, egressDeny must hold a rule"),
        (cilium(egress=[]), "spec", "must hold a rule"),
        (cilium(ingress=None), "spec.ingress", UNCLEAR),
        (cilium(ingress=[{}], egressdeny=[]), "spec.egressdeny", "is it egressDeny?"),
        (cilium(endpointSelector=None, ingress=[{}]), "spec.endpointSelector", "says whom it selects"),
        (cilium(nodeSelector={}, ingress=[{}]), "spec.nodeSelector", "only a CiliumClusterwide"),
        (
            clusterwide(nodeSelector={}, ingress=[{}]),
            "spec.nodeSelector",
            "either for endpoints or for nodes",
        ),
        (
            cilium(endpointSelector={"matchLabels": {POD: "other"}}, ingress=[{}]),
            "spec.endpointSelector",
            "pods of its own namespace, shop",
        ),
        (
            cilium(endpointSelector={"matchLabels": {"reserved:health": ""}}, ingress=[{}]),
            "spec.endpointSelector",
            "CiliumClusterwideNetworkPolicy selects others",
        ),
        (
            clusterwide(endpointSelector={"matchLabels": {"reserved:host": ""}}, ingress=[{}]),
            "spec.endpointSelector",
            "only init, health, ingress stand on endpoints",
        ),
        (cilium(egressDeny=[{"toFQDNs": []}]), "spec.egressDeny[0].toFQDNs", "cannot have toFQDNs"),
        (
            cilium(egressDeny=[{"authentication": {"mode": "disabled"}}]),
            "spec.egressDeny[0].authentication",
            "cannot have authentication",
        ),
        (
            cilium(ingress=[{}], enableDefaultDeny={"ingress": None}),
            "spec.enableDefaultDeny.ingress",
            UNCLEAR,
        ),
        (cilium(ingress=[{}], enableDefaultDeny={"ingress": "no"}), "spec.enableDefaultDeny.ingress", "true"),
        (cilium(ingress=[{}], log={"value": "x" * 33}), "spec.log.value", "at most 32"),
        ({**cilium(ingress=[{}]), "spec": None}, "spec", UNCLEAR),
        ({**cilium(ingress=[{}]), "specs": [{}]}, "specs[0].endpointSelector", "says whom it selects"),
        ({**cilium(ingress=[{}]), "spec2": {}}, "spec2", "is it spec?"),
        ({**cilium(ingress=[{}]), "kind": "Pod"}, "kind", "CiliumNetworkPolicy"),
    ],
)
def test_policies_that_are_refused(object: Object, path: str, remedy: str) -> None:
    error = refusal(object)
    assert error.path == path and remedy in error.right


# ---- what is only tried ------------------------------------------------------------------------


def tried(value: str) -> dict[str, bool]:
    """By the places of rules of a policy with a deny, an allow, and two with rules for HTTP."""
    get = {**HTTP[0], "rules": {"http": [{"method": "GET"}]}}
    made = cilium(
        ingressDeny=[{"fromEntities": ["world"]}],
        ingress=[{"fromEntities": ["cluster"]}, {"toPorts": [get, get]}],
    )
    made["metadata"]["annotations"] = {"axoneme.io/audit": value}
    (policy,) = parse_policy(made, "default")
    assert not policy.audit
    return {rule.path.removeprefix("spec."): rule.audit for rule in policy.rules}


def test_single_rules_can_be_tried() -> None:
    assert tried("ingressDeny[0]")["ingressDeny[0]"]
    both = tried("ingressDeny[0], spec.ingress[1].toPorts[0]")
    assert {path for path, only in both.items() if only} == {"ingressDeny[0]", "ingress[1].toPorts[0]"}
    assert {path for path, only in tried("ingress[1]").items() if only} == {
        "ingress[1].toPorts[0]",
        "ingress[1].toPorts[1]",
    }


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("ingress[0]", "denies nothing that could be tried"),
        ("egress[0]", "places of its rules belong here"),
        ("yes", "places of its rules belong here"),
    ],
)
def test_what_cannot_be_tried_is_refused(value: str, said: str) -> None:
    with pytest.raises(ManifestError, match=said):
        tried(value)
