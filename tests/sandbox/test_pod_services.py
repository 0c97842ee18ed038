"""What follows from the pods of a node: host ports, redirects to them, what load balancers are told. What
annotations ask for, and policies that name a service whose endpoints somebody else tells."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from caller import REFUSED, Caller
from runtime import Live, addresses, live_as

from axoneme.rpc import RpcError
from axoneme.sandbox import cgroups

HOST_PORT, DIRECT_PORT = 18080, 30090
#: In the world outside, where an echo server is.
PARTNER, STRANGER = "203.0.113.10", "203.0.113.20"
METADATA = "169.254.169.254"

POD = """
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {app}}}}}
spec:
  nodeName: {node}
  containers: [{{name: main, image: echo, ports: [{{name: http, containerPort: 8080{more}}}]}}]
"""
MANIFESTS = (
    POD.format(name="client", app="client", node="node1", more="")
    + POD.format(name="web-1", app="web", node="node1", more=f", hostPort: {HOST_PORT}")
    + POD.format(name="web-2", app="web", node="node2", more="")
    + POD.format(name="far", app="far", node="node2", more="")
    + """
---
apiVersion: v1
kind: Service
metadata: {name: balancer}
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: direct, annotations: {service.cilium.io/forwarding-mode: dsr}}
spec:
  type: NodePort
  ipFamilyPolicy: PreferDualStack
  selector: {app: far}
  ports: [{port: 80, targetPort: http, nodePort: 30090}]
---
apiVersion: v1
kind: Service
metadata: {name: world}
spec: {ports: [{name: http, port: 80}]}
"""
)
WORLD = """
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: world-1, labels: {{kubernetes.io/service-name: world}}}}
addressType: IPv4
ports: [{{name: http, port: 8080, protocol: TCP}}]
endpoints: [{{addresses: ["{address}"]}}]
"""
ONLY_WORLD = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: only-world}
spec:
  endpointSelector: {matchLabels: {app: client}}
  egress: [{toServices: [{k8sService: {serviceName: world, namespace: default}}]}]
"""
REDIRECT = """
apiVersion: cilium.io/v2
kind: CiliumLocalRedirectPolicy
metadata: {{name: {name}}}
spec:
  redirectFrontend: {frontend}
  redirectBackend:
    localEndpointSelector: {{matchLabels: {{app: web}}}}
    toPorts: [{{port: "8080", protocol: TCP}}]
"""
TO_SERVICE = REDIRECT.format(name="web", frontend="{serviceMatcher: {serviceName: web, namespace: default}}")
TO_ADDRESS = REDIRECT.format(
    name="metadata",
    frontend=f'{{addressMatcher: {{ip: {METADATA}, toPorts: [{{port: "80", protocol: TCP}}]}}}}',
)


class House(Live):
    """The sandbox, and who calls."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.callers: dict[str, Caller] = {}

    def cluster_ip(self, name: str) -> str:
        found = self.get("Service", name)
        assert found is not None
        return str(found["spec"]["clusterIP"])

    def address(self, node: str, version: int = 4) -> str:
        found = next(each for each in self.plan.all_nodes() if each.name == node)
        return next(str(each) for each in found.addresses() if (":" in str(each)) == (version == 6))

    def pods_that_answer(self, caller: str, address: str, port: int = 80) -> set[str]:
        """So often that a second one would not be missed by chance."""
        answers = [self.callers[caller].ask(address, port) for _ in range(24)]
        return {each["pod"] if isinstance(each, dict) else str(each) for each in answers}


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with live_as(House, "pod-services", MANIFESTS, nodes=2) as made, ExitStack() as stack:
        groups = cgroups.Groups(made.name)

        def caller(name: str, namespace: Any, node: str = "") -> None:
            group = cgroups.make(groups.node(node) / "callers") if node else None
            made.callers[name] = stack.enter_context(Caller(namespace, group))

        caller("pod", made.namespace("client"), "node1")
        caller("pod by packets", made.namespace("client"))
        caller("node1", made.layout.namespace("node1"), "node1")
        caller("node2", made.layout.namespace("node2"), "node2")
        caller("outside", made.outside)
        yield made


@pytest.mark.parametrize("caller", ["pod", "pod by packets", "node1", "node2", "outside"])
def test_a_host_port_leads_to_its_pod(house: House, caller: str) -> None:
    assert house.pods_that_answer(caller, house.address("node1"), HOST_PORT) == {"web-1"}


def test_a_host_port_is_that_of_one_node(house: House) -> None:
    assert house.callers["outside"].ask(house.address("node2"), HOST_PORT) == REFUSED


def test_a_host_port_outlives_the_agent(house: House) -> None:
    """None of the calls fails that are made before, while and after another agent takes over."""
    dead = house.kill_agents()
    answers = []
    while not _new_agents(house, dead):
        answers.append(house.callers["outside"].ask(house.address("node1"), HOST_PORT))
    answers += [house.callers["outside"].ask(house.address("node1"), HOST_PORT) for _ in range(20)]
    house.wait_for_new_agents(dead)
    wrong = [each for each in answers if not (isinstance(each, dict) and each["pod"] == "web-1")]
    assert len(answers) > 20 and not wrong


def _new_agents(house: House, dead: list[int]) -> bool:
    try:
        found = [agent.call("status") for agent in house.agents()]
    except RpcError:
        return False
    return all(each["phase"] == "ready" and each["pid"] not in dead for each in found)


def test_a_redirected_service_stays_on_the_node(house: House) -> None:
    address = house.cluster_ip("web")
    house.wait(
        lambda: house.pods_that_answer("pod", address) == {"web-1", "web-2"}, "both pods answer, without it"
    )
    house.apply(TO_SERVICE)
    try:
        for caller, pod in (("pod", "web-1"), ("pod by packets", "web-1"), ("node2", "web-2")):
            house.wait(
                lambda caller=caller, pod=pod: house.pods_that_answer(caller, address) == {pod},
                f"{caller} reaches {pod} only",
            )
    finally:
        house.delete("CiliumLocalRedirectPolicy", "web")
    house.wait(lambda: house.pods_that_answer("pod", address) == {"web-1", "web-2"}, "both pods answer again")


def test_a_redirected_address_is_the_pod_s(house: House) -> None:
    house.apply(TO_ADDRESS)
    try:
        for caller in ("pod", "pod by packets"):
            house.wait(
                lambda caller=caller: house.pods_that_answer(caller, METADATA) == {"web-1"},
                f"{caller} reaches web-1",
            )
    finally:
        house.delete("CiliumLocalRedirectPolicy", "metadata")


def test_load_balancers_are_told_whether_the_node_has_endpoints(house: House) -> None:
    found = house.get("Service", "balancer")
    assert found is not None
    port = found["spec"]["healthCheckNodePort"]

    def told(node: str) -> tuple[str, int]:
        curl = ["curl", "-s", "-m", "5", "-w", "\n%{http_code}", f"http://{house.address(node)}:{port}/"]
        said = subprocess.run(
            ["nsenter", f"--net={house.outside}", "--", *curl], capture_output=True, text=True, check=True
        )
        body, code = said.stdout.rsplit("\n", 1)
        return code, json.loads(body)["localEndpoints"]

    assert told("node1") == told("node2") == ("200", 1)
    house.delete("Pod", "web-2")
    house.wait(lambda: told("node2") == ("503", 0), "node2 has no endpoint any more")
    assert told("node1") == ("200", 1)
    house.apply(POD.format(name="web-2", app="web", node="node2", more=""))
    house.settle()
    house.wait(lambda: told("node2") == ("200", 1), "node2 has one again")


@pytest.mark.parametrize("version", [4, 6])
def test_a_backend_elsewhere_sees_its_client_where_it_answers_directly(house: House, version: int) -> None:
    answer = house.callers["outside"].ask(house.address("node1", version), DIRECT_PORT)
    assert isinstance(answer, dict) and answer["pod"] == "far"
    assert answer["from"] == [house.address("node1", version), DIRECT_PORT]
    assert answer["peer"]["address"] not in (house.address("node1", version), house.address("node2", version))


def test_policies_mean_the_slices_of_a_service_without_selector(house: House) -> None:
    house.apply(WORLD.format(address=PARTNER))
    house.apply(ONLY_WORLD)
    house.policies_loaded(1)
    web = addresses(house.pod("web-1"))[0]
    try:
        ask = house.callers["pod"].ask
        house.wait(lambda: isinstance(ask(house.cluster_ip("world"), 80), dict), "the partner answers")
        assert isinstance(ask(PARTNER, 8080), dict)
        assert not isinstance(ask(STRANGER, 8080, patience=0.5), dict)
        assert not isinstance(ask(web, 8080, patience=0.5), dict)
        house.apply(WORLD.format(address=STRANGER))
        house.wait(lambda: isinstance(ask(STRANGER, 8080, patience=0.5), dict), "the stranger is meant now")
        assert not isinstance(ask(PARTNER, 8080, patience=0.5), dict)
    finally:
        house.delete("CiliumNetworkPolicy", "only-world")
