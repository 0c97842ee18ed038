"""Two nodes: podman's containers on one, containerd's pods on the other, the sandbox's own pods on both.

Policies are written against labels, wherever these come from: a podman network, a pod's annotation, a
manifest. Real packets of both families between all of them, and between them and the nodes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from containerd import Containerd
from machine import SERVE, Machine, machine, missing, network, plugin
from podman import Podman
from runtime import Live, live
from two_nodes import listening

from axoneme.cni.request import ANNOTATIONS
from axoneme.sandbox.client import Probe, Verdict

lacking = missing("podman", "runc", "containerd")
pytestmark = pytest.mark.skipif(bool(lacking), reason=lacking)
PORT = 7000
SHOP, FRIEND, STRANGER = {"app": "shop"}, {"role": "friend"}, {"role": "stranger"}
ROLES = {"shop": SHOP, "friend": FRIEND, "stranger": STRANGER}
POD = """
apiVersion: v1
kind: Pod
metadata: {{name: pod-{role}, labels: {{{key}: {value}}}}}
spec:
  nodeSelector: {{kubernetes.io/hostname: {node}}}
  containers: [{{name: main, image: echo, ports: [{{containerPort: 7000}}]}}]
"""
PODS = "---".join(
    POD.format(role=role, node=node, key=key, value=value)
    for role, node in (("shop", "node2"), ("friend", "node1"), ("stranger", "node2"))
    for key, value in ROLES[role].items()
)
POLICIES = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: only-friends}
spec:
  podSelector: {matchLabels: {app: shop}}
  ingress:
  - from: [{podSelector: {matchLabels: {role: friend}}}]
    ports: [{port: 7000}]
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: not-to-nodes}
spec:
  endpointSelector: {matchLabels: {role: stranger}}
  egress: [{toEntities: [all]}]
  egressDeny: [{toEntities: [host, remote-node]}]
"""


@dataclass(frozen=True)
class Place:
    """Where one of them is; ``labels`` are empty for a node."""

    name: str
    node: str
    namespace: Path
    addresses: list[str]
    labels: dict[str, str]

    def may_reach(self, target: Place) -> bool:
        """What the policies say."""
        if target.labels == SHOP:
            return self.labels == FRIEND or (not self.labels and self.node == target.node)
        return bool(target.labels) or self.labels != STRANGER


class Cluster:
    def __init__(self, sandbox: Live, podman: Podman, containerd: Containerd) -> None:
        self.sandbox = sandbox
        machines = {"node1": podman.machine, "node2": containerd.machine}
        self.places = {
            node.name: Place(
                node.name, node.name, sandbox.layout.namespace(node.name), list(node.addresses()), {}
            )
            for node in sandbox.plan.all_nodes()
        }
        for found in sandbox.endpoints().values():
            name = found["pod"]
            namespace = self._namespace(machines[found["node"]], found)
            labels = ROLES[name.rpartition("-")[2]]
            assert {f"k8s:{key}={value}" for key, value in labels.items()} <= set(found["labels"])
            self.places[name] = Place(name, found["node"], namespace, found["addresses"], labels)

    def _namespace(self, machine: Machine, found: Any) -> Path:
        if found["pod"].startswith("pod-"):
            return self.sandbox.namespace(found["pod"])
        records = self.sandbox.layout.node(found["node"]).state / "endpoints"

        record = json.loads((records / f"{found['host_interface']}.json").read_text())
        return machine.path(record["namespace_path"])

    def meet(self) -> dict[tuple[str, str, str], bool]:
        """Who reaches whom, at each address."""
        pairs = [
            (source, target, address)
            for source in self.places.values()
            for target in self.places.values()
            if source is not target and (source.labels or target.labels == SHOP)
            if target.labels in (SHOP, {})
            for address in target.addresses
        ]
        with ExitStack() as stack:
            for place in self.places.values():
                if not place.labels:
                    stack.enter_context(listening(place.namespace, PORT))
            found = self.sandbox.probe_all(
                [Probe(source.namespace, address, PORT, timeout=2) for source, _, address in pairs]
            )
        verdicts = {Verdict.CONNECTED: True, Verdict.TIMEOUT: False}
        return {
            (source.name, target.name, address): verdicts[each.verdict]
            for (source, target, address), each in zip(pairs, found, strict=True)
        }


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with ExitStack() as stack:
        sandbox = stack.enter_context(live("containers", PODS))
        sockets = [sandbox.layout.node(node).cni_socket for node in ("node1", "node2")]
        networks = [
            {
                f"{role}.conflist": network(role, plugin(sockets[0], labels=labels))
                for role, labels in ROLES.items()
            },
            {"10.conflist": network("axoneme", plugin(sockets[1], capabilities={ANNOTATIONS: True}))},
        ]
        machines = [
            stack.enter_context(machine(sandbox.layout.namespace(node), node, each))
            for node, each in zip(("node1", "node2"), networks, strict=True)
        ]
        with ThreadPoolExecutor() as threads:
            podman_made, containerd_made = (
                threads.submit(kind, made) for kind, made in zip((Podman, Containerd), machines, strict=True)
            )
        podman, containerd = podman_made.result(), containerd_made.result()
        stack.callback(podman.close)
        stack.callback(containerd.close)
        for role, (label, value) in ((role, *labels.items()) for role, labels in ROLES.items()):
            podman.start(f"podman-{role}", role, SERVE)
            containerd.start(f"cri-{role}", {"axoneme.io/labels": f"{label}={value}"}, SERVE)
        yield Cluster(sandbox, podman, containerd)


def test_everybody_reaches_everybody(cluster: Cluster) -> None:
    assert len(cluster.places) == 11
    cluster.sandbox.wait(lambda: all(cluster.meet().values()) or None, "all servers listen")


def test_policies_hold_between_containers_pods_and_nodes(cluster: Cluster) -> None:
    cluster.sandbox.apply(POLICIES)
    cluster.sandbox.policies_loaded(2)
    found = cluster.meet()
    expected = {
        (source, target, address): cluster.places[source].may_reach(cluster.places[target])
        for source, target, address in found
    }
    assert found == expected
    assert {True, False} == set(found.values())


@pytest.mark.parametrize(
    ("source", "target"),
    [("podman-stranger", "cri-shop"), ("cri-stranger", "podman-shop"), ("pod-stranger", "cri-shop")],
)
def test_flows_name_containers_labels_and_policies(cluster: Cluster, source: str, target: str) -> None:
    wanted = {"verdict": ["DROPPED"], "from_pod": [f"default/{source}"], "to_pod": [f"default/{target}"]}
    flow = cluster.sandbox.wait(lambda: cluster.sandbox.flows(filters=[wanted]) or None, "a flow")[-1]
    assert (flow["source"]["pod_name"], flow["destination"]["pod_name"]) == (source, target)
    assert "k8s:role=stranger" in flow["source"]["labels"]
    assert "k8s:app=shop" in flow["destination"]["labels"]
    assert [each["name"] for each in flow["ingress_denied_by"]] == ["only-friends"]


def test_agents_may_die_meanwhile(cluster: Cluster) -> None:
    dead = cluster.sandbox.kill_agents()
    places = cluster.places
    for source, target in (("podman-friend", "cri-shop"), ("cri-friend", "podman-shop")):
        for address in places[target].addresses:
            found = cluster.sandbox.probe(places[source].namespace, address, PORT)
            assert found.verdict is Verdict.CONNECTED
    cluster.sandbox.wait_for_new_agents(dead)
    assert (
        cluster.sandbox.probe(
            places["cri-stranger"].namespace, places["podman-shop"].addresses[0], PORT, timeout=1
        ).verdict
        is Verdict.TIMEOUT
    )
