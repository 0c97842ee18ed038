"""The agent dies; traffic does not notice, and the next agent finds everything in order."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from conversation import Conversation
from runtime import Live, addresses, live

from axoneme.datapath import features
from axoneme.sandbox.client import Verdict

PODS = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: server}
spec:
  replicas: 2
  selector: {matchLabels: {app: server}}
  template:
    metadata: {labels: {app: server}}
    spec:
      containers: [{name: main, image: echo, ports: [{containerPort: 7000}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: client, labels: {app: client}}
spec:
  containers: [{name: main, image: echo, ports: [{containerPort: 7000}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: other, labels: {app: other}}
spec:
  containers: [{name: main, image: echo, ports: [{containerPort: 7000}]}]
"""
ONLY_CLIENT = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: only-client}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: client}}}]
    ports: [{port: 7000}]
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Live]:
    with live("restart", PODS) as runtime:
        yield runtime


def server_addresses(runtime: Live) -> list[str]:
    return [address for pod in runtime.pods(app="server") for address in addresses(pod)]


def test_connections_live_on_and_new_ones_work(cluster: Live) -> None:
    talks = [
        Conversation(cluster.namespace("client"), address, 7000, b"still there?\n", 0.002)
        for address in server_addresses(cluster)
    ]
    assert len(talks) == 4, "both nodes, both families"
    for talk in talks:
        talk.start()
    for _ in range(2):
        before = [talk.rounds for talk in talks]
        dead = cluster.kill_agents()
        for address in server_addresses(cluster):
            found = cluster.probe(cluster.namespace("other"), address, 7000)
            assert found.verdict is Verdict.CONNECTED
        cluster.wait_for_new_agents(dead)
        cluster.wait(
            lambda before=before: all(talk.rounds > old for talk, old in zip(talks, before, strict=True)),
            "every conversation goes on",
        )
    for talk in talks:
        talk.finish()
        assert talk.error is None


def test_an_agent_that_finds_all_in_order_writes_nothing(cluster: Live) -> None:
    dead = cluster.kill_agents()
    cluster.wait_for_new_agents(dead)
    for agent in cluster.agents():
        assert agent.call("status")["writes"] == {"policies": 0, "addresses": 0}


def test_an_agent_names_its_kernel_and_what_that_lacks(cluster: Live) -> None:
    status = cluster.agent("node1").call("status")
    assert status["kernel"] == os.uname().release
    assert status["kernel_lacks"] == [feature.sentence for feature in features.missing()]


def test_what_changed_meanwhile_takes_effect(cluster: Live) -> None:
    target = server_addresses(cluster)
    dead = cluster.kill_agents()
    cluster.apply(ONLY_CLIENT)
    cluster.change("Pod", "other", lambda pod: pod["metadata"]["labels"].update(app="stranger"))
    cluster.wait_for_new_agents(dead)
    for name, verdict in (("client", Verdict.CONNECTED), ("other", Verdict.TIMEOUT)):
        found = [cluster.probe(cluster.namespace(name), address, 7000, timeout=1) for address in target]
        assert [each.verdict for each in found] == [verdict] * 4
    labels = cluster.endpoints()["default/other"]["labels"]
    assert "k8s:app=stranger" in labels


def test_pods_come_and_go_without_the_agent_for_a_while(cluster: Live) -> None:
    before = {each["pod"] for each in cluster.endpoints().values()}
    dead = cluster.kill_agents()
    cluster.apply(PODS.split("---")[1].replace("name: client", "name: late"))
    cluster.change(
        "Pod", "other", lambda pod: pod["metadata"].update(deletionTimestamp="2026-01-01T00:00:00Z")
    )
    cluster.wait_for_new_agents(dead)
    cluster.wait(lambda: cluster.get("Pod", "other") is None, "the pod has gone")
    cluster.settle()
    assert {each["pod"] for each in cluster.endpoints().values()} == before - {"other"} | {"late"}
    found = cluster.probe(cluster.namespace("late"), server_addresses(cluster)[0], 7000)
    assert found.verdict is Verdict.CONNECTED
