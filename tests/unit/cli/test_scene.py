"""Which connections an expectation means, by the pods that there are."""

from __future__ import annotations

import pytest

from axoneme.cli.failures import Failure
from axoneme.cli.place import Place
from axoneme.cli.scene import Scene
from axoneme.model.policytest import parse_policy_test
from axoneme.model.state import EndpointState, NamedPortState
from axoneme.sandbox.layout import Layout
from axoneme.sandbox.plan import Family, Plan


def endpoint(number: int, node: str, pod: str, workload: str = "") -> EndpointState:
    ports = [NamedPortState("http", "TCP", 8080 + number)] if workload else []
    return EndpointState(
        number,
        node,
        300,
        [f"10.244.0.{number}", f"fd00::{number}"],
        "shop",
        pod,
        f"uid{number}",
        workload=workload,
        named_ports=ports,
    )


PODS = [
    endpoint(1, "node1", "web-1", "web"),
    endpoint(2, "node2", "web-2", "web"),
    endpoint(3, "node1", "probe"),
]


def connections(expect: str, family: Family = Family.DUAL) -> list[str]:
    document = {"apiVersion": "axoneme.io/v1alpha1", "kind": "PolicyTest", "expect": [expect]}
    (wanted,) = parse_policy_test(document, 8).expect
    scene = Scene(Place(), Layout("unit"), Plan(name="unit", family=family), PODS)
    return [
        f"{each.source.bind or each.source.name} {each.way} {each.address} {each.port}"
        for each in scene.connections(wanted)
    ]


def test_every_pod_of_one_end_connects_to_every_pod_of_the_other_over_each_family() -> None:
    assert connections("from shop/probe to shop/web port 80 -> allowed") == [
        "shop/probe node1 10.244.0.1 80",
        "shop/probe node1 fd00::1 80",
        "shop/probe node1→node2 10.244.0.2 80",
        "shop/probe node1→node2 fd00::2 80",
    ]
    assert len(connections("from shop/web to shop/web port 80 over ipv4 -> allowed")) == 2, "not to itself"


def test_a_port_by_name_is_each_pods_own() -> None:
    found = connections("from shop/probe to shop/web port http over ipv6 -> allowed")
    assert found == ["shop/probe node1 fd00::1 8081", "shop/probe node1→node2 fd00::2 8082"]


def test_nodes_and_the_outside() -> None:
    assert connections("from host to shop/web port 1 over ipv4 -> allowed") == [
        "node1 node1 10.244.0.1 1",
        "node2 node2 10.244.0.2 1",
    ]
    assert connections("from node2 to shop/web-1 port 1 over ipv4 -> allowed") == [
        "node2 node2→node1 10.244.0.1 1"
    ]
    assert connections("from shop/probe to host port 1 over ipv4 -> allowed") == [
        "shop/probe node1 172.31.0.1 1"
    ]
    assert connections("from world to shop/probe port 1 over ipv4 -> denied") == [
        "world outside→node1 10.244.0.3 1"
    ]
    assert connections("from shop/probe to world port 1 -> denied") == [
        "shop/probe node1→outside 203.0.113.10 1",
        "shop/probe node1→outside 2001:db8:a::10 1",
    ]
    assert connections("from 192.0.2.7 to shop/probe port 1 -> denied") == [
        "192.0.2.7 outside→node1 10.244.0.3 1"
    ]


@pytest.mark.parametrize(
    ("expect", "said"),
    [
        ("from shop/wep to shop/web port 80 -> allowed", "expect[0]: shop/wep is no pod and no workload"),
        ("from shop/wep to shop/web port 80 -> allowed", "there are probe, web"),
        ("from void/web to shop/web port 80 -> allowed", "there is none"),
        ("from shop/web to shop/probe port http -> allowed", "the named ones are none"),
        ("from shop/probe to shop/web port http/UDP -> allowed", "the named ones are http/TCP"),
        ("from node7 to shop/web port 80 -> allowed", "there is no node7"),
        ("from shop/probe to shop/probe port 80 -> allowed", "nobody else"),
        ("from 10.244.0.9 to shop/web port 80 -> allowed", "call them by name"),
    ],
)
def test_ends_that_are_nobody(expect: str, said: str) -> None:
    with pytest.raises(Failure) as failure:
        connections(expect)
    assert said in failure.value.message
