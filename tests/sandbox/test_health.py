"""Every node measures the ways to every node, by real packets."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from runtime import Live, live

from axoneme.net import netns

POD = """
apiVersion: v1
kind: Pod
metadata: {name: client, labels: {app: client}}
spec:
  containers: [{name: main, image: echo, ports: [{containerPort: 7000}]}]
"""
#: Closes the health endpoints for everybody but their own node, which nothing keeps out.
NOBODY = """
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: nobody}
spec:
  endpointSelector: {matchLabels: {"reserved:health": ""}}
  ingress: [{fromEntities: [all]}]
  ingressDeny:
  - fromEntities: [remote-node]
    toPorts: [{ports: [{port: "4240", protocol: TCP}]}]
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Live]:
    with live("health", POD) as runtime:
        yield runtime


def measured(cluster: Live, node: str) -> dict[tuple[str, str, str, int], dict[str, Any]]:
    """Anew; by node, path, protocol and family."""
    found = cluster.agent(node).call("health.probe")
    assert found["problems"] == []
    return {
        (
            each["node"],
            one["way"]["path"],
            one["way"]["protocol"],
            6 if ":" in one["way"]["address"] else 4,
        ): one
        for each in found["nodes"]
        for one in each["measurements"]
    }


def failing(cluster: Live, node: str) -> dict[tuple[str, str, str, int], str]:
    return {way: one["reason"] for way, one in measured(cluster, node).items() if one["answer"] is None}


def all_well(cluster: Live) -> bool:
    return not any(failing(cluster, node.name) for node in cluster.plan.all_nodes())


def test_every_way_between_all_nodes_is_measured(cluster: Live) -> None:
    cluster.wait(lambda: all_well(cluster), "every way works")
    found = measured(cluster, "node1")
    assert set(found) == {
        (node, path, protocol, version)
        for node in ("node1", "node2")
        for path in ("underlay", "pods")
        for protocol in ("icmp", "tcp")
        for version in (4, 6)
    }
    assert all(one["answer"]["latency"] > 0 for one in found.values())
    by_tcp = [one["answer"]["node"] for way, one in found.items() if way[2] == "tcp"]
    assert sorted(by_tcp) == ["node1"] * 4 + ["node2"] * 4
    summary = cluster.agent("node1").call("status")["health"]
    assert summary == {"nodes": 2, "reachable": 2, "unreachable": []}


def test_the_agent_is_told_apart_from_its_node_and_its_pods(cluster: Live) -> None:
    pid = cluster.agent_pid("node2")
    os.kill(pid, signal.SIGSTOP)
    try:
        found = failing(cluster, "node1")
    finally:
        os.kill(pid, signal.SIGKILL)
    assert set(found) == {("node2", path, "tcp", v) for path in ("underlay", "pods") for v in (4, 6)}
    cluster.wait(lambda: all_well(cluster), "the next agent answers at the same addresses")
    assert cluster.agent_pid("node2") != pid
    assert cluster.agent("node2").call("status")["writes"] == {"policies": 0, "addresses": 0}


def test_policies_hold_for_the_health_endpoint_as_for_any_other(cluster: Live) -> None:
    cluster.apply(NOBODY)
    cluster.policies_loaded(1)
    assert set(failing(cluster, "node1")) == {("node2", "pods", "tcp", 4), ("node2", "pods", "tcp", 6)}
    cluster.delete("CiliumClusterwideNetworkPolicy", "nobody")
    cluster.policies_loaded(0)
    assert all_well(cluster)


def test_it_is_no_pod_and_nothing_goes_through_it(cluster: Live) -> None:
    assert set(cluster.endpoints()) == {"default/client"}
    for node in cluster.plan.all_nodes():
        namespace = cluster.layout.node(node.name).directory / "health"
        assert netns.held(namespace)
