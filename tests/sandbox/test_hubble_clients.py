"""The hubble command itself, and a client that knows nothing but reflection, against the nodes of a sandbox,
and against their relay."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from runtime import Live, addresses, live

from gotools import tool

POD = """\
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: shop, labels: {{app: {name}}}}}
spec:
  nodeName: {node}
  containers:
  - {{name: echo, image: axoneme/echo, ports: [{{name: web, containerPort: 8080}}]}}
"""
NAMESPACE = """
apiVersion: v1
kind: Namespace
metadata: {name: shop, annotations: {axoneme.io/visibility: "ingress/http:8080"}}
"""
#: Only the client may, and only at one port.
POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: client}}}]
    ports: [{port: 8080}]
"""
PODS = (("web", "node1"), ("client", "node1"), ("other", "node2"))


class Cluster:
    def __init__(self, runtime: Live, home: Path) -> None:
        self.runtime = runtime
        self.home = home

    def socket(self, node: str = "node1") -> str:
        return f"unix://{self.runtime.layout.node(node).directory}/hubble.sock"

    def hubble(self, *arguments: str, node: str = "node1", server: str = "") -> str:
        done = self._run(tool("hubble"), *arguments, "--server", server or self.socket(node))
        assert done.returncode == 0, done.stderr
        assert "WARN" not in done.stderr
        return done.stdout

    def refused(self, *arguments: str) -> str:
        done = self._run(tool("hubble"), *arguments, "--server", self.socket())
        assert done.returncode != 0
        return done.stderr

    def observed(self, *arguments: str, node: str = "node1") -> list[Any]:
        text = self.hubble("observe", "--last", "1000", "-o", "jsonpb", *arguments, node=node)
        return [json.loads(line)["flow"] for line in text.splitlines()]

    def grpcurl(self, *arguments: str, data: str = "") -> Any:
        given = ("-d", data) if data else ()
        done = self._run(tool("grpcurl"), "-plaintext", *given, self.socket(), *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "HOME": str(self.home), "XDG_CONFIG_HOME": str(self.home)}
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=60, env=environment
        )

    def ask(self, who: str, path: str, port: int = 8080) -> str:
        address = addresses(self.runtime.pod("web", "shop"))[0]
        done = subprocess.run(
            [
                *("nsenter", f"--net={self.runtime.namespace(who, 'shop')}"),
                *("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-m", "1"),
                *("-H", "x-request-id: 42", f"http://{address}:{port}{path}"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    pods = "".join(POD.format(name=name, node=node) for name, node in PODS)
    with live("hubble", NAMESPACE + pods, nodes=2) as runtime:
        made = Cluster(runtime, tmp_path_factory.mktemp("home"))
        runtime.wait(Path(made.socket().removeprefix("unix://")).exists, "Hubble's socket")
        runtime.apply(POLICY)
        runtime.policies_loaded(1)
        runtime.wait(lambda: made.ask("client", "/api/a?b=1") == "200", "the client gets through")
        assert made.ask("other", "/") == "000"
        runtime.wait(
            lambda: runtime.flows(filters=[{"verdict": ["DROPPED"], "from_pod": ["shop/other"]}]), "a drop"
        )
        runtime.wait(lambda: runtime.flows(filters=[{"http_path": ["^/api/a$"]}]), "a request")
        yield made


def test_status(cluster: Cluster) -> None:
    text = cluster.hubble("status")
    assert "Healthcheck" in text
    assert ": Ok" in text
    assert "Current/Max Flows" in text
    status = json.loads(cluster.hubble("status", "-o", "json"))
    assert int(status["num_flows"]) > 0
    assert status["version"]


@pytest.mark.parametrize("output", ["compact", "dict", "table", "json", "jsonpb"])
def test_flows_in_every_form(cluster: Cluster, output: str) -> None:
    text = cluster.hubble("observe", "--last", "100", "--to-pod", "shop/web", "-o", output)
    assert "shop/web" in text or '"pod_name":"web"' in text
    assert "shop/client" in text or '"pod_name":"client"' in text
    if output.startswith("json"):
        assert all(json.loads(line)["node_name"] == "node1" for line in text.splitlines())


def test_drops_name_their_reason_and_policy(cluster: Cluster) -> None:
    text = cluster.hubble("observe", "--verdict", "DROPPED", "--last", "1")
    assert "shop/other" in text
    assert "Policy denied DROPPED" in text
    (flow, *_) = cluster.observed("--verdict", "DROPPED", "--pod", "shop/other")
    assert flow["drop_reason_desc"] == "POLICY_DENIED"
    assert [(policy["kind"], policy["name"]) for policy in flow["ingress_denied_by"]] == [
        ("NetworkPolicy", "web")
    ]


def test_requests(cluster: Cluster) -> None:
    line = cluster.hubble("observe", "--protocol", "http", "--http-path", "^/api/a$", "--last", "1")
    assert "http-response FORWARDED" in line
    assert "/api/a?b=1" in line
    (flow, *_) = cluster.observed("--http-header", "x-request-id:42", "--http-status", "2+")
    assert flow["l7"]["http"]["code"] == 200
    assert flow["is_reply"] is True


#: Arguments, and whether flows between the client and the web are among what they choose.
FILTERS = [
    (("--from-pod", "shop/client", "--to-port", "8080"), True),
    (("--from-pod", "shop/cli"), True),
    (("--pod", "shop/nobody"), False),
    (("--namespace", "shop", "--protocol", "tcp"), True),
    (("--label", "app=client"), True),
    (("--from-label", "app in (client, x)", "--to-label", "k8s:app=web"), True),
    (("--workload", "client"), True),
    (("--not", "--pod", "shop/client"), False),
    (("--verdict", "FORWARDED", "--verdict", "REDIRECTED"), True),
    (("--type", "policy-verdict"), True),
    (("--type", "drop"), False),
    (("--traffic-direction", "ingress"), True),
    (("--ip-version", "v4"), True),
    (("--ip-version", "v6"), False),
    (("--node-name", "node1"), True),
    (("--node-name", "default/node*"), True),
    (("--node-name", "other/"), False),
    (("--cluster", "default"), True),
    (("--tcp-flags", "FIN"), True),
    (("--since", "1h"), True),
    (("--until", "1h"), False),
    (("--from-identity", "host"), False),
]


@pytest.mark.parametrize(("arguments", "there"), FILTERS, ids=[" ".join(each) for each, _ in FILTERS])
def test_filters(cluster: Cluster, arguments: tuple[str, ...], there: bool) -> None:
    flows = cluster.observed(*arguments)
    ends = [{flow["source"].get("pod_name"), flow["destination"].get("pod_name")} for flow in flows]
    assert ({"client", "web"} in ends) is there


def test_a_flow_is_found_by_its_identifier(cluster: Cluster) -> None:
    (flow, *_) = cluster.observed("--to-pod", "shop/web")
    assert cluster.observed("--uuid", flow["uuid"]) == [flow]


def test_first_and_last(cluster: Cluster) -> None:
    everything = cluster.observed()
    first = cluster.hubble("observe", "--first", "3", "-o", "jsonpb").splitlines()
    assert [json.loads(line)["flow"]["uuid"] for line in first] == [flow["uuid"] for flow in everything[:3]]


def test_what_is_wrong_is_said(cluster: Cluster) -> None:
    assert "no regular expression" in (said := cluster.refused("observe", "--http-path", "(")) or "(" in said
    assert "CEL" in cluster.refused("observe", "--cel-expression", "true")
    assert "not served here" in cluster.refused("observe", "debug-events")


def test_what_the_agent_did(cluster: Cluster) -> None:
    text = cluster.hubble("observe", "agent-events", "--last", "100", "-o", "jsonpb")
    events = [json.loads(line)["agent_event"] for line in text.splitlines()]
    kinds = [event["type"] for event in events]
    assert "AGENT_STARTED" in kinds
    ends = [event["endpoint_update"] for event in events if event["type"] == "ENDPOINT_CREATED"]
    created = {end.get("pod_name") for end in ends}
    assert {"web", "client"} <= created
    assert "other" not in created
    (policy,) = [event["policy_update"] for event in events if event["type"] == "POLICY_UPDATED"]
    assert "k8s:io.cilium.k8s.policy.name=web" in policy["labels"]
    assert "AGENT_STARTED" in cluster.hubble("observe", "agent-events", "--last", "100")


def test_nodes_and_namespaces(cluster: Cluster) -> None:
    (node,) = json.loads(cluster.hubble("list", "nodes", "-o", "json"))
    assert (node["name"], node["state"]) == ("node1", "NODE_CONNECTED")
    assert "shop" in cluster.hubble("list", "namespaces")


def test_peers(cluster: Cluster) -> None:
    with subprocess.Popen(
        [tool("hubble"), "watch", "peers", "--server", cluster.socket()], stdout=subprocess.PIPE, text=True
    ) as watching:
        assert watching.stdout
        lines = [watching.stdout.readline() for _ in range(2)]
        watching.terminate()
    assert sorted(line.split()[0] for line in lines) == ["PEER_ADDED"] * 2
    assert sorted(line.split()[-1] for line in lines) == ["node1", "node2"]


def test_following_shows_what_comes(cluster: Cluster) -> None:
    command = [tool("hubble"), "observe", "-f", "--http-path", "^/follow$", "-o", "jsonpb"]
    with subprocess.Popen(
        [*command, "--server", cluster.socket()], stdout=subprocess.PIPE, text=True
    ) as following:
        assert following.stdout
        os.set_blocking(following.stdout.fileno(), False)
        seen: list[str] = []

        def comes() -> bool:
            cluster.ask("client", "/follow")
            seen.extend(following.stdout.readlines())  # type: ignore[union-attr]
            return bool(seen)

        cluster.runtime.wait(comes, "a flow that is followed")
        following.terminate()
    assert json.loads(seen[0])["flow"]["l7"]["http"]["url"].endswith("/follow")


def test_a_client_that_knows_nothing_finds_its_way_by_reflection(cluster: Cluster) -> None:
    services = cluster.grpcurl("list").split()
    assert {"observer.Observer", "peer.Peer", "grpc.health.v1.Health"} <= set(services)
    assert "rpc GetFlows" in cluster.grpcurl("describe", "observer.Observer")
    assert "axoneme.Details" in cluster.grpcurl("describe", "flow.Flow")
    assert json.loads(cluster.grpcurl("grpc.health.v1.Health/Check")) == {"status": "SERVING"}
    wanted = '{"number": 1, "whitelist": [{"http_path": ["^/api/a$"]}]}'
    response = json.loads(cluster.grpcurl("observer.Observer/GetFlows", data=wanted))
    assert response["flow"]["details"]["event"] == "response"


@pytest.fixture(scope="module")
def relay(cluster: Cluster) -> Iterator[str]:
    """Where it listens."""
    argv = [sys.executable, "-m", "axoneme.cli", "relay", "--sandbox", cluster.runtime.name]
    with subprocess.Popen(
        [*argv, "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip().rpartition(" ")[2]
        finally:
            process.terminate()


def connected(cluster: Cluster, relay: str, text: str) -> bool:
    return f"Connected Nodes: {text}" in cluster.hubble("status", server=relay)


def test_a_relay_has_the_flows_of_all_nodes_in_order(cluster: Cluster, relay: str) -> None:
    cluster.runtime.wait(lambda: connected(cluster, relay, "2/2"), "both nodes")
    listed = cluster.hubble("list", "nodes", server=relay)
    assert [line.split()[:2] for line in listed.splitlines()[1:]] == [
        ["node1", "Connected"],
        ["node2", "Connected"],
    ]
    assert "shop" in cluster.hubble("list", "namespaces", server=relay)
    text = cluster.hubble("observe", "--all", "-o", "jsonpb", server=relay)
    found = [json.loads(line) for line in text.splitlines()]
    assert {each["node_name"] for each in found} == {"node1", "node2"}
    times = [stamp(each["time"]) for each in found]
    assert times == sorted(times)
    last = cluster.hubble(
        "observe", "--last", "5", "-o", "jsonpb", "--until", "1s", server=relay
    ).splitlines()
    assert len(last) == 5
    both = cluster.hubble("observe", "--from-pod", "shop/other", "--verdict", "DROPPED", server=relay)
    assert "shop/web" in both


def stamp(text: str) -> str:
    """Go leaves zeros away at the end."""
    seconds, _, fraction = text.removesuffix("Z").partition(".")
    return f"{seconds}.{fraction:<09}"


def test_a_relay_goes_on_without_a_node_that_hangs(cluster: Cluster, relay: str) -> None:
    cluster.runtime.wait(lambda: connected(cluster, relay, "2/2"), "both nodes")
    folder = cluster.runtime.layout.node("node2").directory
    hanging = json.loads((folder / "flows.pid").read_text())["pid"]
    os.kill(hanging, signal.SIGSTOP)
    try:
        text = cluster.hubble("observe", "--last", "100", "-o", "jsonpb", server=relay)
        assert {json.loads(line)["node_name"] for line in text.splitlines()} == {"node1"}
        cluster.runtime.wait(lambda: connected(cluster, relay, "1/2"), "a node that hangs is named")
        assert "- node2" in cluster.hubble("status", server=relay)
    finally:
        os.kill(hanging, signal.SIGCONT)
    cluster.runtime.wait(lambda: connected(cluster, relay, "2/2"), "the node again")
