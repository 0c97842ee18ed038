"""Apache Kafka in a pod, librdkafka in others, and between them a policy about topics, as its manifest is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from kafka_lab import SETTINGS, fetched, format_log
from runtime import Live, live_as

from axoneme.proxy.following import read_report
from axoneme.proxy.plan import directory
from axoneme.sandbox.plan import Family, Routing

pytestmark = pytest.mark.slow

#: By how packets get from node to node, and in which family: the broker's service.
CLUSTERS = {(Routing.OVERLAY, Family.IPV4): "10.96.0.77", (Routing.NATIVE, Family.IPV6): "fd00:10:96::77"}
PODS = """
apiVersion: v1
kind: Service
metadata: {{name: kafka}}
spec: {{clusterIP: "{address}", selector: {{app: kafka}}, ports: [{{port: 9092, protocol: TCP}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: kafka, labels: {{app: kafka}}}}
spec:
  nodeSelector: {{kubernetes.io/hostname: node1}}
  containers:
  - name: broker
    image: apache/kafka
    command: [java, -Xmx384m, -cp, "{classes}", kafka.Kafka, "{settings}"]
    ports: [{{containerPort: 9092}}]
"""
CLIENT = """---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{team: {team}}}}}
spec:
  nodeSelector: {{kubernetes.io/hostname: {node}}}
  containers: [{{name: client, image: kcat, command: [sleep, infinity]}}]
"""
CLIENTS = {"near": ("orders", "node1"), "far": ("orders", "node2"), "other": ("other", "node2")}
POLICY = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: topics}
spec:
  endpointSelector: {matchLabels: {app: kafka}}
  ingress:
  - fromEndpoints: [{matchLabels: {team: orders}}]
    toPorts:
    - ports: [{port: "9092", protocol: TCP}]
      rules:
        kafka:
        - {role: produce, topic: orders}
        - {role: consume, topic: prices}
"""
EGRESS = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: topics}
spec:
  endpointSelector: {matchLabels: {team: orders}}
  egress:
  - toEndpoints: [{matchLabels: {app: kafka}}]
    toPorts:
    - ports: [{port: "9092", protocol: TCP}]
      rules:
        kafka:
        - {role: consume, topic: orders}
"""
REFUSED = "Topic authorization failed"


class Cluster(Live):
    broker: str


@pytest.fixture(scope="module", params=CLUSTERS, ids=lambda each: f"{each[0].value}-{each[1].value}")
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    routing, family = request.param
    address = CLUSTERS[request.param]
    host = f"[{address}]" if family is Family.IPV6 else address
    folder = tmp_path_factory.mktemp("broker")
    classes = fetched("3.9.1")
    settings = folder / "server.properties"
    more = "auto.create.topics.enable=true\n"
    settings.write_text(SETTINGS.format(address=host, folder=folder) + more)
    format_log(classes, settings)
    pods = PODS.format(address=address, classes=classes, settings=settings)
    pods += "".join(CLIENT.format(name=n, team=team, node=node) for n, (team, node) in CLIENTS.items())
    with live_as(Cluster, "kafka", pods, routing=routing, family=family) as runtime:
        runtime.broker = f"{host}:9092"
        runtime.settle()
        yield runtime


def ask(cluster: Cluster, pod: str, *arguments: str, text: str = "") -> str:
    """What kcat prints in a pod, and what it complains of."""
    client = ["kcat", "-b", cluster.broker, "-X", "message.timeout.ms=5000", *arguments]
    axo = [sys.executable, "-m", "axoneme.cli", "--sandbox", cluster.name, "exec", pod, "--"]
    limited = ["timeout", "20", "sh", "-c", 'printf "$0" | "$@"', text, *client]
    done = subprocess.run([*axo, *limited], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


def produce(cluster: Cluster, pod: str, topic: str) -> str:
    return ask(cluster, pod, "-P", "-t", topic, text="word")


def consume(cluster: Cluster, pod: str, topic: str) -> str:
    return ask(cluster, pod, "-C", "-t", topic, "-e", "-q")


@pytest.fixture(scope="module")
def topics(cluster: Cluster) -> Cluster:
    for topic in ("orders", "prices"):
        cluster.wait(lambda topic=topic: not produce(cluster, "near", topic) or None, "the broker is up", 90)
        assert "word" in consume(cluster, "far", topic)
    return cluster


@pytest.mark.parametrize("pod", ["near", "far"])
def test_who_may_produce_and_who_may_consume(topics: Cluster, pod: str) -> None:
    topics.apply(POLICY)
    topics.wait(lambda: REFUSED in produce(topics, pod, "prices") or None, "the policy is in force", 60)
    assert produce(topics, pod, "orders") == ""
    assert REFUSED in consume(topics, pod, "orders")
    assert "word" in consume(topics, pod, "prices")
    assert REFUSED not in produce(topics, "other", "orders"), "it does not get to the broker at all"


def test_nothing_passes_while_the_proxy_is_gone(topics: Cluster) -> None:
    topics.apply(POLICY)
    topics.wait(lambda: REFUSED in produce(topics, "far", "prices") or None, "the policy is in force", 60)
    before = consume(topics, "far", "prices")
    folder = directory(topics.layout.node("node1").state, "kafka")
    report = read_report(folder)
    assert report
    os.kill(report.pid, signal.SIGKILL)
    topics.wait(lambda: REFUSED in produce(topics, "far", "prices") or None, "the proxy is back", 60)
    assert consume(topics, "far", "prices") == before
    assert produce(topics, "far", "orders") == ""


@pytest.mark.parametrize("pod", ["near", "far"])
def test_the_same_where_the_sender_is_restricted(topics: Cluster, pod: str) -> None:
    topics.apply(EGRESS)
    topics.wait(lambda: REFUSED in produce(topics, pod, "orders") or None, "the policy is in force", 60)
    assert "word" in consume(topics, pod, "orders")
    assert REFUSED in consume(topics, pod, "prices")
    assert produce(topics, "other", "prices") == ""


def test_flows_say_what_was_asked_and_who_has_refused_it(topics: Cluster) -> None:
    def refused() -> list[dict[str, object]] | None:
        flows = topics.flows(filters=[{"from_pod": ["default/far"], "verdict": ["DROPPED"]}])
        return [each for each in flows if "kafka" in each.get("l7", {})] or None

    topics.apply(EGRESS)
    produce(topics, "far", "orders")
    for flow in topics.wait(refused, "the flow of a refusal"):
        assert flow["destination"]["pod_name"] == "kafka", flow  # type: ignore[index]
        assert flow["l7"]["kafka"]["topic"] in ("orders", "prices"), flow  # type: ignore[index]
