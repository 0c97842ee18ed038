"""Policies that ask for mutual authentication, with real packets between two nodes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from runtime import Live, addresses, live_as
from two_nodes import inside

from axoneme.agent.handshake import Contexts, HandshakeError, prove
from axoneme.certificates import making
from axoneme.certificates.authority import DAY, Authority
from axoneme.certificates.files import DIRECTORY, write
from axoneme.certificates.state import identity_subject
from axoneme.datapath.maps import Table
from axoneme.datapath.schema import Schema
from axoneme.sandbox.client import Protocol, Verdict
from axoneme.sandbox.plan import Routing

PODS = """
apiVersion: v1
kind: Pod
metadata: {name: client, labels: {app: client}}
spec: {nodeName: node1, containers: [{name: main, image: echo, ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: near, labels: {app: server}}
spec: {nodeName: node1, containers: [{name: main, image: echo, ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: far, labels: {app: server}}
spec:
  nodeName: node2
  containers:
  - name: main
    image: echo
    ports:
    - {containerPort: 8080}
    - {containerPort: 8081}
    - {containerPort: 8082}
    - {containerPort: 8080, protocol: UDP}
"""
ASKS = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: proven}
spec:
  endpointSelector: {matchLabels: {app: server}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
    authentication: {mode: required}
  - fromEndpoints: [{matchLabels: {app: client}}]
    authentication: {mode: test-always-fail}
    toPorts: [{ports: [{port: "8081", protocol: TCP}]}]
  - fromEndpoints: [{matchLabels: {app: client}}]
    authentication: {mode: disabled}
    toPorts: [{ports: [{port: "8082", protocol: TCP}]}]
"""
#: Seconds: longer than TCP waits before it sends a first packet again, twice.
PATIENT, SHORT = 10.0, 0.5


class Cluster(Live):
    @property
    def authority(self) -> Authority:
        return Authority(self.layout.authority)

    def reaches(
        self, pod: str, version: int = 4, port: int = 8080, timeout: float = PATIENT, udp: bool = False
    ) -> bool:
        target = next(each for each in addresses(self.pod(pod)) if (":" in each) == (version == 6))
        protocol = Protocol.UDP if udp else Protocol.TCP
        found = self.probe(self.namespace("client"), target, port, protocol, timeout=timeout)
        return found.verdict is Verdict.CONNECTED

    def identity(self, pod: str) -> int:
        found: int = self.endpoints()[f"default/{pod}"]["identity"]
        return found

    def proved(self, node: str) -> set[tuple[int, int]]:
        """Pairs in the node's table that hold."""
        schema = Schema.load()
        kinds = schema.struct("authentication_key"), schema.struct("authentication")
        with Table.pinned(self.layout.node(node).bpffs / "maps" / "authenticated", *kinds) as table:
            keys, values = table.read_all()
        return {
            (int(key["subject"]), int(key["peer"]))
            for key, value in zip(keys, values, strict=True)
            if value["until"]
        }

    def certified(self) -> None:
        """Every node can speak for its pods' identities."""
        for node, pod in (("node1", "client"), ("node1", "near"), ("node2", "far")):
            file = f"{identity_subject(self.identity(pod))}.crt"
            self.wait(
                (self.layout.node(node).state / DIRECTORY / file).exists, f"{node} speaks for {pod}", 60
            )

    def problems(self, node: str) -> dict[str, str]:
        found: dict[str, str] = self.agent(node).call("status")["problems"]
        return found


@pytest.fixture(scope="module", params=["overlay", pytest.param("native", marks=pytest.mark.slow)])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Without an authority at first: the tests are steps of one story."""
    with live_as(Cluster, "proof", PODS, routing=Routing(request.param), dns=False) as runtime:
        runtime.apply(ASKS)
        runtime.policies_loaded(1)
        yield runtime


def test_without_an_authority_nothing_passes_and_the_status_says_why(cluster: Cluster) -> None:
    assert cluster.reaches("far", port=8082)
    assert not cluster.reaches("near", timeout=SHORT)
    for _ in range(3):
        assert not cluster.reaches("far", timeout=SHORT)

    def said() -> bool:
        cluster.reaches("far", timeout=SHORT)
        return any("there is no authority" in text for text in cluster.problems("node2").values())

    cluster.wait(said, "node2 says what is missing", 30)
    assert cluster.proved("node1") == cluster.proved("node2") == set()


def test_who_has_proved_who_he_is_gets_through(cluster: Cluster) -> None:
    cluster.authority.init("default")
    cluster.certified()
    client, server = cluster.identity("client"), cluster.identity("far")
    for pod in ("near", "far"):
        assert cluster.reaches(pod, 6)
        assert cluster.reaches(pod, 4, timeout=SHORT)  # no packet of these has to wait
    assert cluster.reaches("far", udp=True, timeout=SHORT)
    assert cluster.proved("node1") == cluster.proved("node2") == {(server, client)}
    assert cluster.reaches("far", port=8082, timeout=SHORT)
    assert not cluster.reaches("far", port=8081, timeout=SHORT)


def test_flows_say_who_had_to_prove_himself(cluster: Cluster) -> None:
    def seen(node: str, port: int, verdict: str) -> list[dict[str, object]]:
        return [
            flow
            for flow in cluster.flows()
            if flow["node_name"] == node
            and flow["verdict"] == verdict
            and flow.get("l4", {}).get("TCP", {}).get("destination_port") == port
            and flow.get("event") != "end"
        ]

    cluster.wait(lambda: seen("node2", 8080, "FORWARDED"), "node2 has seen it")
    assert {each.get("auth_type") for each in seen("node2", 8080, "FORWARDED")} == {"SPIRE"}
    (dropped, *_) = seen("node2", 8081, "DROPPED")
    assert dropped["drop_reason_desc"] == "AUTH_REQUIRED"
    assert dropped["event_type"] == {"type": 1, "sub_type": 189}
    assert all("auth_type" not in each for each in seen("node2", 8082, "FORWARDED"))


def test_what_is_proved_holds_while_there_is_no_agent(cluster: Cluster) -> None:
    dead = cluster.kill_agents()
    assert cluster.reaches("far", timeout=SHORT)
    assert cluster.reaches("near", 6, timeout=SHORT)
    cluster.wait_for_new_agents(dead)
    assert cluster.reaches("far", timeout=SHORT)
    assert len(cluster.proved("node2")) == 1


@pytest.mark.parametrize(
    "who", ["of another authority", "of long ago", "of another node", "of an unknown domain"]
)
def test_who_cannot_prove_who_he_is_is_not_believed(cluster: Cluster, tmp_path: Path, who: str) -> None:
    """From node1, as somebody might who has got onto it."""
    stranger, server = 4711, cluster.identity("far")
    public = cluster.authority.public()
    signer = cluster.authority
    if who == "of another authority":
        (signer := Authority(tmp_path / "rogue")).init("default")
    elif who == "of an unknown domain":
        (signer := Authority(tmp_path / "rogue")).init("default", "elsewhere")
    elif who == "of long ago":
        signer = Authority(cluster.layout.authority, lambda: 1_700_000_000.0)
    key = making.new_key()
    chain, _ = signer.certify_identity("node3", stranger, key.public_key())
    write(tmp_path / f"identity-{stranger}.key", making.key_pem(key), 0o600)
    write(tmp_path / f"identity-{stranger}.crt", chain, 0o644)
    write(tmp_path / "ca.crt", public.bundle.encode(), 0o644)
    address = next(each for each in cluster.plan.all_nodes() if each.name == "node2").addresses()[0]
    with inside(cluster.layout.namespace("node1")):
        proving = prove(Contexts(tmp_path), public, stranger, server, "node2", address, 4250)
        if who == "of another node":  # it is believed, and counts for pods of that node alone: there is none
            asyncio.run(proving)
        else:
            with pytest.raises(HandshakeError):
                asyncio.run(proving)
    assert cluster.proved("node2") == {(server, cluster.identity("client"))}


def test_a_new_authority_has_everything_proved_anew(cluster: Cluster) -> None:
    folder = cluster.layout.node("node2").state / DIRECTORY
    before = (folder / f"{identity_subject(cluster.identity('far'))}.crt").read_text()
    cluster.authority.rotate(at_once=True)
    file = folder / f"{identity_subject(cluster.identity('far'))}.crt"
    cluster.wait(lambda: file.read_text() != before, "node2 has another certificate", 30)
    cluster.wait(lambda: cluster.reaches("far", timeout=3.0), "they have proved it again", 60)
    assert cluster.reaches("near")


def test_what_nobody_needs_any_more_goes(cluster: Cluster) -> None:
    cluster.delete("Pod", "near")
    cluster.wait(lambda: not cluster.proved("node1"), "node1 forgets the pair")
    assert cluster.reaches("far", timeout=PATIENT)
    cluster.delete("CiliumNetworkPolicy", "proven")
    cluster.wait(lambda: not cluster.proved("node2"), "node2 forgets the pair")
    assert cluster.reaches("far", port=8081, timeout=SHORT)
    certificates = cluster.layout.node("node2").state / DIRECTORY
    cluster.wait(lambda: not list(certificates.glob("identity-*")), "and speaks for nobody")


@pytest.mark.slow
def test_proofs_are_renewed_before_they_end_and_end_when_nobody_renews_them() -> None:
    """Certificates hold for half a minute here; a connection stays open over several of them."""
    lifetime = 30.0
    with live_as(Cluster, "renewal", PODS, dns=False) as cluster:
        cluster.authority.init("default", days=lifetime / DAY)
        cluster.apply(ASKS)
        cluster.certified()
        target = addresses(cluster.pod("far"))[0]
        with inside(cluster.namespace("client")):
            connection = socket.create_connection((target, 8080), PATIENT)
        with connection:
            connection.settimeout(5.0)

            def answered() -> bool:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: far\r\n\r\n")
                return bool(connection.recv(65536))

            began = time.monotonic()
            while time.monotonic() < began + 2 * lifetime:
                assert answered()
                time.sleep(0.2)
            authority = int(json.loads((cluster.layout.directory / "authority.pid").read_bytes())["pid"])
            os.kill(authority, signal.SIGSTOP)
            try:
                with pytest.raises(TimeoutError):
                    while time.monotonic() < began + 4 * lifetime:
                        answered()
                        time.sleep(0.2)
            finally:
                os.kill(authority, signal.SIGCONT)
        cluster.wait(lambda: cluster.reaches("far", timeout=3.0), "they can prove it again", 60)
