"""What kube-proxy does, case by case, with real clients: from a pod, from a node, from outside.

One sandbox of three nodes: node1 has the clients and one backend, node2 the other, node3 none.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import sctp
from caller import REFUSED, TIMEOUT, Caller
from runtime import Live, addresses, live_as

from axoneme.net.commands import ip
from axoneme.sandbox import cgroups
from axoneme.sandbox.client import Protocol, Verdict
from axoneme.sandbox.plan import DNS_PLACE, IPV4_ROUTER, IPV4_SERVICES, IPV6_ROUTER, Routing
from axoneme.sandbox.report import SandboxReport

HTTP, NAMES = 80, 53
FAMILIES = ("ipv4", "ipv6")
PROTOCOLS = ("tcp", "udp", "udp-unconnected")
EXTERNAL = {"ipv4": "198.18.0.10", "ipv6": "2001:db8:c::10"}
BALANCER = {"ipv4": "198.18.1.10", "ipv6": "2001:db8:d::10"}
NODE_PORT, LOCAL_PORT, EMPTY_PORT, SCTP_PORT, STICKY_PORT, NO_PORT, ZONE_PORT = range(30080, 30087)
HOST_PORT = 18080
#: Where the world calls from, and where else.
PARTNER, STRANGER = "203.0.113.10", "203.0.113.20"

#: Says who it is, and does not end when it is asked to.
STUBBORN = """
import json, os, signal, socket, threading
signal.signal(signal.SIGTERM, lambda *_: None)
def serve(talk):
    while talk.recv(4096):
        talk.sendall(json.dumps({"pod": os.uname().nodename}).encode() + b"\\n")
server = socket.create_server(("::", 8080), family=socket.AF_INET6, dualstack_ipv6=True)
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"""


def pod(name: str, app: str, node: str, more: str = "") -> str:
    return f"""
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {app}}}}}
spec:
  nodeName: {node}
  containers:
  - name: main
    image: echo
    ports: [{{name: http, containerPort: 8080{more}}}, {{name: names, containerPort: 5353, protocol: UDP}}]
"""


def stubborn(name: str, node: str) -> str:
    script = "".join(f"\n      {line}" for line in STUBBORN.splitlines())
    return f"""
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: leave}}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 60
  containers:
  - name: main
    image: python
    command: ["{sys.executable}", "-c"]
    args:
    - |{script}
    ports: [{{name: http, containerPort: 8080}}]
"""


def service(
    name: str, spec: str = "", app: str = "web", ports: str = "", node_ports: str = "", metadata: str = ""
) -> str:
    ports = ports or (
        f"[{{name: http, port: {HTTP}, targetPort: http{node_ports}}},"
        f" {{name: names, port: {NAMES}, targetPort: names, protocol: UDP{node_ports}}}]"
    )
    selector = f"selector: {{app: {app}}}" if app else ""
    return f"""
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, {metadata}}}
spec:
  ipFamilyPolicy: PreferDualStack
  ports: {ports}
  {selector}
  {spec}
"""


MANIFESTS = "".join(
    (
        pod("client", "client", "node1"),
        pod("far", "client", "node3"),
        pod("web-1", "web", "node1"),
        pod("web-2", "web", "node2"),
        pod("host", "host", "node1", f", hostPort: {HOST_PORT}"),
        stubborn("leave-1", "node1"),
        stubborn("leave-2", "node2"),
        pod("gone-1", "gone", "node1"),
        pod("gone-2", "gone", "node2"),
        service("cluster"),
        service("node", "type: NodePort", node_ports=f", nodePort: {NODE_PORT}"),
        service("external", f'externalIPs: ["{EXTERNAL["ipv4"]}", "{EXTERNAL["ipv6"]}"]'),
        service("balancer", "type: LoadBalancer\n  loadBalancerClass: test/none"),
        service(
            "ranges",
            "type: LoadBalancer\n  loadBalancerClass: test/none\n"
            f'  loadBalancerSourceRanges: ["{PARTNER}/32"]',
        ),
        service(
            "local",
            "type: LoadBalancer\n  loadBalancerClass: test/none\n  externalTrafficPolicy: Local",
            node_ports=f", nodePort: {LOCAL_PORT}",
        ),
        service("proxied", "type: LoadBalancer\n  loadBalancerClass: test/none"),
        service("others", metadata="labels: {service.kubernetes.io/service-proxy-name: another}"),
        service(
            "shut",
            "type: LoadBalancer\n  loadBalancerClass: test/none\n"
            f'  loadBalancerSourceRanges: ["{PARTNER}/32"]',
            metadata="annotations: {service.cilium.io/src-ranges-policy: deny}",
        ),
        service(
            "balanced",
            "type: LoadBalancer\n  loadBalancerClass: test/none",
            node_ports=f", nodePort: {NO_PORT}",
            metadata="annotations: {service.cilium.io/type: LoadBalancer}",
        ),
        service(
            "zone-a",
            "type: NodePort",
            node_ports=f", nodePort: {ZONE_PORT}",
            metadata="annotations: {service.cilium.io/node-selector: topology.kubernetes.io/zone=a}",
        ),
        service("inside", "internalTrafficPolicy: Local"),
        service("gone", app="gone"),
        service(
            "sticky",
            "type: NodePort\n  sessionAffinity: ClientIP\n"
            "  sessionAffinityConfig: {clientIP: {timeoutSeconds: 3}}",
            node_ports=f", nodePort: {STICKY_PORT}",
        ),
        service("near", "trafficDistribution: PreferClose"),
        service("empty", "type: NodePort", app="nobody", node_ports=f", nodePort: {EMPTY_PORT}"),
        service(
            "association",
            "type: NodePort",
            ports=f"[{{port: 9, targetPort: 9000, protocol: SCTP, nodePort: {SCTP_PORT}}}]",
        ),
        service("headless", "clusterIP: None"),
        """
---
apiVersion: v1
kind: Service
metadata: {name: alias}
spec: {type: ExternalName, externalName: partner.example}
""",
        service("leave", app="leave", ports=f"[{{name: http, port: {HTTP}, targetPort: http}}]"),
        service("world", app="", ports=f"[{{name: http, port: {HTTP}}}]"),
        f"""
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: world-1, labels: {{kubernetes.io/service-name: world}}}}
addressType: IPv4
ports: [{{name: http, port: 8080, protocol: TCP}}]
endpoints: [{{addresses: ["{PARTNER}"], conditions: {{ready: true}}}}]
""",
    )
)


class Town(Live):
    """The sandbox, its services' addresses, and who calls them."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.callers: dict[str, Caller] = {}

    def up(self, text: str = "", deadline: float = 60.0) -> SandboxReport:
        return super().up(text, deadline)

    def spec(self, name: str) -> dict[str, Any]:
        found = self.get("Service", name)
        assert found is not None
        spec: dict[str, Any] = found["spec"]
        return spec

    def cluster_ip(self, name: str, family: str) -> str:
        return next(each for each in self.spec(name)["clusterIPs"] if (":" in each) == (family == "ipv6"))

    def node(self, name: str, family: str) -> str:
        node = next(each for each in self.plan.all_nodes() if each.name == name)
        return next(each for each in node.addresses() if (":" in each) == (family == "ipv6"))

    def all_backends(self, ask: Callable[[], Any], wanted: set[str]) -> list[Any]:
        """Asks until each of these pods has answered, and then as often again: nobody else may."""
        answers: list[Any] = []
        self.wait(
            lambda: answers.append(said(ask())) or {each["pod"] for each in answers} >= wanted,
            f"answers of {wanted}",
        )
        answers += [said(ask()) for _ in range(4)]
        assert {each["pod"] for each in answers} == wanted
        return answers


def said(answer: Any) -> dict[str, Any]:
    assert isinstance(answer, dict), answer
    return answer


def port_of(protocol: str) -> int:
    return HTTP if protocol == "tcp" else NAMES


@pytest.fixture(
    scope="module", params=[Routing.OVERLAY, pytest.param(Routing.NATIVE, marks=pytest.mark.slow)]
)
def town(request: pytest.FixtureRequest) -> Iterator[Town]:
    with live_as(Town, "kube-proxy", MANIFESTS, nodes=3, routing=request.param) as made, ExitStack() as stack:
        groups = cgroups.Groups(made.name)

        def caller(name: str, namespace: Path, node: str = "") -> None:
            group = cgroups.make(groups.node(node) / "callers") if node else None
            made.callers[name] = stack.enter_context(Caller(namespace, group))

        caller("pod", made.namespace("client"), "node1")
        caller("pod by packets", made.namespace("client"))
        caller("far pod", made.namespace("far"), "node3")
        caller("backend", made.namespace("web-1"), "node1")
        caller("backend by packets", made.namespace("web-1"))
        caller("node", made.layout.namespace("node1"), "node1")
        caller("far node", made.layout.namespace("node3"), "node3")
        caller("outside", made.outside)
        for node, zone in (("node1", "a"), ("node2", "b"), ("node3", "a")):
            made.change(
                "Node",
                node,
                lambda it, zone=zone: (
                    it["metadata"].setdefault("labels", {}).update({"topology.kubernetes.io/zone": zone})
                ),
            )
        for family, address in BALANCER.items():
            for number, name in enumerate(("balancer", "ranges", "local", "proxied", "shut", "balanced")):
                status(made, name, family, address[:-2] + f"{1 + number}0")
        made.settle()
        way(made)
        yield made


def status(town: Town, name: str, family: str, address: str) -> None:
    """What whoever gives load balancers their addresses would write."""

    def change(document: dict[str, Any]) -> None:
        ingress = document.setdefault("status", {}).setdefault("loadBalancer", {}).setdefault("ingress", [])
        ingress.append({"ip": address, "ipMode": "Proxy" if name == "proxied" else "VIP"})

    town.change("Service", name, change)


def balancer(town: Town, name: str, family: str) -> str:
    found = town.get("Service", name)
    assert found is not None
    addresses = [each["ip"] for each in found["status"]["loadBalancer"]["ingress"]]
    return next(each for each in addresses if (":" in each) == (family == "ipv6"))


def way(town: Town) -> None:
    """The router sends what is for services' outside addresses to node3, which has no backend."""
    ip(
        [f"route replace {each} via {town.node('node3', 'ipv4')}" for each in ("198.18.0.0/16",)]
        + [f"route replace {IPV4_SERVICES} via {town.node('node1', 'ipv4')}"]
        + [
            f"route replace {each} via {town.node('node3', 'ipv6')}"
            for each in ("2001:db8:c::/64", "2001:db8:d::/64")
        ],
        town.outside,
    )


INSIDE = ("pod", "pod by packets", "far pod", "node", "far node")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("caller", INSIDE)
def test_cluster_ip(town: Town, caller: str, protocol: str, family: str) -> None:
    address, port = town.cluster_ip("cluster", family), port_of(protocol)
    answers = town.all_backends(lambda: town.callers[caller].ask(address, port, protocol), {"web-1", "web-2"})
    assert {tuple(each["from"]) for each in answers} == {(address, port)}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("node", ["node1", "node2", "node3"])
@pytest.mark.parametrize("caller", ["pod", "pod by packets", "node", "outside"])
def test_node_port(town: Town, caller: str, node: str, protocol: str, family: str) -> None:
    address = town.node(node, family)
    answers = town.all_backends(
        lambda: town.callers[caller].ask(address, NODE_PORT, protocol), {"web-1", "web-2"}
    )
    assert {tuple(each["from"]) for each in answers} == {(address, NODE_PORT)}


def test_node_port_at_the_node_s_loopback(town: Town) -> None:
    town.all_backends(lambda: town.callers["node"].ask("127.0.0.1", NODE_PORT), {"web-1", "web-2"})


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("caller", ["pod", "pod by packets", "node", "outside"])
@pytest.mark.parametrize("name", ["external", "balancer"])
def test_external_ip_and_load_balancer(
    town: Town, name: str, caller: str, protocol: str, family: str
) -> None:
    address = EXTERNAL[family] if name == "external" else balancer(town, name, family)
    answers = town.all_backends(
        lambda: town.callers[caller].ask(address, port_of(protocol), protocol), {"web-1", "web-2"}
    )
    assert {tuple(each["from"]) for each in answers} == {(address, port_of(protocol))}


@pytest.mark.parametrize("caller", ["pod", "pod by packets", "node"])
def test_a_service_without_a_selector_is_what_its_slices_say(town: Town, caller: str) -> None:
    assert (
        said(town.callers[caller].ask(town.cluster_ip("world", "ipv4"), HTTP))["server"]["address"] == PARTNER
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("caller", ["pod", "pod by packets", "node", "outside"])
def test_session_affinity(town: Town, caller: str, protocol: str, family: str) -> None:
    ask = town.callers[caller].ask
    address, port = town.cluster_ip("sticky", family), port_of(protocol)
    if caller == "outside":
        address, port = town.node("node3", family), STICKY_PORT
    assert len({said(ask(address, port, protocol))["pod"] for _ in range(8)}) == 1


def test_session_affinity_ends_with_its_timeout(town: Town) -> None:
    ask, address = town.callers["far pod"].ask, town.cluster_ip("sticky", "ipv4")
    first = said(ask(address, HTTP))["pod"]

    def another() -> bool:
        time.sleep(5)  # longer than the timeout and a tick
        return bool(said(ask(address, HTTP))["pod"] != first)

    town.wait(another, "another backend than the first", 60)


@pytest.mark.parametrize("family", FAMILIES)
def test_external_traffic_policy_local(town: Town, family: str) -> None:
    """Only backends of the node that was called, and they see the client's own address."""
    outside = town.callers["outside"]
    for node, name in (("node1", "web-1"), ("node2", "web-2")):
        answers = town.all_backends(
            lambda node=node: outside.ask(town.node(node, family), LOCAL_PORT), {name}
        )
        router = str(IPV4_ROUTER if family == "ipv4" else IPV6_ROUTER)
        assert {each["peer"]["address"] for each in answers} == {router}
    assert outside.ask(town.node("node3", family), LOCAL_PORT, patience=1.0) in (REFUSED, TIMEOUT)
    # Who calls from within the cluster gets all.
    town.all_backends(
        lambda: town.callers["pod"].ask(balancer(town, "local", family), HTTP), {"web-1", "web-2"}
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("caller", ["pod", "pod by packets", "node"])
def test_internal_traffic_policy_local(town: Town, caller: str, family: str) -> None:
    address = town.cluster_ip("inside", family)
    town.all_backends(lambda: town.callers[caller].ask(address, HTTP), {"web-1"})
    assert town.callers["far pod"].ask(address, HTTP) == REFUSED
    assert town.callers["far node"].ask(address, HTTP) == REFUSED


def test_source_ranges(town: Town) -> None:
    address = balancer(town, "ranges", "ipv4")
    ask = town.callers["outside"].ask
    assert said(ask(address, HTTP, source=PARTNER))["pod"] in ("web-1", "web-2")
    assert ask(address, HTTP, source=STRANGER, patience=1.0) == TIMEOUT
    # The node port of the service is for whom the ranges say, too; the cluster is not asked.
    assert said(town.callers["pod"].ask(address, HTTP))["pod"] in ("web-1", "web-2")


def test_source_ranges_of_who_may_not(town: Town) -> None:
    address = balancer(town, "shut", "ipv4")
    ask = town.callers["outside"].ask
    assert said(ask(address, HTTP, source=STRANGER))["pod"] in ("web-1", "web-2")
    assert ask(address, HTTP, source=PARTNER, patience=1.0) == TIMEOUT


def test_cluster_addresses_are_not_for_the_world(town: Town) -> None:
    assert not isinstance(
        town.callers["outside"].ask(town.cluster_ip("cluster", "ipv4"), HTTP, patience=1.0), dict
    )


@pytest.mark.parametrize("caller", ["pod", "pod by packets", "node"])
def test_what_is_for_another_proxy(town: Town, caller: str) -> None:
    """By its label, or because the balancer's address is one that wants to be called itself."""
    ask = town.callers[caller].ask
    assert not isinstance(ask(town.cluster_ip("others", "ipv4"), HTTP, patience=1.0), dict)
    assert not isinstance(ask(balancer(town, "proxied", "ipv4"), HTTP, patience=1.0), dict)
    assert said(ask(town.cluster_ip("proxied", "ipv4"), HTTP))["pod"] in ("web-1", "web-2")


@pytest.mark.parametrize("caller", ["pod", "outside"])
def test_only_one_type_of_frontends(town: Town, caller: str) -> None:
    ask = town.callers[caller].ask
    assert said(ask(balancer(town, "balanced", "ipv4"), HTTP))["pod"] in ("web-1", "web-2")
    assert not isinstance(ask(town.node("node1", "ipv4"), NO_PORT, patience=1.0), dict)


def test_only_some_nodes_serve_it(town: Town) -> None:
    ask = town.callers["outside"].ask
    for node, served in (("node1", True), ("node2", False), ("node3", True)):
        answer = ask(town.node(node, "ipv4"), ZONE_PORT, patience=1.0)
        assert isinstance(answer, dict) == served, (node, answer)


@pytest.mark.parametrize("family", FAMILIES)
def test_whom_backends_see(town: Town, family: str) -> None:
    """Of who calls from outside: himself where they are on the node that was called, else that node."""
    answers = town.all_backends(
        lambda: town.callers["outside"].ask(town.node("node1", family), NODE_PORT), {"web-1", "web-2"}
    )
    router = str(IPV4_ROUTER if family == "ipv4" else IPV6_ROUTER)
    seen = {(each["pod"], each["peer"]["address"]) for each in answers}
    assert seen == {("web-1", router), ("web-2", town.node("node1", family))}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("caller", ["pod", "pod by packets", "node", "outside"])
def test_without_backends_callers_are_refused_at_once(
    town: Town, caller: str, protocol: str, family: str
) -> None:
    if caller == "outside":
        assert town.callers[caller].ask(town.node("node1", family), EMPTY_PORT, protocol) == REFUSED
    else:
        address = town.cluster_ip("empty", family)
        assert town.callers[caller].ask(address, port_of(protocol), protocol) == REFUSED


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("caller", ["backend", "backend by packets"])
def test_a_backend_that_gets_itself(town: Town, caller: str, protocol: str, family: str) -> None:
    address = town.cluster_ip("cluster", family)
    answers = town.all_backends(
        lambda: town.callers[caller].ask(address, port_of(protocol), protocol), {"web-1", "web-2"}
    )
    assert {each["from"][0] for each in answers} == {address}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_address_of_a_service_answers_echo_and_refuses_other_ports(town: Town, family: str) -> None:
    address = town.cluster_ip("cluster", family)
    assert town.probe(town.namespace("client"), address, 0, Protocol.ICMP).verdict is Verdict.CONNECTED
    assert town.callers["pod by packets"].ask(address, 81) == REFUSED
    outside = balancer(town, "balancer", family)
    assert town.probe(town.outside, outside, 0, Protocol.ICMP).verdict is Verdict.CONNECTED
    assert town.callers["outside"].ask(outside, 81) == REFUSED


@pytest.mark.parametrize("caller", ["pod", "pod by packets", "far node"])
def test_names(town: Town, caller: str) -> None:
    """Asked of the cluster's name server, which is a service itself."""

    def records(name: str, kind: str) -> list[str]:
        server = str(IPV4_SERVICES[DNS_PLACE])
        return town.callers[caller].resolve(server, f"{name}.default.svc.cluster.local", kind)

    for number, kind in enumerate(("A", "AAAA")):
        assert records("cluster", kind) == [town.cluster_ip("cluster", FAMILIES[number])]
        pods = [addresses(town.pod(name))[number] for name in ("web-1", "web-2")]
        assert records("headless", kind) == sorted(pods)
    assert records("alias", "CNAME") == ["partner.example."]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("caller", ["pod", "pod by packets", "far pod", "far node"])
def test_traffic_stays_in_its_zone(town: Town, caller: str, family: str) -> None:
    address = town.cluster_ip("near", family)
    town.all_backends(lambda: town.callers[caller].ask(address, HTTP), {"web-1"})


UNREADY = """
---
apiVersion: v1
kind: Pod
metadata: {name: lazy, labels: {app: lazy}}
spec:
  nodeName: node2
  containers:
  - name: main
    image: echo
    ports: [{name: http, containerPort: 8080}, {name: names, containerPort: 5353, protocol: UDP}]
    readinessProbe: {tcpSocket: {host: 127.0.0.1, port: 9}}
"""


def test_who_is_not_ready_gets_nothing_unless_it_is_published_all_the_same(town: Town) -> None:
    town.apply(
        UNREADY
        + service("patient", app="lazy")
        + service("published", "publishNotReadyAddresses: true", app="lazy")
    )
    caller = town.callers["pod"]
    town.wait(lambda: town.spec("published").get("clusterIPs"), "the service has addresses")
    address = town.cluster_ip("published", "ipv4")
    town.wait(lambda: isinstance(caller.ask(address, HTTP), dict), "the published one answers")
    assert caller.ask(town.cluster_ip("patient", "ipv4"), HTTP) == REFUSED


def test_callers_of_datagrams_are_told_when_their_backend_goes(town: Town) -> None:
    address, caller = town.cluster_ip("gone", "ipv4"), town.callers["pod"]
    number = caller.hold(address, NAMES, "udp")
    pod = said(caller.say(number))["pod"]
    delete(town, pod)
    town.wait(lambda: not isinstance(caller.say(number), dict), "an error for the held socket")
    (other,) = {"gone-1", "gone-2"} - {pod}
    town.all_backends(lambda: caller.ask(address, NAMES, "udp"), {other})


def test_graceful_termination(town: Town) -> None:
    """Who terminates serves its connections and gets no new ones; where all do, they serve new ones too."""
    address, caller = town.cluster_ip("leave", "ipv4"), town.callers["pod"]
    ask = lambda: caller.ask(address, HTTP)  # noqa: E731
    town.all_backends(ask, {"leave-1", "leave-2"})
    held = town.wait(lambda: _held_by(caller, address, "leave-1"), "a connection to leave-1")
    delete(town, "leave-1")
    town.wait(lambda: {said(ask())["pod"] for _ in range(8)} == {"leave-2"}, "no new connections to leave-1")
    assert said(caller.say(held[0]))["pod"] == "leave-1"
    delete(town, "leave-2")
    town.all_backends(ask, {"leave-1", "leave-2"})
    assert said(caller.say(held[0]))["pod"] == "leave-1"


def _held_by(caller: Caller, address: str, pod: str) -> tuple[int] | None:
    number = caller.hold(address, HTTP)
    return (number,) if said(caller.say(number))["pod"] == pod else None


def delete(town: Town, pod: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "axoneme.cli", "--sandbox", town.name, "delete", "--no-wait", "pod", pod],
        check=True,
        stdout=subprocess.DEVNULL,
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_sctp(town: Town, family: str) -> None:
    """This kernel has no SCTP sockets: raw packets, which are translated on their way."""
    with sctp.Server(town.namespace("web-1"), 9000) as one, sctp.Server(town.namespace("web-2"), 9000) as two:
        for source, address, port in (
            (town.namespace("client"), town.cluster_ip("association", family), 9),
            (town.outside, town.node("node3", family), SCTP_PORT),
            (town.outside, town.node("node1", family), SCTP_PORT),
        ):
            one.asked.clear()
            two.asked.clear()
            for source_port in range(20000, 20012):
                assert sctp.associate(source, address, port, source_port), (source, address)
            assert one.asked
            assert two.asked
