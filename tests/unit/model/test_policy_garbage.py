"""Policies with something wrong in them: refused in so many words, and never taken for more than they say."""

from __future__ import annotations

import copy
import ipaddress
import json
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from axoneme.identity.labels import pod_labels
from axoneme.model.manifests import read
from axoneme.model.paths import ManifestError
from axoneme.model.policies import parse_policy
from axoneme.model.policy import CIDRGroup, Direction, Network, Policy, Protocol
from axoneme.policy.engine import PolicyEngine, PolicyKey
from axoneme.policy.lookup import evaluate
from axoneme.policy.peers import Service

from .given import Object, cilium, clusterwide, network_policy

WEB = {"matchLabels": {"app": "web"}}
NOT_DB = {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["db"]}]}
ELSEWHERE = {"matchLabels": {"app": "db", "k8s:io.kubernetes.pod.namespace": "other"}}
TEAM = {"matchLabels": {"io.cilium.k8s.namespace.labels.team": "a"}}
TCP_80 = [{"ports": [{"port": "80", "protocol": "TCP"}]}]
UDP_RANGE = [{"ports": [{"port": "50", "endPort": 60, "protocol": "UDP"}, {"port": "http"}]}]
SET = [{"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}, {"cidrGroupRef": "offices"}]
BY_NAME = {"k8sService": {"serviceName": "db", "namespace": "other"}}
BY_LABELS = {"k8sServiceSelector": {"selector": {"matchLabels": {"a": "b"}}, "namespace": "other"}}
ICMP = [{"fields": [{"type": 8}, {"type": "EchoRequest", "family": "IPv6"}]}]

ALLOW_IN = [
    {"fromEndpoints": [WEB, NOT_DB, ELSEWHERE, TEAM], "toPorts": TCP_80},
    {"fromEntities": ["host", "remote-node"], "toPorts": UDP_RANGE, "authentication": {"mode": "disabled"}},
    {"fromCIDRSet": [*SET, {"cidrGroupSelector": {"matchLabels": {"zone": "a"}}}]},
    {"fromCIDR": ["192.0.2.1"], "icmps": ICMP},
]
ALLOW_OUT = [
    {"toEndpoints": [WEB], "toPorts": [{"ports": [{"port": "80"}], "rules": {"http": []}}]},
    {"toServices": [BY_NAME, BY_LABELS], "toPorts": TCP_80},
]
DENY = {
    "ingressDeny": [{"fromEndpoints": [WEB], "toPorts": UDP_RANGE}, {"fromCIDRSet": SET}],
    "egressDeny": [{"toEndpoints": [ELSEWHERE], "icmps": ICMP}, {"toEntities": ["world"], "toPorts": TCP_80}],
}
NETWORK = network_policy(
    podSelector=WEB,
    policyTypes=["Ingress", "Egress"],
    ingress=[
        {
            "from": [{"podSelector": NOT_DB}, {"namespaceSelector": {"matchLabels": {"team": "a"}}}],
            "ports": [{"port": 50, "endPort": 60, "protocol": "UDP"}, {"port": "http"}],
        },
        {"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]},
    ],
    egress=[{"to": [{"podSelector": WEB, "namespaceSelector": {}}], "ports": [{"protocol": "UDP"}]}],
)
SEVERAL: Object = {**cilium(), "specs": [{"endpointSelector": WEB, "ingress": ALLOW_IN}]}
SEVERAL["spec"] = {"endpointSelector": {}, "egress": [{}]}

CORPUS: dict[str, Object] = {
    "NetworkPolicy": NETWORK,
    "closed": network_policy(policyTypes=["Ingress", "Egress"]),
    "allow": cilium(endpointSelector=WEB, ingress=ALLOW_IN, egress=ALLOW_OUT, labels=["a"], description="b"),
    "deny": cilium(ingress=[{"fromEntities": ["all"]}], egress=[{"toEntities": ["all"]}], **DENY),
    "clusterwide": clusterwide(endpointSelector=NOT_DB, ingress=ALLOW_IN, egress=ALLOW_OUT, **DENY),
    "open": cilium(
        egress=[{"toEndpoints": [WEB]}],
        enableDefaultDeny={"egress": False, "ingress": True},
        log={"value": "a"},
    ),
    "several": SEVERAL,
}
corpus = pytest.mark.parametrize("name", CORPUS)

Path = tuple[str | int, ...]
#: Mappings whose keys are the user's own.
FREE = ("labels", "annotations", "matchLabels")


def places(value: object, path: Path = ()) -> Iterator[Path]:
    """The paths of all values inside."""
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from places(inner, (*path, index))


def at(object: Any, path: Path) -> Any:
    for step in path:
        object = object[step]
    return object


def replaced(object: Object, path: Path, value: object) -> Any:
    if not path:
        return value
    made = copy.deepcopy(object)
    at(made, path[:-1])[path[-1]] = value
    return made


def fixed_mappings(object: Object) -> Iterator[Path]:
    """The paths of mappings that have fields."""
    for path in places(object):
        if isinstance(at(object, path), dict) and not (path and path[-1] in FREE):
            yield path


def test_the_corpus_is_sound() -> None:
    for object in CORPUS.values():
        assert all(policy.rules or policy.default_deny for policy in parse_policy(object))


@corpus
def test_a_policy_is_the_same_as_yaml_and_as_json(name: str) -> None:
    import yaml

    expected = parse_policy(CORPUS[name])
    for text in (yaml.safe_dump(CORPUS[name]), json.dumps(CORPUS[name], indent=1)):
        (manifest,) = read(text, "f").objects
        assert parse_policy(manifest.object) == expected


@corpus
def test_no_unknown_field_is_passed_over(name: str) -> None:
    object = CORPUS[name]
    for path in fixed_mappings(object):
        with pytest.raises(ManifestError, match=r"no such field|no fields here"):
            parse_policy(replaced(object, path, {**at(object, path), "unheardOf": []}))


@corpus
def test_no_misspelt_field_is_passed_over(name: str) -> None:
    object = CORPUS[name]
    for path in fixed_mappings(object):
        fields = at(object, path)
        for key in fields:
            renamed = {(f"{each}X" if each == key else each): value for each, value in fields.items()}
            with pytest.raises(ManifestError):
                parse_policy(replaced(object, path, renamed))


# ---- more permissive ---------------------------------------------------------------------------

PODS = {
    256: ("shop", {"app": "web"}, {}),
    257: ("shop", {"app": "db"}, {}),
    258: ("other", {"app": "web"}, {"team": "a"}),
    259: ("other", {"app": "db"}, {"team": "a"}),
    260: ("third", {"app": "db"}, {"team": "b"}),
}
PACKETS = [
    *product((Protocol.TCP, Protocol.UDP), (1, 49, 50, 60, 61, 80, 81)),
    *product((Protocol.ICMP, Protocol.ICMPV6), (0, 8, 128)),
    (Protocol.SCTP, 80),
]
RANGES = [ipaddress.ip_network(text) for text in ("10.2.0.0/16", "10.1.0.0/16", "11.0.0.0/8", "192.0.2.1/32")]


def allowed(policies: tuple[Policy, ...], networks: list[Network]) -> set[tuple[int, int, int, int, int]]:
    """All that passes to and from a few pods."""
    engine = PolicyEngine()
    for number, (namespace, labels, others) in PODS.items():
        engine.upsert_identity(number, pod_labels(labels, namespace=namespace, namespace_labels=others))
        engine.set_named_ports(number, {("http", Protocol.TCP): frozenset({81})})
        engine.add_subject(number)
    engine.upsert_cidr_group(CIDRGroup("offices", (RANGES[2],), (("zone", "b"),)))
    engine.upsert_cidr_group(CIDRGroup("homes", (RANGES[3],), (("zone", "a"),)))
    for namespace in ("shop", "other"):
        engine.upsert_service(Service(namespace, "db", {"a": "b"}, {"app": "db"}))
    engine.upsert_policy(PolicyKey("", "", ""), policies)
    for number, network in enumerate(networks, 1 << 24):
        engine.upsert_cidr_identity(number, network)
    engine.changes()
    peers = [*PODS, 1, 6, 9, 10, *range(1 << 24, (1 << 24) + len(networks))]
    table = dict(engine.table)
    return {
        (subject, direction, peer, *packet)
        for subject, direction, peer, packet in product(PODS, Direction, peers, PACKETS)
        if evaluate(table, subject, direction, peer, *packet).allowed
    }


@corpus
def test_a_null_never_lets_more_pass(name: str) -> None:
    """It counts as absent, so it must be refused wherever absence would widen the policy."""
    object = CORPUS[name]
    before = allowed(parse_policy(object, None), RANGES)
    taken = 0
    for path in places(object):
        if path[:1] not in (("spec",), ("specs",)):
            continue
        try:
            policies = parse_policy(replaced(object, path, None), None)
        except ManifestError:
            continue
        taken += 1
        assert allowed(policies, RANGES) <= before, path
    assert taken < 10


# ---- anything ----------------------------------------------------------------------------------

WORDS = st.sampled_from(
    [
        "",
        "0",
        "80",
        "http",
        "TCP",
        "ANY",
        "all",
        "In",
        "Exists",
        "10.0.0.0/8",
        "::/0",
        "a",
        "a b",
        "reserved:host",
    ]
)
JUNK: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | WORDS | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)


@st.composite
def mutants(draw: st.DrawFn) -> Any:
    """A sound policy in which a few values have been replaced, taken away, doubled or exchanged."""
    object: Any = copy.deepcopy(CORPUS[draw(st.sampled_from(list(CORPUS)))])
    for _ in range(draw(st.integers(1, 4))):
        paths = list(places(object))
        path = draw(st.sampled_from(paths))
        if not path:
            continue
        around, step = at(object, path[:-1]), path[-1]
        match draw(st.sampled_from(["replace", "delete", "double", "exchange"])):
            case "replace":
                around[step] = draw(JUNK)
            case "delete":
                del around[step]
            case "double" if isinstance(around, list):
                around.append(copy.deepcopy(around[int(step)]))
            case _:
                around[step] = copy.deepcopy(at(object, draw(st.sampled_from(paths))))
    return object


@settings(max_examples=1500, deadline=None)
@given(mutants())
def test_a_mutant_is_taken_whole_or_refused(object: Any) -> None:
    try:
        policies = parse_policy(object)
    except ManifestError as error:
        assert error.found and error.right and str(error)
        return
    engine = PolicyEngine()
    engine.upsert_identity(256, pod_labels({"app": "web"}, namespace="shop"))
    engine.add_subject(256)
    engine.upsert_policy(PolicyKey("", "", ""), policies)
    engine.changes()


@settings(max_examples=300)
@given(JUNK)
def test_junk_is_refused(object: Any) -> None:
    with pytest.raises(ManifestError):
        parse_policy(object)
