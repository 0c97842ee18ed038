"""What kube-proxy does, case by case, with real clients: from a pod, from a node, from outside.

One sandbox of three nodes: node1 has the clients and one backend, node2 the other, node3 none.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import sctp
import yaml
from caller import REFUSED, TIMEOUT, Caller
from kubeproxyobjects import (
    BALANCER,
    EMPTY_PORT,
    EXTERNAL,
    HTTP,
    INSIDE_PORT,
    LOCAL_PORT,
    MANIFESTS,
    NAMES,
    NO_PORT,
    NODE_PORT,
    PARTNER,
    SCTP_PORT,
    STICKY_PORT,
    STRANGER,
    UNREADY,
    WISHED,
    ZONE_PORT,
    service,
)
from runtime import Live, addresses, live_as

from axoneme.net.commands import ip
from axoneme.sandbox import cgroups
from axoneme.sandbox.client import Protocol, Verdict
from axoneme.sandbox.plan import DNS_PLACE, IPV4_ROUTER, IPV4_SERVICES, IPV6_ROUTER, Routing
from axoneme.sandbox.report import SandboxReport

FAMILIES = ("ipv4", "ipv6")
PROTOCOLS = ("tcp", "udp", "udp-unconnected")


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
            for number, name in enumerate(
                ("balancer", "ranges", "local", "proxied", "shut", "balanced", "portless")
            ):
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


@pytest.mark.parametrize("caller", ["pod", "pod by packets", "node", "outside"])
def test_internal_traffic_policy_local_says_nothing_of_node_ports(town: Town, caller: str) -> None:
    address = town.node("node1", "ipv4")
    town.all_backends(lambda: town.callers[caller].ask(address, INSIDE_PORT), {"web-1", "web-2"})


@pytest.mark.parametrize("caller", ["pod", "outside"])
def test_a_load_balancer_without_node_ports(town: Town, caller: str) -> None:
    assert not any("nodePort" in port for port in town.spec("portless")["ports"])
    address = balancer(town, "portless", "ipv4")
    town.all_backends(lambda: town.callers[caller].ask(address, HTTP), {"web-1", "web-2"})


@pytest.mark.parametrize("caller", ["pod", "pod by packets", "node"])
def test_a_slice_of_no_weight(town: Town, caller: str) -> None:
    address = town.cluster_ip("weighted", "ipv4")
    answers = [said(town.callers[caller].ask(address, HTTP)) for _ in range(12)]
    assert {each["server"]["address"] for each in answers} == {PARTNER}


def test_what_two_services_claim_is_the_older_one_s(town: Town) -> None:
    """And the other is told of with its problem."""
    town.apply(service("younger", f'externalIPs: ["{EXTERNAL["ipv4"]}"]', app="sticky"))
    town.wait(lambda: town.spec("younger").get("clusterIPs"), "the service has addresses")
    problems = town.wait(lambda: _problems_of(town, "younger"), "the conflict is told of")
    assert "belongs to default/external" in problems[0]
    for caller in ("pod", "outside"):
        ask = town.callers[caller].ask
        town.all_backends(lambda ask=ask: ask(EXTERNAL["ipv4"], HTTP), {"web-1", "web-2"})


def _problems_of(town: Town, name: str) -> list[str]:
    try:
        return [str(each) for each in told(town, name)["problems"]]
    except (subprocess.CalledProcessError, StopIteration):
        return []  # the node has not heard of it yet


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


@pytest.mark.parametrize("caller", ["pod", "pod by packets", "node"])
def test_a_service_that_is_labelled_headless_is_a_name_only(town: Town, caller: str) -> None:
    ask = town.callers[caller].ask
    assert not isinstance(ask(town.cluster_ip("named", "ipv4"), HTTP, patience=1.0), dict)


@pytest.mark.parametrize("caller", ["pod", "pod by packets", "outside"])
def test_an_address_that_is_wished_for_is_not_served(town: Town, caller: str) -> None:
    """Only those that a service was given, by whoever is there for its class."""
    assert not isinstance(town.callers[caller].ask(WISHED, HTTP, patience=1.0), dict)
    assert said(town.callers["pod"].ask(town.cluster_ip("wished", "ipv4"), HTTP))["pod"] in ("web-1", "web-2")


@pytest.mark.parametrize("caller", ["pod", "pod by packets", "outside"])
def test_an_algorithm_of_its_own(town: Town, caller: str) -> None:
    (port,) = {each.get("nodePort") for each in town.spec("table")["ports"] if each["name"] == "http"}
    address, number = town.cluster_ip("table", "ipv4"), HTTP
    if caller == "outside":
        address, number = town.node("node3", "ipv4"), port
    assert (told(town, "table")["algorithm"], told(town, "cluster")["algorithm"]) == ("maglev", "random")
    town.all_backends(lambda: town.callers[caller].ask(address, number), {"web-1", "web-2"})


@pytest.mark.parametrize("caller", ["pod", "pod by packets", "node"])
def test_an_endpoint_in_two_slices_is_one(town: Town, caller: str) -> None:
    address = town.cluster_ip("twice", "ipv4")
    world(town, lambda: town.callers[caller].ask(address, HTTP), {PARTNER, STRANGER})
    assert sorted(each["address"] for each in told(town, "twice")["backends"]) == [PARTNER, STRANGER]


def world(town: Town, ask: Callable[[], Any], wanted: set[str]) -> None:
    """Asks until each of these servers outside has answered, and then as often again: nobody else may."""
    found: list[str] = []

    def server() -> str:
        found.append(said(ask())["server"]["address"])
        return found[-1]

    town.wait(lambda: server() in wanted and wanted.issubset(found), f"answers of {wanted}")
    for _ in range(4):
        server()
    assert set(found) == wanted


@pytest.mark.parametrize(
    ("caller", "server"),
    [
        ("pod", PARTNER),
        ("pod by packets", PARTNER),
        ("node", PARTNER),
        ("far pod", STRANGER),
        ("far node", STRANGER),
    ],
)
def test_the_node_comes_before_its_zone(town: Town, caller: str, server: str) -> None:
    """Both endpoints are for the zone of both callers."""
    world(town, lambda: town.callers[caller].ask(town.cluster_ip("hinted", "ipv4"), HTTP), {server})


@pytest.mark.parametrize("caller", ["pod", "pod by packets"])
def test_connections_outlast_their_hints(town: Town, caller: str) -> None:
    address, calls = town.cluster_ip("moving", "ipv4"), town.callers[caller]
    before = said(calls.ask(address, HTTP))["server"]["address"]
    held = calls.hold(address, HTTP)

    def swap(document: dict[str, Any]) -> None:
        first, second = document["endpoints"]
        first["hints"], second["hints"] = second["hints"], first["hints"]

    town.change("EndpointSlice", "moving", swap)
    town.wait(lambda: said(calls.ask(address, HTTP))["server"]["address"] != before, "the other one answers")
    assert said(calls.say(held))["server"]["address"] == before


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


@pytest.fixture
def healthz(town: Town) -> Iterator[str]:
    """Node2 says whether it takes traffic, at this address. As an operator does it: its file, a new agent."""
    config = town.layout.node("node2").config
    before = config.read_text()

    def begin(text: str) -> None:
        config.write_text(text)
        dead = town.agent_pid("node2")
        os.kill(dead, signal.SIGKILL)
        town.wait_for_new_agents([dead])

    begin(yaml.safe_dump(yaml.safe_load(before) | {"load_balancing": {"healthz": ":10256"}}))
    yield f"{town.node('node2', 'ipv4')}:10256"
    begin(before)


def test_load_balancers_are_told_whether_the_node_takes_traffic(town: Town, healthz: str) -> None:
    def states() -> list[str]:
        urls = [f"http://{healthz}{path}" for path in ("/healthz", "/livez")]
        word = [
            "curl",
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code} ",
            *urls[:1],
            "-o",
            "/dev/null",
            *urls[1:],
        ]
        done = subprocess.run(
            ["nsenter", f"--net={town.outside}", *word], capture_output=True, text=True, check=False
        )
        return done.stdout.split()

    def taint(*keys: str) -> None:
        taints = [{"key": key, "effect": "NoSchedule"} for key in keys]
        town.change("Node", "node2", lambda it: it.setdefault("spec", {}).update(taints=taints))

    town.wait(lambda: states() == ["200", "200"], "the node takes traffic")
    try:
        taint("ToBeDeletedByClusterAutoscaler")
        town.wait(lambda: states() == ["503", "200"], "the node is about to go, and lives")
    finally:
        taint()
    town.wait(lambda: states() == ["200", "200"], "the node stays")


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


# ---- what people see of it -------------------------------------------------------------------------


@pytest.mark.parametrize("caller", ["pod", "pod by packets", "node", "outside"])
def test_flows_say_which_service_was_called(town: Town, caller: str) -> None:
    address, port, name = town.cluster_ip("cluster", "ipv4"), HTTP, "cluster"
    if caller == "outside":
        address, port, name = town.node("node1", "ipv4"), NODE_PORT, "node"
    said_by = said(town.all_backends(lambda: town.callers[caller].ask(address, port), {"web-1", "web-2"})[-1])
    while said_by["pod"] != "web-1":  # the node's own connections are seen only on their way into its pods
        said_by = said(town.callers[caller].ask(address, port))

    def found() -> dict[str, Any] | None:
        wanted = {"to_service": [f"default/{name}"], "from_port": [said_by["peer"]["port"]], "event": ["end"]}
        return next(iter(town.flows(filters=[wanted])), None)

    flow = town.wait(found, "the flow of this call")
    assert flow["destination_service"] == {"name": name, "namespace": "default", "port": "http"}
    assert (flow["IP"]["frontend"], flow["IP"]["frontend_port"]) == (address, port)
    assert (flow["destination"]["pod_name"], flow["l4"]["TCP"]["destination_port"]) == ("web-1", 8080)


@pytest.mark.parametrize("caller", ["pod by packets", "outside"])
def test_drops_say_which_service_had_no_backend(town: Town, caller: str) -> None:
    address, port = town.cluster_ip("empty", "ipv4"), HTTP
    if caller == "outside":
        address, port = town.node("node3", "ipv4"), EMPTY_PORT
    assert town.callers[caller].ask(address, port) == REFUSED

    def found() -> list[dict[str, Any]]:
        wanted = {"service": ["default/empty"], "ip": [address], "port": [port], "event": ["drop"]}
        return town.flows(filters=[wanted])

    flow = town.wait(found, "the drop")[-1]
    assert flow["drop_reason_desc"] == "SERVICE_BACKEND_NOT_FOUND"
    assert flow["destination_service"]["name"] == "empty"


def test_what_is_told_of_a_service_counts_its_calls(town: Town) -> None:
    """By node1, on which the client is: calls that found a backend, and those that found none."""
    caller, address = town.callers["pod"], town.cluster_ip("cluster", "ipv4")
    before, refused = told(town, "cluster"), told(town, "empty")["refused"]
    answers = [said(caller.ask(address, HTTP)) for _ in range(6)]
    caller.ask(town.cluster_ip("empty", "ipv4"), HTTP)
    held = caller.hold(address, HTTP)
    said(caller.say(held))

    def counted() -> bool:
        now = told(town, "cluster")
        sent = now["traffic"]["bytes"] - before["traffic"]["bytes"]
        # Each has sent a SYN, an ACK, its question and a FIN at least.
        return bool(now["chosen"] - before["chosen"] == 7 and sent > 6 * 4 * 40 and now["traffic"]["open"])

    town.wait(counted, f"7 calls counted; {before}")
    assert told(town, "empty")["refused"] == refused + 1
    here = {each["address"]: each["state"] for each in told(town, "cluster")["backends"]}
    assert {here[each["server"]["address"]] for each in answers} == {"active"}
    assert any("no backend" in each for each in told(town, "empty")["problems"])


def told(town: Town, name: str) -> dict[str, Any]:
    """What `axo service get` has of the port ``http``."""
    done = subprocess.run(
        [sys.executable, "-m", "axoneme.cli", "service", "get", name, "--node", "node1", "-o", "json"],
        env={**os.environ, "AXO_SANDBOX": town.name},
        check=True,
        capture_output=True,
    )
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return next(each for each in found if each["port"] == "http")
