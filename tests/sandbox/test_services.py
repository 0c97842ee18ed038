"""Services in a sandbox: what its control plane gives them, and the slices that follow their pods."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

import pytest
from runtime import Document, Runtime, addresses, sandbox

from axoneme.sandbox.plan import IPV4_SERVICES, IPV6_SERVICES

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: web, ports: [{name: http, containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  ipFamilyPolicy: PreferDualStack
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
"""
LEAVING = """
apiVersion: v1
kind: Pod
metadata: {name: slow, namespace: default, labels: {app: slow}}
spec:
  containers:
    - name: web
      image: web
      ports: [{containerPort: 8080}]
      lifecycle: {preStop: {sleep: {seconds: 600}}}
  terminationGracePeriodSeconds: 900
---
apiVersion: v1
kind: Service
metadata: {name: slow, namespace: default}
spec: {selector: {app: slow}, ports: [{port: 8080}]}
"""
ODD = """
apiVersion: v1
kind: Service
metadata: {name: odd}
spec: {clusterIP: 192.0.2.1, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: outside}
spec: {type: NodePort, ports: [{port: 80}]}
"""
OTHERS = """
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: web-mine
  namespace: default
  labels: {kubernetes.io/service-name: web, endpointslice.kubernetes.io/managed-by: me}
addressType: IPv4
endpoints: [{addresses: [192.0.2.9]}]
ports: [{name: "", port: 80, protocol: TCP}]
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Runtime]:
    with sandbox("services", WEB) as runtime:
        yield runtime


def slices(runtime: Runtime, service: str = "web") -> list[Document]:
    """Those that the sandbox keeps of the service."""
    return [
        each
        for each in runtime.every("EndpointSlice")
        if each["metadata"].get("ownerReferences", [{}])[0].get("name") == service
    ]


def told(runtime: Runtime, service: str = "web") -> dict[str, tuple[bool, bool, bool]]:
    """Addresses and conditions: ready, serving, terminating."""
    return {
        address: tuple(each["conditions"][name] for name in ("ready", "serving", "terminating"))
        for found in slices(runtime, service)
        for each in found["endpoints"]
        for address in each["addresses"]
    }


def conditions(runtime: Runtime, service: str) -> list[tuple[bool, bool, bool]]:
    return list(told(runtime, service).values())


def standing(runtime: Runtime) -> dict[str, tuple[bool, bool, bool]]:
    return {address: (True, True, False) for pod in runtime.pods(app="web") for address in addresses(pod)}


def test_a_service_has_addresses_and_its_slices_follow_its_pods(cluster: Runtime) -> None:
    spec = cluster.wait(lambda: (cluster.get("Service", "web") or {})["spec"], "the service")
    four, six = map(ipaddress.ip_address, spec["clusterIPs"])
    assert four in IPV4_SERVICES
    assert six in IPV6_SERVICES
    cluster.wait(lambda: len(told(cluster)) == 6 and told(cluster) == standing(cluster), "slices of 3 pods")
    cluster.change("Deployment", "web", lambda each: each["spec"].update(replicas=5))
    cluster.wait(lambda: len(told(cluster)) == 10 and told(cluster) == standing(cluster), "slices of 5 pods")
    cluster.change("Deployment", "web", lambda each: each["spec"].update(replicas=2))
    cluster.wait(lambda: len(told(cluster)) == 4 and told(cluster) == standing(cluster), "slices of 2 pods")


def test_a_pod_that_is_told_to_go_serves_until_it_has_gone(cluster: Runtime) -> None:
    cluster.apply(LEAVING)
    cluster.settle()
    pod = cluster.pod("slow")
    cluster.wait(lambda: conditions(cluster, "slow") == [(True, True, False)], "it is ready")

    def go(seconds: int) -> None:
        def mark(document: Document) -> None:
            document["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            document["metadata"]["deletionGracePeriodSeconds"] = seconds

        cluster.change("Pod", "slow", mark)

    go(900)
    cluster.wait(lambda: conditions(cluster, "slow") == [(False, True, True)], "it is leaving, and serves")
    answer = cluster.probe(cluster.namespace(pod), addresses(pod)[0], 8080).answer
    assert answer is not None
    assert answer.pod == "slow"
    go(0)
    cluster.wait(lambda: cluster.get("Pod", "slow") is None, "it has gone")
    cluster.wait(lambda: conditions(cluster, "slow") == [], "and is in no slice")


def test_what_is_wrong_with_one_service_is_its_own_trouble(cluster: Runtime) -> None:
    cluster.apply(ODD)
    spec = cluster.wait(
        lambda: (
            (found := cluster.get("Service", "outside")) and found["spec"].get("clusterIP") and found["spec"]
        ),
        "a node port",
    )
    assert 30000 <= spec["ports"][0]["nodePort"] <= 32767
    assert "Service default/odd: spec.clusterIPs[0]" in cluster.log()


def test_slices_of_others_are_left_alone_and_ours_are_mended(cluster: Runtime) -> None:
    cluster.apply(OTHERS)
    cluster.wait(lambda: told(cluster) == standing(cluster), "the slices are as they shall be")
    for each in slices(cluster):
        cluster.delete("EndpointSlice", each["metadata"]["name"])
    cluster.wait(lambda: told(cluster) == standing(cluster), "the slices are there again")
    mine = cluster.get("EndpointSlice", "web-mine")
    assert mine is not None
    assert mine["endpoints"] == [{"addresses": ["192.0.2.9"]}]
    cluster.delete("Service", "web")
    cluster.wait(lambda: not slices(cluster), "slices go with their service")
    assert cluster.get("EndpointSlice", "web-mine")
