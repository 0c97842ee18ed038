"""Policies about names, from manifests, with pods whose libc asks the cluster's DNS."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import dns.edns
import dns.exception
import dns.message
import dns.query
import dns.rcode
import dns.rrset
import msgspec
import pytest
from runtime import Document, Live, live_as

from axoneme.net import netns
from axoneme.sandbox.client import Verdict
from axoneme.sandbox.plan import IPV4_WORLD, IPV6_WORLD
from axoneme.sandbox.processes import ProcessId

MANIFESTS = """
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop, labels: {app: client}}
spec: {nodeName: node1, containers: [{name: c, image: i, command: [sleep, infinity]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {nodeName: node2, containers: [{name: web, image: web, ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: names, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: client}}
  egress:
    - toEndpoints:
        - matchLabels: {"k8s:io.kubernetes.pod.namespace": kube-system, k8s-app: kube-dns}
      toPorts:
        - ports: [{port: "53", protocol: ANY}]
          rules:
            dns: [{matchPattern: "**.far.test"}, {matchPattern: "*.shop.svc.cluster.local"}]
    - toFQDNs: [{matchName: www.far.test}, {matchPattern: "m*.far.test"}]
      toPorts: [{ports: [{port: "80", protocol: TCP}]}]
    - toEndpoints: [{matchLabels: {app: web}}]
    - toEntities: [world]
      toPorts: [{ports: [{port: "5300", protocol: UDP}], rules: {dns: [{matchPattern: "*.large"}]}}]
"""
MANY = [f"192.0.{number >> 8}.{number & 255}" for number in range(499)]
ZONE = "\n".join(
    [
        "$ORIGIN far.test.",
        f"www A {IPV4_WORLD[1]}",
        f"www AAAA {IPV6_WORLD[1]}",
        "alias CNAME www",
        f"plain A {IPV4_WORLD[2]}",
        f"many A {IPV4_WORLD[0]}",
        *(f"many A {each}" for each in MANY),
        f"more A {IPV4_WORLD[2]}",
        "",
    ]
)
LOOK_UP = """
import json, socket, sys
try:
    found = socket.getaddrinfo(sys.argv[1], 80, type=socket.SOCK_STREAM)
    print(json.dumps(sorted({each[4][0] for each in found})))
except socket.gaierror as failure:
    print(json.dumps(failure.args[0]))
"""


class Named(Live):
    """Its first node has the client."""

    @property
    def client(self) -> Path:
        return self.namespace("client", "shop")

    @property
    def server(self) -> str:
        service = self.get("Service", "kube-dns", "kube-system")
        assert service is not None
        return str(service["spec"]["clusterIP"])

    def look_up(self, name: str) -> list[str] | int:
        """As a program in the pod does, with its own libc: the addresses, or the error."""
        axo = (
            sys.executable,
            "-m",
            "axoneme.cli",
            "--sandbox",
            self.name,
            "exec",
            "-n",
            "shop",
            "client",
            "--",
        )
        command = (*axo, sys.executable, "-c", LOOK_UP, name)
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        found: list[str] | int = json.loads(done.stdout or "-3")
        return found

    def ask(self, name: str, kind: str = "A", tcp: bool = False) -> dns.message.Message:
        """By a socket in the pod's network that is in no control group of a pod: the service's address is
        translated packet by packet."""
        query = dns.message.make_query(name, kind, use_edns=0, payload=1232)
        how = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
        with netns.open_socket(self.client, socket.AF_INET, how) as made:
            made.settimeout(10)
            made.connect((self.server, 53))
            if tcp:
                return dns.query.tcp(query, self.server, timeout=10, sock=made)
            made.setblocking(False)
            for _ in range(10):
                with contextlib.suppress(dns.exception.Timeout):
                    return dns.query.udp(query, self.server, timeout=1, sock=made)
        raise TimeoutError(name)

    def connects(self, address: str) -> bool:
        return self.probe(self.client, address, 80, timeout=1.5).verdict is Verdict.CONNECTED

    def process(self, kind: str) -> ProcessId:
        record = self.layout.node("node1").directory / f"{kind}.pid"
        return msgspec.json.decode(record.read_bytes(), type=ProcessId)

    @contextlib.contextmanager
    def stopped(self, pid: int) -> Iterator[None]:
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)


@pytest.fixture(scope="module")
def zone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dns") / "world.zone"
    path.write_text(ZONE)
    return path


@pytest.fixture(scope="module")
def cluster(zone: Path) -> Iterator[Named]:
    with live_as(Named, "fqdn", MANIFESTS, zone=str(zone), dns=True) as runtime:
        runtime.wait(lambda: runtime.look_up("web") != -3, "names are served through the proxy", 30)
        yield runtime


def test_an_address_is_reached_after_its_name_was_asked_for_and_not_before(cluster: Named) -> None:
    for address in (IPV4_WORLD[1], IPV6_WORLD[1]):
        assert not cluster.connects(address)
    assert cluster.look_up("www.far.test") == sorted((IPV4_WORLD[1], IPV6_WORLD[1]))
    for address in (IPV4_WORLD[1], IPV6_WORLD[1]):
        assert cluster.connects(address)


def test_a_name_that_no_tofqdns_rule_selects_opens_nothing(cluster: Named) -> None:
    assert cluster.look_up("plain.far.test") == [IPV4_WORLD[2]]
    assert not cluster.connects(IPV4_WORLD[2])


def test_other_names_are_refused_and_the_search_list_works(cluster: Named) -> None:
    assert isinstance(cluster.look_up("example.com"), int)
    refused = cluster.ask("example.com")
    assert refused.rcode() == dns.rcode.REFUSED
    assert [each.code for each in refused.options if isinstance(each, dns.edns.EDEOption)] == [18]
    service = cluster.get("Service", "web", "shop")
    assert service is not None
    assert cluster.look_up("web") == [service["spec"]["clusterIP"]]


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_the_service_is_translated_and_proxied_packet_by_packet_too(cluster: Named, tcp: bool) -> None:
    assert cluster.ask("www.far.test", tcp=tcp).answer
    assert cluster.ask("example.org", tcp=tcp).rcode() == dns.rcode.REFUSED


@pytest.mark.parametrize("address", [IPV4_WORLD[2], IPV6_WORLD[2]], ids=["ipv4", "ipv6"])
def test_answers_of_several_fragments_pass(cluster: Named, address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    texts = " ".join(f'"{"x" * 200}"' for _ in range(40))

    def answer_once(server: socket.socket) -> None:
        wire, asker = server.recvfrom(4096)
        made = dns.message.make_response(dns.message.from_wire(wire))
        made.answer = [dns.rrset.from_text("texts.large.", 5, "IN", "TXT", texts)]
        server.sendto(made.to_wire(max_size=65535), asker)

    query = dns.message.make_query("texts.large", "TXT", use_edns=0, payload=16000)
    with (
        netns.open_socket(cluster.outside, family, socket.SOCK_DGRAM) as server,
        netns.open_socket(cluster.client, family, socket.SOCK_DGRAM) as client,
    ):
        server.settimeout(10)
        server.bind((address, 5300))
        answering = threading.Thread(target=answer_once, args=(server,))
        answering.start()
        client.setblocking(False)
        client.connect((address, 5300))
        said = dns.query.udp(query, address, port=5300, timeout=10, sock=client)
        answering.join()
    assert len(said.to_wire(max_size=65535)) > 8000


def test_a_name_with_500_addresses_costs_one_identity(cluster: Named) -> None:
    said = cluster.ask("many.far.test", tcp=True)
    assert len(said.answer[0]) == 500
    assert cluster.connects(IPV4_WORLD[0])

    def known() -> list[Document]:
        listed = cluster.agent("node1").call("names.list")
        return [each for each in listed if each["name"] == "many.far.test"]

    cluster.wait(lambda: len(known()) == 500, "the agent is told, at once or afterwards")
    assert len({each["identity"] for each in known()}) == 1


def test_a_hanging_agent_does_not_keep_new_addresses_from_the_kernel(cluster: Named) -> None:
    with cluster.stopped(cluster.agent_pid("node1")):
        assert not cluster.connects(IPV4_WORLD[2])
        assert cluster.ask("more.far.test").answer
        assert cluster.connects(IPV4_WORLD[2])
    cluster.wait(
        lambda: any(each["name"] == "more.far.test" for each in cluster.agent("node1").call("names.list")),
        "the agent is told afterwards",
    )
    assert cluster.connects(IPV4_WORLD[2])


@pytest.mark.slow
def test_names_are_answered_while_the_agent_is_killed(cluster: Named) -> None:
    failures: list[object] = []
    over = threading.Event()

    def keep_asking() -> None:
        while not over.is_set():
            try:
                if not cluster.ask("www.far.test").answer:
                    failures.append("no answer")
            except Exception as error:
                failures.append(error)

    assert cluster.ask("many.far.test", tcp=True).answer
    asking = threading.Thread(target=keep_asking)
    asking.start()
    try:
        for _ in range(2):
            cluster.wait_for_new_agents(cluster.kill_agents())
            assert cluster.connects(IPV4_WORLD[1])
    finally:
        over.set()
        asking.join()
    assert not failures
    assert cluster.connects(IPV4_WORLD[0]), "what was learnt before is known to the next agent"


def test_a_killed_proxy_comes_again_with_its_rules(cluster: Named) -> None:
    known = cluster.ask("www.far.test").answer[0][0].address
    former = cluster.process("dns-proxy")
    os.kill(former.pid, signal.SIGKILL)
    cluster.wait(lambda: cluster.process("dns-proxy") != former, "another proxy", 30)
    assert cluster.connects(known), "connections to known addresses do not need it"
    assert cluster.ask("www.far.test").answer
    assert cluster.ask("example.com").rcode() == dns.rcode.REFUSED


def test_flows_tell_of_queries_and_refusals(cluster: Named) -> None:
    name = f"flow{secrets.token_hex(4)}.far.test"
    cluster.ask(name)
    cluster.ask(f"{name}.example")
    told = {(f"{name}.", "FORWARDED"), (f"{name}.example.", "DROPPED")}

    def seen() -> bool:
        found = [each for each in cluster.flows() if name in json.dumps(each.get("l7", {}))]
        return told <= {(each["l7"]["dns"]["query"], each["verdict"]) for each in found}

    cluster.wait(seen, "flows of both")
