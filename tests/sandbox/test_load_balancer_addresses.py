"""Addresses of services of type LoadBalancer, given out by pools and announced on the nodes' link."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
import yaml
from conversation import Conversation
from neighbours import Address, Neighbour
from runtime import Document, Live, live_as

from axoneme.sandbox.client import Protocol
from axoneme.sandbox.echo.answers import Answer
from axoneme.sandbox.plan import IPV4_ROUTER

CLUSTER = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: main, image: echo, ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: LoadBalancer
  ipFamilyPolicy: PreferDualStack
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: near, annotations: {lbipam.cilium.io/ips: 172.31.0.205}}
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: cilium.io/v2
kind: CiliumLoadBalancerIPPool
metadata: {name: blue}
spec:
  blocks: [{cidr: 172.31.0.192/28}, {start: "fd00:a0::1000", stop: "fd00:a0::10ff"}]
"""
POLICY = """
apiVersion: cilium.io/v2alpha1
kind: CiliumL2AnnouncementPolicy
metadata: {name: all}
spec: {loadBalancerIPs: true, interfaces: ["^eth"]}
"""
WEB = [ip_address("172.31.0.192"), ip_address("fd00:a0::1000")]
NEAR = ip_address("172.31.0.205")
OF_WEB, OF_NEAR = "cilium-l2announce-default.web", "cilium-l2announce-default.near"
QUICK = {"lease_duration": 3.0, "renew": 0.5, "retry": 0.2}


class Announcing(Live):
    def holder(self, lease: str = OF_WEB) -> str:
        """The node that holds the lease; empty: nobody does."""
        found = self.get("Lease", lease, "kube-system")
        return found["spec"]["holderIdentity"] if found else ""

    def mac(self, node: str) -> bytes:
        command = ["nsenter", f"--net={self.layout.namespace(node)}", "ip", "-j", "link", "show", "eth0"]
        (shown,) = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        return bytes.fromhex(shown["address"].replace(":", ""))

    def given(self, service: str) -> list[str]:
        status = (self.get("Service", service) or {}).get("status", {})
        return [each["ip"] for each in status.get("loadBalancer", {}).get("ingress", [])]

    def configure(self, **announcements: float) -> None:
        """Of all agents, which are killed for it."""
        for node in self.plan.all_nodes():
            file = self.layout.node(node.name).config
            config = yaml.safe_load(file.read_text()) | {"announcements": announcements}
            file.write_text(yaml.safe_dump(config))
        self.wait_for_new_agents(self.kill_agents())


@pytest.fixture(scope="module")
def cluster() -> Iterator[Announcing]:
    with live_as(Announcing, "announcing", CLUSTER) as runtime:
        yield runtime


@pytest.fixture
def neighbour(cluster: Announcing) -> Iterator[Neighbour]:
    made = Neighbour(cluster.outside)
    try:
        yield made
    finally:
        made.close()


def wait_for_answer(cluster: Announcing, neighbour: Neighbour, address: Address, node: str) -> None:
    cluster.wait(
        lambda: neighbour.answers(address) == {cluster.mac(node)}, f"{node} answers for {address}", 30
    )


def wait_for_silence(cluster: Announcing, neighbour: Neighbour, address: Address) -> None:
    cluster.wait(lambda: not neighbour.answers(address), f"nobody answers for {address}", 30)


def test_services_get_addresses(cluster: Announcing) -> None:
    cluster.wait(lambda: cluster.given("web") == [str(each) for each in WEB], "addresses of both families")
    cluster.wait(lambda: cluster.given("near") == [str(NEAR)], "the address that is asked for")
    (pool,) = cluster.every("CiliumLoadBalancerIPPool")
    told = {each["type"]: each.get("message") for each in pool["status"]["conditions"]}
    assert told["cilium.io/IPsUsed"] == "3"


def test_without_a_policy_nobody_answers(cluster: Announcing, neighbour: Neighbour) -> None:
    for address in (*WEB, NEAR):
        assert not neighbour.answers(address)
    assert not cluster.every("Lease")


def test_one_node_answers_and_has_told_everybody(cluster: Announcing, neighbour: Neighbour) -> None:
    listeners = [Neighbour(cluster.outside) for _ in WEB]
    try:
        cluster.apply(POLICY)
        holder = cluster.wait(cluster.holder, "a node has the lease")
        for address, listener in zip(WEB, listeners, strict=True):
            wait_for_answer(cluster, neighbour, address, holder)
            assert listener.announced(address, cluster.mac(holder))
    finally:
        for listener in listeners:
            listener.close()
    assert not neighbour.answers(ip_address("172.31.0.193")), "nobody has it"


def test_a_local_service_is_announced_where_its_endpoint_is(
    cluster: Announcing, neighbour: Neighbour
) -> None:
    pod: Document = cluster.wait(lambda: next(iter(cluster.pods(app="web")), None), "the pod")
    node = pod["spec"]["nodeName"]
    cluster.wait(lambda: cluster.holder(OF_NEAR) == node, "its node has the lease", 30)
    wait_for_answer(cluster, neighbour, NEAR, node)


def answer(cluster: Announcing, address: Address) -> Document:
    """What a client on the link hears, once it hears something: who answered, and whom that one saw."""
    found = cluster.wait(lambda: ask(cluster, address), f"an answer from {address}", 30)
    return {"pod": found.pod, "peer": found.peer.address}


def ask(cluster: Announcing, address: Address) -> Answer | None:
    return cluster.probe(cluster.outside, str(address), 80, Protocol.HTTP, b"", timeout=2).answer


def test_clients_on_the_link_reach_the_services(cluster: Announcing) -> None:
    pod = next(iter(cluster.pods(app="web")))
    for address in WEB:
        assert answer(cluster, address)["pod"] == pod["metadata"]["name"]
    # As itself: nobody stands between.
    assert answer(cluster, NEAR) == {"pod": pod["metadata"]["name"], "peer": str(IPV4_ROUTER)}


def test_an_agent_that_is_killed_and_comes_back_keeps_the_address(
    cluster: Announcing, neighbour: Neighbour
) -> None:
    """In its time, 15 s, its successor takes the lease over; no connection notices."""
    holder = cluster.holder()
    before = cluster.get("Lease", OF_WEB, "kube-system")
    asked = b"GET / HTTP/1.1\r\nhost: web\r\n\r\n"
    callers = [Conversation(cluster.outside, str(each), 80, asked, 0.01) for each in (*WEB, NEAR)]
    for caller in callers:
        caller.start()
    try:
        cluster.wait_for_new_agents(cluster.kill_agents())
        cluster.wait(lambda: cluster.get("Lease", OF_WEB, "kube-system") != before, "it is taken over", 30)
        assert cluster.holder() == holder
        wait_for_answer(cluster, neighbour, WEB[0], holder)
        heard = [caller.rounds for caller in callers]
        cluster.wait(lambda: all(c.rounds > h for c, h in zip(callers, heard, strict=True)), "they go on")
    finally:
        for caller in callers:
            caller.finish()
    assert [caller.error for caller in callers] == [None] * 3


def test_an_agent_that_is_stopped_leaves_at_once_where_it_is_told_to(
    cluster: Announcing, neighbour: Neighbour
) -> None:
    before = cluster.get("Lease", OF_WEB, "kube-system")
    cluster.configure(release_on_stop=True)
    cluster.wait(lambda: cluster.get("Lease", OF_WEB, "kube-system") != before, "it is taken over", 30)
    holder = cluster.holder()
    stopped = cluster.agent_pid(holder)
    os.kill(stopped, signal.SIGTERM)
    other = cluster.wait(lambda: cluster.holder() not in ("", holder) and cluster.holder(), "another has it")
    for address in WEB:
        wait_for_answer(cluster, neighbour, address, str(other))
    cluster.wait_for_new_agents([stopped])


def test_when_an_agent_is_silent_another_node_takes_over(cluster: Announcing, neighbour: Neighbour) -> None:
    cluster.configure(**QUICK)
    holder = cluster.wait(cluster.holder, "a node has the lease", 30)
    wait_for_answer(cluster, neighbour, WEB[0], holder)
    silent = cluster.agent_pid(holder)
    listener = Neighbour(cluster.outside)
    os.kill(silent, signal.SIGSTOP)
    try:
        (other,) = {node.name for node in cluster.plan.all_nodes()} - {holder}
        cluster.wait(lambda: cluster.holder() == other, "the other has the lease", 30)
        assert listener.announced(WEB[0], cluster.mac(other))
        # Though its programs and tables are there still: they know until when the lease held.
        for address in WEB:
            wait_for_answer(cluster, neighbour, address, other)
            assert answer(cluster, address)["pod"]
    finally:
        os.kill(silent, signal.SIGCONT)
        listener.close()
    cluster.wait(lambda: cluster.agent(holder).call("status")["phase"] == "ready", "it is back", 30)
    for _ in range(5):
        assert neighbour.answers(WEB[0]) == {cluster.mac(other)}


def test_what_goes_is_announced_no_more(cluster: Announcing, neighbour: Neighbour) -> None:
    cluster.delete("Service", "near")
    wait_for_silence(cluster, neighbour, NEAR)
    cluster.wait(lambda: not cluster.holder(OF_NEAR), "the lease is given back")
    cluster.delete("CiliumLoadBalancerIPPool", "blue")
    cluster.wait(lambda: not cluster.given("web"), "its addresses are withdrawn")
    for address in WEB:
        wait_for_silence(cluster, neighbour, address)
    assert not cluster.holder()
