"""Agents are restarted, backends come and go, half of the agents stay dead: no client of a backend that lives
notices.

New connections, long ones and datagrams from pods (translated at the socket, and by packets), from a node and
from outside, by cluster address, name, node port of each node, external address and load balancer's address.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from runtime import Document, Live, live_as
from service_clients import Clients, Failure, Outcome, Place, Stream

from axoneme.net.commands import ip
from axoneme.rpc import RpcError
from axoneme.sandbox import cgroups
from axoneme.sandbox.plan import DNS_PLACE, IPV4_SERVICES, Routing
from axoneme.sandbox.processes import ProcessId
from axoneme.sandbox.report import SandboxReport

PORT, NODE_PORT = 80, 30080
EXTERNAL, BALANCER = "198.18.0.10", "198.18.1.10"
NAME = "web.default.svc.cluster.local"
FEW = 3
#: Requests of a connection that is not kept for ever: some meet the backends of each moment.
PASSING = 60
#: Seconds before a backend's end in which a request that got no answer may have been on its way to it.
ON_ITS_WAY = 1.0

#: Backends that say when they end. They are probed, so that they are called when they listen.
MANIFESTS = """
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: {few}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 30
      containers:
      - name: main
        image: backend
        command: ["{program}", "8080", "{linger}", "{ends}"]
        ports: [{{containerPort: 8080}}, {{containerPort: 8080, protocol: UDP}}]
        readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec:
  type: LoadBalancer
  loadBalancerClass: test/none
  ipFamilyPolicy: PreferDualStack
  externalIPs: ["{external}"]
  selector: {{app: web}}
  ports:
  - {{name: talks, port: {port}, targetPort: 8080, nodePort: {node_port}}}
  - {{name: datagrams, port: {port}, targetPort: 8080, nodePort: {node_port}, protocol: UDP}}
"""
CLIENT = """
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: client}}}}
spec:
  nodeName: {node}
  containers: [{{name: main, image: echo, ports: [{{containerPort: 7000}}]}}]
"""


class Town(Live):
    """The sandbox, and what is done to it, with the moments (CLOCK_MONOTONIC)."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.ends_file = Path()
        self.events: list[tuple[float, str]] = []
        self.away: list[tuple[str, float, float]] = []

    def up(self, text: str = "", deadline: float = 60.0) -> SandboxReport:
        return super().up(text, deadline)

    @property
    def nodes(self) -> list[str]:
        return [node.name for node in self.plan.all_nodes()]

    def note(self, what: str) -> None:
        self.events.append((time.monotonic(), what))

    def ends(self) -> dict[str, float]:
        """When backends have ended, by name."""
        lines = self.ends_file.read_text().split("\n") if self.ends_file.exists() else []
        return {name: int(at) / 1e9 for name, _, at in (line.partition(" ") for line in lines if line)}

    # ---- backends ------------------------------------------------------------------------------

    def scale(self, count: int) -> None:
        self.note(f"scaled to {count}")
        self.change("Deployment", "web", lambda it: it["spec"].update(replicas=count))

    def ready_backends(self) -> int:
        return sum(
            bool(endpoint["conditions"]["ready"])
            for each in self.every("EndpointSlice")
            if each["metadata"]["labels"]["kubernetes.io/service-name"] == "web"
            and each["addressType"] == "IPv4"
            and any(port["protocol"] == "TCP" for port in each["ports"])
            for endpoint in each["endpoints"]
        )

    def wait_for_backends(self, least: int, most: int) -> None:
        self.wait(lambda: least <= self.ready_backends() <= most, f"{least} to {most} backends", 60)
        self.note(f"{self.ready_backends()} backends are ready")

    def wait_for_ends(self, count: int) -> None:
        self.wait(lambda: len(self.ends()) >= count, f"{count} backends have ended", 60)

    # ---- agents --------------------------------------------------------------------------------

    def agent_of(self, node: str) -> ProcessId:
        record = self.layout.node(node).directory / "agent.pid"
        return msgspec.json.decode(record.read_bytes(), type=ProcessId)

    def end_agent(self, node: str, number: signal.Signals) -> int:
        pid = self.agent_pid(node)
        self.note(f"{node}: its agent gets {number.name}")
        os.kill(pid, number)
        return pid

    def wait_for_agent(self, node: str, dead: int) -> None:
        def ready() -> bool:
            try:
                found = self.agent(node).call("status")
            except RpcError:
                return False
            return bool(found["phase"] == "ready" and found["pid"] != dead)

        self.wait(ready, f"another agent on {node}", 60)
        self.note(f"{node}: another agent is ready")

    def restart_agents(self) -> None:
        """One after the other, killed or asked to end."""
        for number, node in enumerate(self.nodes):
            began = time.monotonic()
            self.wait_for_agent(node, self.end_agent(node, (signal.SIGKILL, signal.SIGTERM)[number % 2]))
            self.away.append((node, began, time.monotonic()))

    @contextmanager
    def without_agents(self, nodes: list[str]) -> Iterator[None]:
        """Killed; those that the supervisor starts in their place do not get anywhere."""
        over, stopped = threading.Event(), dict[str, ProcessId]()
        began = time.monotonic()
        dead = {node: self.end_agent(node, signal.SIGKILL) for node in nodes}

        def stop() -> None:
            while not over.wait(0.005):
                for node in nodes:
                    agent = self.agent_of(node)
                    if agent.pid != dead[node] and stopped.get(node) != agent and agent.alive:
                        os.kill(agent.pid, signal.SIGSTOP)
                        stopped[node] = agent

        keeper = threading.Thread(target=stop, daemon=True)
        keeper.start()
        try:
            self.wait(lambda: len(stopped) == len(nodes), "their successors are stopped")
            yield
        finally:
            over.set()
            keeper.join()
            for node, agent in stopped.items():
                self.note(f"{node}: its agent may start")
                os.kill(agent.pid, signal.SIGCONT)
        for node in nodes:
            self.wait_for_agent(node, dead[node])
            self.away.append((node, began, time.monotonic()))

    # ---- clients -------------------------------------------------------------------------------

    def places(self) -> list[Place]:
        service = self.get("Service", "web")
        assert service is not None
        four, six = service["spec"]["clusterIPs"]
        first, last = self.nodes[0], self.nodes[-1]
        groups = cgroups.Groups(self.name)

        def streams(addresses: list[str], via: str, port: int = PORT) -> list[Stream]:
            kinds = (("new", 0), ("ask", 0), *itertools.product(("long", "connected", "loose"), (0, PASSING)))
            return [
                Stream(kind, address, port, via, requests=requests)
                for address in addresses
                for kind, requests in kinds
            ]

        def group(node: str) -> Path:
            return cgroups.make(groups.node(node) / "callers")

        def named(node: str) -> Stream:
            return Stream("new", "", PORT, node, name=NAME, server=str(IPV4_SERVICES[DNS_PLACE]))

        outside = [
            stream
            for node in self.plan.all_nodes()
            for stream in streams(list(node.addresses()), node.name, NODE_PORT)
        ]
        outside += streams([EXTERNAL], first) + streams([BALANCER], last)
        within = {node: streams([four, six], node) for node in (first, last)}
        found = [
            Place(
                f"pod of {node}", self.namespace(f"client-{node}"), group(node), [*within[node], named(node)]
            )
            for node in (first, last)
        ]
        return [
            *found,
            Place("pod, by packets", self.namespace("packets"), None, within[first]),
            Place("node", self.layout.namespace(last), group(last), within[last]),
            Place("outside", self.outside, None, outside),
        ]

    @contextmanager
    def called(self) -> Iterator[Verdict]:
        """Everybody calls the service in the body; what came of it is complete after it."""
        clients, verdict = Clients(self.places()), Verdict()
        try:
            clients.wait_ready()
            self.note("all clients have had an answer")
            yield verdict
            verdict.complete(self, clients.finish())
        finally:
            clients.kill()


class Verdict:
    """What failed though its backend lived, and what may fail: a connection whose backend has ended, or a new
    one by a node whose agent was away when a backend ended, so that its tables still name that one."""

    def __init__(self) -> None:
        self.answers: Counter[str] = Counter()
        self.pods: Counter[str] = Counter()
        self.excused: list[tuple[str, Failure]] = []
        self.lost: list[tuple[str, Failure]] = []
        self._events: list[tuple[float, str]] = []
        self._pause = 0.0

    def complete(self, town: Town, outcomes: dict[str, Outcome]) -> None:
        ends = town.ends()
        self._events = sorted([*town.events, *((at, f"{name} has ended") for name, at in ends.items())])
        for place, outcome in outcomes.items():
            self.answers.update(outcome.answers)
            self.pods.update(outcome.pods)
            self._pause = max(self._pause, outcome.pause)
            for failure in outcome.failures:
                kind = self.excused if _excused(failure, ends, town.away) else self.lost
                kind.append((place, failure))

    def __str__(self) -> str:
        """Each failure, and what was done last before it began."""
        began = self._events[0][0] if self._events else 0.0
        lines = [
            f"{sum(self.answers.values())} answers ({dict(self.answers)}) of {len(self.pods)} backends, "
            f"{len(self.lost)} lost, {len(self.excused)} of backends that had ended; the clients' own "
            f"longest pause: {self._pause:.3f} s"
        ]
        for mark, failures in (("LOST", self.lost), ("of one that had ended", self.excused)):
            for place, failure in sorted(failures, key=lambda each: each[1].began):
                before = [what for at, what in self._events if at <= failure.failed]
                lines.append(
                    f"  {mark}: {failure.began - began:.3f} to {failure.failed - began:.3f} s, {place}, "
                    f"{failure.stream}, backend {failure.pod or '(new)'}: {failure.error}; {before[-1:]}"
                )
        lines += [f"  {at - began:7.3f} s {what}" for at, what in self._events]
        return "\n".join(lines)


def _excused(failure: Failure, ends: dict[str, float], away: list[tuple[str, float, float]]) -> bool:
    if failure.pod:
        end = ends.get(failure.pod)
        return end is not None and end <= failure.failed and failure.began >= end - ON_ITS_WAY
    return any(
        node == failure.stream.via and first <= end <= last and end - ON_ITS_WAY <= failure.began <= last
        for node, first, last in away
        for end in ends.values()
    )


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("backend") / "backend"
    source = Path(__file__).with_name("backend.c")
    subprocess.run(["cc", "-O2", "-Wall", "-Werror", "-o", program, source], check=True)
    return program


@contextmanager
def town(backend: Path, folder: Path, nodes: int, routing: Routing, linger: float) -> Iterator[Town]:
    """``linger``: seconds for which a backend that is told to go serves on, so that all agents hear of it."""
    ends = folder / "ends"
    text = MANIFESTS.format(
        few=FEW,
        program=backend,
        linger=int(linger * 1000),
        ends=ends,
        external=EXTERNAL,
        port=PORT,
        node_port=NODE_PORT,
    )
    clients = {"client-node1": "node1", f"client-node{nodes}": f"node{nodes}", "packets": "node1"}
    text += "".join(CLIENT.format(name=name, node=node) for name, node in clients.items())
    with live_as(Town, "churn", text, nodes=nodes, routing=routing, dns=True) as made:
        made.ends_file = ends
        made.change("Service", "web", balanced)
        plans = list(made.plan.all_nodes())
        ways = zip((EXTERNAL, BALANCER), (plans[0], plans[-1]), strict=True)
        ip([f"route replace {address} via {node.addresses()[0]}" for address, node in ways], made.outside)
        made.wait_for_backends(FEW, FEW)
        yield made


def balanced(service: Document) -> None:
    """As whoever gives load balancers their addresses would write it."""
    service.setdefault("status", {})["loadBalancer"] = {"ingress": [{"ip": BALANCER}]}


ROUTINGS = pytest.mark.parametrize(
    "routing",
    [Routing.OVERLAY, pytest.param(Routing.NATIVE, marks=pytest.mark.slow)],
    ids=lambda each: each.value,
)


@ROUTINGS
def test_no_client_of_a_living_backend_notices(backend: Path, tmp_path: Path, routing: Routing) -> None:
    with town(backend, tmp_path, 2, routing, 3.0) as made, made.called() as verdict:
        made.scale(8)
        made.end_agent("node1", signal.SIGKILL)
        made.wait_for_backends(8, 8)
        with made.without_agents(["node2"]):
            made.scale(FEW)
            made.wait_for_ends(8 - FEW)
        made.scale(FEW + 1)
        made.wait_for_backends(FEW + 1, FEW + 1)
    assert not verdict.lost, str(verdict)
    assert len(verdict.pods) >= 8, str(verdict)


@pytest.mark.slow
@ROUTINGS
def test_no_client_of_a_living_backend_notices_for_a_minute(
    backend: Path, tmp_path: Path, routing: Routing
) -> None:
    many = 30
    with town(backend, tmp_path, 4, routing, 10.0) as made, made.called() as verdict:
        minute = time.monotonic() + 60
        made.restart_agents()
        made.scale(many)
        made.wait_for_backends(many // 2, many)
        made.restart_agents()
        made.wait_for_backends(many, many)
        with made.without_agents(["node3", "node4"]):
            made.scale(many // 2)
            made.wait_for_backends(many // 2, many // 2)
            made.scale(many)  # those on the living nodes
            made.wait_for_backends(many // 2 + 1, many)
        made.wait_for_backends(many, many)
        made.scale(FEW)
        made.restart_agents()
        made.wait_for_backends(FEW, FEW)
        made.wait_for_ends(many - FEW)
        while time.monotonic() < minute:
            made.restart_agents()
    assert not verdict.lost, str(verdict)
    assert len(verdict.pods) >= many, str(verdict)
