"""A real Prometheus reads what agents and flow servers serve, and answers what dashboards and rules ask."""

from __future__ import annotations

import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus import Prometheus, prometheus
from runtime import Live, addresses, live
from two_nodes import inside

from axoneme.metrics.provided import dashboards, rules
from axoneme.sandbox.client import Protocol

pytestmark = pytest.mark.skipif(not shutil.which("prometheus"), reason="prometheus is not installed")

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
NAMESPACE = """\
apiVersion: v1
kind: Namespace
metadata: {name: shop, annotations: {axoneme.io/visibility: "ingress/http:8080, dns"}}
"""
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
#: Of the client only GET; of others nothing; to names under shop.svc, and to the world.
POLICY = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: web}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts:
    - ports: [{port: "8080", protocol: TCP}]
      rules: {http: [{method: GET}]}
"""


#: Requests that pass and that do not, names, drops: of each the last that is to be expected.
SEEN = (
    'increase(hubble_http_requests_total{status="200"}[1m]) > 0',
    'increase(hubble_dns_responses_total{rcode!="No Error"}[1m]) > 0',
    "increase(hubble_dns_response_types_total[1m]) > 0",
    'increase(hubble_drop_total{protocol="HTTP"}[1m]) > 0',
    'increase(hubble_icmp_total{type="EchoRequest"}[1m]) > 0',
)


class Shop:
    def __init__(self, runtime: Live, reader: Prometheus) -> None:
        self.runtime = runtime
        self.reader = reader

    def traffic(self) -> None:
        """Something of everything: requests that pass and that do not, names, drops, pings, the world."""
        web = addresses(self.runtime.pod("web", "shop"))[0]
        client, other = (self.runtime.namespace(name, "shop") for name in ("client", "other"))
        trace = ("-H", f"traceparent: 00-{TRACE}-00f067aa0ba902b7-01")
        for method in ("GET", "GET", "DELETE"):
            curl = ("curl", "-s", "-o", "/dev/null", "-m", "3", *trace, "-X", method, f"http://{web}:8080/a")
            subprocess.run(["nsenter", f"--net={client}", *curl], check=True)
        self.runtime.probe(other, web, 8080, Protocol.TCP, timeout=0.3)
        self.runtime.probe(other, web, 0, Protocol.ICMP, timeout=0.3)
        self.runtime.probe(client, "192.0.2.200", 443, Protocol.TCP, timeout=0.3)
        dns = [self.runtime.get("Service", "kube-dns", "kube-system")["spec"]["clusterIP"]]  # type: ignore[index]
        for name in ("kube-dns.kube-system.svc.cluster.local", "nobody.shop.svc.cluster.local"):
            ask(client, dns[0], name)


def ask(namespace: Path, server: str, name: str) -> None:
    """For an address, by one datagram."""
    import socket

    import dns.message

    with inside(namespace), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(3)
        asking.sendto(dns.message.make_query(name, "A").to_wire(), (server, 53))
        asking.recv(4096)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    pods = POD.format(name="web", node="node1") + "".join(
        POD.format(name=name, node="node1") for name in ("client", "other")
    )
    with live("metrics", NAMESPACE + pods, nodes=1, metrics=True) as runtime:
        runtime.apply(POLICY)
        runtime.policies_loaded(1)
        labels = {"k8s_app": "cilium", "pod": "cilium-node1", "cluster": "default"}
        jobs = {"axoneme-agent": 9962, "axoneme-flows": 9965}
        folder = tmp_path_factory.mktemp("prometheus")
        with prometheus(runtime.layout.namespace("node1"), folder, jobs, labels, rules()) as reader:
            made = Shop(runtime, reader)
            # A rate takes two samples, of which the first is not that of a series that has just begun.
            runtime.wait(
                lambda: made.traffic() or all(map(reader.query, SEEN)) or None, "traffic is seen", 60
            )
            yield made


def test_both_processes_are_read_as_openmetrics(shop: Shop) -> None:
    assert shop.reader.targets() == {"axoneme-agent": "up", "axoneme-flows": "up"}
    with inside(shop.runtime.layout.namespace("node1")):
        for port in (9962, 9965):
            asked = urllib.request.Request(
                f"http://127.0.0.1:{port}/metrics", headers={"accept": "application/openmetrics-text"}
            )
            with urllib.request.urlopen(asked, timeout=5) as answer:
                assert answer.headers["content-type"].startswith("application/openmetrics-text")
                assert answer.read().endswith(b"# EOF\n")


def test_exemplars_lead_to_traces(shop: Shop) -> None:
    found = shop.reader.exemplars("hubble_http_request_duration_seconds_bucket")
    assert {each["labels"]["traceID"] for series in found for each in series["exemplars"]} == {TRACE}


#: What has no reason to happen here, by a part of the expression.
QUIET = {
    "hubble_kafka": "nobody speaks Kafka",
    'action="audit"': "no policy is only tried",
    "axoneme_repairs_total": "nobody meddles with the kernel's tables",
    "cilium_errors_warnings_total": "nothing may go wrong",
    "fqdn": "no policy selects by names",
    "axoneme_tcp_retransmissions": "nothing need be sent again",
}


def usable(expression: str) -> str:
    for variable, value in (("$instance", ".*"), ("$__rate_interval", "1m")):
        expression = expression.replace(variable, value)
    return expression


def test_every_expression_of_the_dashboards_has_data(shop: Shop) -> None:
    silent, quiet = [], []
    for name, dashboard in dashboards().items():
        for expression in dashboard.expressions():
            found = shop.reader.query(usable(expression))
            reason = next((each for each in QUIET if each in expression), None)
            if not found and reason is None:
                silent.append(f"{name}: {expression}")
            elif not found:
                quiet.append(reason)
    assert not silent, "\n".join(silent)
    assert "hubble_kafka" in quiet


def test_every_rule_can_be_evaluated_and_none_fires_here(shop: Shop) -> None:
    for each in yaml.safe_load(rules())["groups"]:
        for rule in each["rules"]:
            shop.reader.query(rule["expr"])
    assert not shop.reader.query('ALERTS{alertstate="firing"}')


def test_what_was_sent_and_dropped_is_counted_by_direction(shop: Shop) -> None:
    reader = shop.reader
    (there,) = reader.query('cilium_forward_count_total{direction="EGRESS"}')
    (back,) = reader.query('cilium_forward_count_total{direction="INGRESS"}')
    assert float(there["value"][1]) > 10 and float(back["value"][1]) > 10
    (dropped,) = reader.query('cilium_drop_count_total{reason="Policy denied"}')
    assert dropped["metric"]["direction"] == "INGRESS"
    denied = 'hubble_drop_total{reason="POLICY_DENIED",source="other",destination="web",protocol="TCP"}'
    (flows,) = reader.query(denied)
    assert float(flows["value"][1]) <= float(dropped["value"][1])
    octets = float(reader.query('cilium_drop_bytes_total{reason="Policy denied"}')[0]["value"][1])
    assert octets / float(dropped["value"][1]) == pytest.approx(60, abs=40)  # SYNs and pings


def test_series_of_a_pod_say_who_it_is(shop: Shop) -> None:
    by = 'source_namespace="shop",source_workload="client",destination_workload="web"'
    statuses = {each["metric"]["status"] for each in shop.reader.query(f"hubble_http_requests_total{{{by}}}")}
    assert "200" in statuses
    asked = shop.reader.query('hubble_dns_queries_total{source="client"}')
    assert {each["metric"]["query"] for each in asked} >= {"nobody.shop.svc.cluster.local."}
    world = shop.reader.query('hubble_flows_to_world_total{port="443"}')
    assert {each["metric"]["source"] for each in world} == {"client"}
