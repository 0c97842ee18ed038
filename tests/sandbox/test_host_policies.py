"""Policies for the nodes themselves: real packets to and from a node, tried policies, dead agents."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from runtime import Live, live
from two_nodes import inside

from axoneme.net import netns
from axoneme.sandbox.client import Probe, Protocol, Verdict

#: Seconds for which a policy is tried: enough for all that a test does meanwhile.
TRIED = 25.0
_HASTY = (sys.executable, str(Path(__file__).with_name("hasty_agent.py")), str(TRIED), "--config")

PODS = "---".join(
    f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  nodeName: {node}
  containers: [{{name: echo, image: echo, ports: [{{containerPort: 80}}]}}]
"""
    for name, node in (("near", "node1"), ("far", "node2"))
)
OPEN, CLOSED, SAFE = 9001, 9002, 22


def policy(*ingress: dict[str, Any], egress: tuple[dict[str, Any], ...] = (), name: str = "hosts") -> str:
    """For node1."""
    spec: dict[str, Any] = {"nodeSelector": {"matchLabels": {"kubernetes.io/hostname": "node1"}}}
    spec["ingress"] = list(ingress)
    if egress:
        spec["egress"] = list(egress)
    return yaml.safe_dump(
        {
            "apiVersion": "cilium.io/v2",
            "kind": "CiliumClusterwideNetworkPolicy",
            "metadata": {"name": name},
            "spec": spec,
        }
    )


def ports(*numbers: int) -> list[dict[str, Any]]:
    return [{"ports": [{"port": str(number), "protocol": "ANY"} for number in numbers]}]


class Echo:
    """Answers at some ports of a node, over TCP and UDP, in both families, until it is closed."""

    def __init__(self, node: Path, *numbers: int) -> None:
        self._open: list[socket.socket] = []
        with inside(node):
            for number in numbers:
                tcp = socket.create_server(("::", number), family=socket.AF_INET6, dualstack_ipv6=True)
                udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
                udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                udp.bind(("::", number))
                self._open += [tcp, udp]
                for work in (self._serve, tcp), (self._answer, udp):
                    threading.Thread(target=work[0], args=(work[1],), daemon=True).start()

    def _serve(self, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                taken, _ = server.accept()
                threading.Thread(target=self._talk, args=(taken,), daemon=True).start()

    def _talk(self, taken: socket.socket) -> None:
        with contextlib.suppress(OSError), taken:
            while said := taken.recv(65536):
                taken.sendall(said)

    def _answer(self, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                server.sendto(*server.recvfrom(65536))

    def close(self) -> None:
        for each in self._open:
            each.close()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Live]:
    with live("hosts", PODS, agent_command=_HASTY, dns=False) as runtime:
        echoes = [Echo(runtime.layout.namespace(node), OPEN, CLOSED, SAFE) for node in ("node1", "node2")]
        try:
            yield runtime
        finally:
            for echo in echoes:
                echo.close()


@pytest.fixture(autouse=True)
def _afterwards(cluster: Live) -> Iterator[None]:
    yield
    for each in cluster.every("CiliumClusterwideNetworkPolicy"):
        cluster.delete("CiliumClusterwideNetworkPolicy", each["metadata"]["name"], "")
    cluster.wait(lambda: (not state(cluster)["pending"] and not state(cluster)["confirmed"]) or None, "gone")


def state(cluster: Live) -> dict[str, Any]:
    found: dict[str, Any] = cluster.agent("node1").call("status")["host_policies"]
    return found


def pending(cluster: Live) -> None:
    cluster.wait(lambda: state(cluster)["pending"] or None, "it is tried")


def addresses(cluster: Live, node: str) -> tuple[str, ...]:
    return next(each.addresses() for each in cluster.plan.all_nodes() if each.name == node)


def who(cluster: Live, *names: str) -> dict[str, Path]:
    known = {
        "near": lambda: cluster.namespace("near"),
        "far": lambda: cluster.namespace("far"),
        "node2": lambda: cluster.layout.namespace("node2"),
        "outside": lambda: cluster.outside,
        "node1": lambda: cluster.layout.namespace("node1"),
    }
    return {name: known[name]() for name in names}


def reached(
    cluster: Live, sources: dict[str, Path], port: int, protocol: Protocol = Protocol.TCP, node: str = "node1"
) -> set[str]:
    """Who reaches a port of a node; over one of the families only: with a question mark."""
    probes = [
        (name, Probe(source, address, port, protocol, 1.0, b"hello\n"))
        for name, source in sources.items()
        for address in addresses(cluster, node)
    ]
    results = cluster.probe_all([probe for _, probe in probes])
    got: dict[str, set[bool]] = {}
    for (name, _), result in zip(probes, results, strict=True):
        got.setdefault(name, set()).add(result.verdict is Verdict.CONNECTED)
    return {name if False not in each else f"{name}?" for name, each in got.items() if True in each}


EVERYBODY = ("near", "far", "node2", "outside")
FROM_NODES = {"fromEntities": ["remote-node"], "toPorts": ports(OPEN)}
FROM_NEAR = {
    "fromEndpoints": [{"matchLabels": {"app": "near", "k8s:io.kubernetes.pod.namespace": "default"}}],
    "toPorts": ports(OPEN),
}


def test_only_those_whom_it_names_reach_the_node_and_nobody_can_lock_it(cluster: Live) -> None:
    sources = who(cluster, *EVERYBODY)
    for protocol in (Protocol.TCP, Protocol.UDP):
        assert reached(cluster, sources, CLOSED, protocol) == set(EVERYBODY)
    cluster.apply(policy(FROM_NEAR))
    pending(cluster)
    cluster.wait(lambda: reached(cluster, sources, OPEN) == {"near"} or None, "the policy holds")
    assert reached(cluster, sources, CLOSED) == set()
    assert reached(cluster, sources, SAFE) == set(EVERYBODY), "the fail-safe port"
    assert reached(cluster, who(cluster, "near", "outside"), CLOSED, node="node2") == {"near", "outside"}
    assert reached(cluster, who(cluster, "node1"), CLOSED, node="node2") == {"node1"}, "egress is open"


@pytest.mark.slow
def test_what_is_confirmed_stays_and_what_is_not_is_taken_back(cluster: Live) -> None:
    sources = who(cluster, "near", "node2")
    cluster.apply(policy(FROM_NODES))
    pending(cluster)
    cluster.wait(lambda: reached(cluster, sources, OPEN) == {"node2"} or None, "the first one is tried")
    cluster.agent("node1").call("policy.confirm")
    assert state(cluster)["confirmed"] == ["CiliumClusterwideNetworkPolicy/hosts"]
    assert reached(cluster, sources, OPEN) == {"node2"}
    cluster.apply(policy(FROM_NEAR))
    pending(cluster)
    cluster.wait(lambda: reached(cluster, sources, OPEN) == {"near"} or None, "the second one is tried")
    cluster.wait(lambda: reached(cluster, sources, OPEN) == {"node2"} or None, "and taken back", TRIED + 15)
    cluster.wait(lambda: state(cluster)["given_up"] or None, "which is said")
    assert not state(cluster)["pending"]


@pytest.mark.slow
def test_it_is_taken_back_where_the_agent_is_dead(cluster: Live) -> None:
    sources = who(cluster, "near", "node2")
    cluster.apply(policy(FROM_NEAR))
    pending(cluster)
    cluster.wait(lambda: reached(cluster, sources, OPEN) == {"near"} or None, "it is tried")
    pid = cluster.agent_pid("node1")
    os.kill(pid, signal.SIGSTOP)
    try:
        assert reached(cluster, sources, OPEN) == {"near"}
        everybody = {"near", "node2"}
        cluster.wait(lambda: reached(cluster, sources, OPEN) == everybody or None, "it ends", TRIED + 15)
    finally:
        os.kill(pid, signal.SIGCONT)
    cluster.wait(lambda: state(cluster)["given_up"] or None, "the agent sees it")


@pytest.mark.slow
def test_an_agent_that_is_killed_goes_on_trying_to_the_same_end(cluster: Live) -> None:
    sources = who(cluster, "near", "node2")
    cluster.apply(policy(FROM_NEAR))
    pending(cluster)
    cluster.wait(lambda: reached(cluster, sources, OPEN) == {"near"} or None, "it is tried")
    before = state(cluster)["seconds"]
    cluster.wait_for_new_agents(cluster.kill_agents())
    assert reached(cluster, sources, OPEN) == {"near"}
    assert 0 < state(cluster)["seconds"] < before
    cluster.agent("node1").call("policy.confirm")
    cluster.wait_for_new_agents(cluster.kill_agents())
    assert state(cluster)["confirmed"] and not state(cluster)["pending"]
    assert reached(cluster, sources, OPEN) == {"near"}


def test_connections_that_are_there_go_on(cluster: Live) -> None:
    address = addresses(cluster, "node1")[0]
    with contextlib.ExitStack() as stack:
        tcp = stack.enter_context(
            netns.open_socket(cluster.layout.namespace("node2"), socket.AF_INET, socket.SOCK_STREAM)
        )
        tcp.settimeout(3)
        tcp.connect((address, CLOSED))
        udp = stack.enter_context(
            netns.open_socket(cluster.layout.namespace("node2"), socket.AF_INET, socket.SOCK_DGRAM)
        )
        udp.settimeout(3)
        udp.connect((address, CLOSED))

        def talk(each: socket.socket) -> None:
            each.sendall(b"hello")
            assert each.recv(100) == b"hello"

        talk(tcp)
        cluster.apply(policy(FROM_NEAR))
        refused = who(cluster, "node2")

        def new_ones_are_refused() -> bool | None:
            talk(udp)  # what is silent when it begins to hold is new to it
            return reached(cluster, refused, CLOSED) == set() or None

        cluster.wait(new_ones_are_refused, "new ones are refused")
        talk(tcp)
        talk(udp)


def test_what_the_node_may_call(cluster: Live) -> None:
    allowed = {"toEntities": ["remote-node"], "toPorts": ports(OPEN)}
    source = who(cluster, "node1")
    cluster.apply(policy(FROM_NEAR, egress=(allowed,)))
    pending(cluster)
    for protocol in (Protocol.TCP, Protocol.UDP):
        cluster.wait(
            lambda protocol=protocol: (  # type: ignore[misc]
                not reached(cluster, source, CLOSED, protocol, "node2") or None
            ),
            "egress is closed",
        )
        assert reached(cluster, source, OPEN, protocol, "node2") == {"node1"}


def test_drops_name_the_policy(cluster: Live) -> None:
    cluster.apply(policy({"fromEntities": ["none"]}))
    pending(cluster)

    def dropped() -> bool | None:
        reached(cluster, who(cluster, "near"), CLOSED)
        flows = cluster.flows(filters=[{"verdict": ["DROPPED"], "from_pod": ["default/near"]}])
        return (
            any(
                "reserved:host" in flow["destination"].get("labels", ())
                and flow["traffic_direction"] == "INGRESS"
                for flow in flows
            )
            or None
        )

    cluster.wait(dropped, "a drop at the node is seen")
