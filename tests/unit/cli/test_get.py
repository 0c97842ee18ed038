"""`axo get` and `axo describe`: kubectl's forms, and its manners when something is not there."""

from __future__ import annotations

import json

import yaml

from .conftest import Axo, Sandbox


def test_pods_in_a_table(axo: Axo, sandbox: Sandbox) -> None:
    sandbox.pod("web-1")
    found = axo("get", "pods")
    assert found.code == 0
    assert found.cells[0] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert found.cells[1][:4] == ["web-1", "1/1", "Running", "2"]


def test_wide_shows_where_pods_are(axo: Axo, sandbox: Sandbox) -> None:
    sandbox.pod("web-1")
    assert axo("get", "po", "-o", "wide").cells[1][-2:] == ["10.0.0.9", "node1"]


def test_namespaces_keep_objects_apart(axo: Axo, sandbox: Sandbox) -> None:
    sandbox.pod("web-1")
    sandbox.pod("db-1", "shop")
    assert [row[0] for row in axo("get", "pods", "-n", "shop").cells] == ["NAME", "db-1"]
    assert [row[0] for row in axo("-n", "shop", "get", "pods").cells] == ["NAME", "db-1"]
    everywhere = axo("get", "pods", "-A").cells
    assert [row[:2] for row in everywhere] == [["NAMESPACE", "NAME"], ["default", "web-1"], ["shop", "db-1"]]


def test_nothing_there_is_no_failure(axo: Axo, sandbox: Sandbox) -> None:
    found = axo("get", "pods")
    assert (found.code, found.out) == (0, "")
    assert found.err == "No resources found in default namespace.\n"
    assert axo("get", "pods", "-A").err == "No resources found.\n"


def test_a_name_that_is_not_there_is_a_failure(axo: Axo, sandbox: Sandbox) -> None:
    sandbox.pod("web-1")
    found = axo("get", "pod", "web-1", "web-2")
    assert found.code == 1
    assert "web-1" in found.out
    assert found.err == 'error: pods "web-2" not found in namespace default\n'


def test_json_is_the_stored_object(axo: Axo, sandbox: Sandbox) -> None:
    sandbox.pod("web-1")
    stored = sandbox.need("Pod", "web-1")
    found = axo("get", "pod", "web-1", "-o", "json").json
    assert found["metadata"].pop("resourceVersion").isdecimal()
    assert found == stored


def test_several_objects_are_a_list(axo: Axo, sandbox: Sandbox) -> None:
    sandbox.pod("web-1")
    sandbox.pod("web-2")
    found = axo("get", "pods", "-o", "json").json
    assert (found["apiVersion"], found["kind"]) == ("v1", "List")
    assert [item["status"]["podIP"] for item in found["items"]] == ["10.0.0.9"] * 2
    assert yaml.safe_load(axo("get", "pods", "-o", "yaml").out) == found


def test_names_for_other_commands(axo: Axo, sandbox: Sandbox) -> None:
    sandbox.pod("web-1")
    axo("apply", "-f", "-", stdin=DEPLOYMENT)
    assert axo("get", "pods,deploy", "-o", "name").lines == ["pod/web-1", "deployment.apps/web"]


def test_labels_select(axo: Axo, sandbox: Sandbox) -> None:
    sandbox.pod("web")
    sandbox.pod("db")
    for selector, names in (
        ("app=web", ["web"]),
        ("app!=web", ["db"]),
        ("app in (web, db)", ["db", "web"]),
        ("!app", []),
        ("app,app notin (db)", ["web"]),
    ):
        found = axo("get", "pods", "-l", selector, "-o", "name")
        assert found.lines == [f"pod/{name}" for name in names], selector
    assert axo("get", "pods", "-l", "app=(").code == 2


def test_labels_are_shown_when_asked_for(axo: Axo, sandbox: Sandbox) -> None:
    sandbox.pod("web")
    found = axo("get", "pods", "--show-labels", "--no-headers")
    assert found.cells[0][-1] == "app=web"
    assert len(found.lines) == 1


def test_several_kinds_are_told_apart(axo: Axo, sandbox: Sandbox) -> None:
    sandbox.pod("web-1")
    axo("apply", "-f", "-", stdin=DEPLOYMENT)
    found = axo("get", "all")
    assert [row[0] for row in found.cells if row] == ["NAME", "pod/web-1", "NAME", "deployment.apps/web"]


def test_a_kind_that_nobody_knows(axo: Axo, sandbox: Sandbox) -> None:
    found = axo("get", "deploymnet")
    assert found.code == 1
    assert "deployment" in found.err


def test_without_a_kind_it_is_called_wrongly(axo: Axo, sandbox: Sandbox) -> None:
    assert axo("get").code == 2


def test_without_a_sandbox(axo: Axo, sandbox: Sandbox) -> None:
    found = axo("--sandbox", "other", "get", "pods")
    assert found.code == 1
    assert "axo sandbox up" in found.err


def test_policies_of_all_kinds_with_subject_and_directions(axo: Axo, sandbox: Sandbox) -> None:
    assert axo("apply", "-f", "-", stdin=POLICIES).code == 0
    found = axo("get", "policies")
    assert [row[:-1] for row in found.cells] == [
        ["KIND", "NAME", "SUBJECT", "DIRECTIONS"],
        ["NetworkPolicy", "closed", "*", "Ingress,Egress"],
        ["CiliumNetworkPolicy", "front", "app=web", "Ingress"],
        ["CiliumClusterwideNetworkPolicy", "fence", "*", "Egress"],
    ]
    assert axo("get", "policy", "front", "-o", "name").lines == ["ciliumnetworkpolicy.cilium.io/front"]


def test_endpoints_and_identities_come_from_the_nodes(axo: Axo, sandbox: Sandbox) -> None:
    sandbox.endpoint(7, "web-1", "10.0.0.7", identity=1234)
    assert axo("get", "endpoints").cells[1] == ["web-1", "7", "1234", "10.0.0.7", "node1", "ready"]
    assert axo("get", "identities").cells[1][0] == "1234"
    document = axo("get", "endpoint", "web-1", "-o", "json").json
    assert document["status"]["identity"]["id"] == 1234
    assert document["status"]["networking"]["addressing"] == [{"ipv4": "10.0.0.7"}]
    identity = axo("get", "identity", "1234", "-o", "json").json
    assert identity["security-labels"]["k8s:app"] == "web-1"


def test_an_object_that_makes_no_sense_is_listed_all_the_same(axo: Axo, sandbox: Sandbox) -> None:
    sandbox.put({"kind": "Pod", "metadata": {"name": "odd", "namespace": "default"}, "spec": 3})
    found = axo("get", "pods")
    assert found.code == 0
    assert found.cells[1][0] == "odd"
    assert "spec" in found.lines[1]


def test_describe_brings_pods_and_policies_together(axo: Axo, sandbox: Sandbox) -> None:
    sandbox.pod("web-1")
    sandbox.endpoint(7, "web-1", "10.0.0.7", identity=1234)
    axo("apply", "-f", "-", stdin=POLICIES)
    pod = axo("describe", "pod", "web-1").out
    assert "1234" in pod
    assert "NetworkPolicy default/closed" in pod
    assert "front" not in pod, "it selects app=web"
    assert "default/web-1" in axo("describe", "netpol", "closed").out
    assert axo("describe", "pod", "nobody").code == 1


def test_describe_shows_single_values_as_fields(axo: Axo, sandbox: Sandbox) -> None:
    metadata = {"name": "web-1", "namespace": "default"}
    sandbox.put(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": metadata,
            "addressType": "IPv4",
        }
    )
    found = axo("describe", "endpointslice", "web-1")
    assert found.lines[-1].split() == ["AddressType:", "IPv4"]


def test_describe_shows_whatever_an_object_has(axo: Axo, sandbox: Sandbox) -> None:
    axo("apply", "-f", "-", stdin=DEPLOYMENT)
    found = axo("describe", "deploy", "web").out
    assert "replicas: 2" in found
    assert json.dumps("web") not in found
    assert "last-applied" not in found


DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: web}]}
"""

POLICIES = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: front}
spec:
  endpointSelector: {matchLabels: {app: web}}
  ingress: [{fromEntities: [world]}]
---
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: fence}
spec:
  endpointSelector: {}
  egressDeny: [{toCIDR: [192.0.2.0/24]}]
"""


def service(sandbox: Sandbox, name: str, status: dict[str, object] | None = None, **spec: object) -> None:
    metadata = {"name": name, "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z"}
    sandbox.put({"kind": "Service", "metadata": metadata, "spec": spec, "status": status or {}})


def endpoint_slice(sandbox: Sandbox, name: str, *addresses: str, **conditions: bool) -> None:
    labels = {"kubernetes.io/service-name": "web"}
    sandbox.put(
        {
            "kind": "EndpointSlice",
            "metadata": {"name": name, "namespace": "default", "labels": labels},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": [{"addresses": [each], "conditions": conditions} for each in addresses],
        }
    )


def test_services(axo: Axo, sandbox: Sandbox) -> None:
    port = {"port": 80, "protocol": "TCP"}
    service(sandbox, "inside", type="ClusterIP", clusterIP="10.96.1.1", ports=[port])
    service(sandbox, "node", type="NodePort", clusterIP="10.96.1.2", ports=[{**port, "nodePort": 30080}])
    service(sandbox, "lb", type="LoadBalancer", clusterIP="10.96.1.3", ports=[port])
    has_one = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}
    service(sandbox, "lb2", has_one, type="LoadBalancer", clusterIP="10.96.1.4", ports=[port])
    service(sandbox, "name", type="ExternalName", externalName="example.com")
    rows = [row[:5] for row in axo("get", "svc").cells]
    assert rows == [
        ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)"],
        ["inside", "ClusterIP", "10.96.1.1", "<none>", "80/TCP"],
        ["lb", "LoadBalancer", "10.96.1.3", "<pending>", "80/TCP"],
        ["lb2", "LoadBalancer", "10.96.1.4", "192.0.2.1", "80/TCP"],
        ["name", "ExternalName", "<none>", "example.com", "<none>"],
        ["node", "NodePort", "10.96.1.2", "<none>", "80:30080/TCP"],
    ]


def test_endpoint_slices(axo: Axo, sandbox: Sandbox) -> None:
    endpoint_slice(sandbox, "web-1", *(f"10.0.0.{number}" for number in range(5)))
    endpoint_slice(sandbox, "web-2")
    assert [row[:-1] for row in axo("get", "endpointslices").cells] == [
        ["NAME", "ADDRESSTYPE", "PORTS", "ENDPOINTS"],
        ["web-1", "IPv4", "8080", "10.0.0.0,10.0.0.1,10.0.0.2", "+", "2", "more..."],
        ["web-2", "IPv4", "8080", "<unset>"],
    ]


def test_a_service_is_described_with_who_is_behind_it(axo: Axo, sandbox: Sandbox) -> None:
    service(
        sandbox,
        "web",
        type="NodePort",
        selector={"app": "web"},
        clusterIP="10.96.1.1",
        clusterIPs=["10.96.1.1"],
        ipFamilies=["IPv4"],
        ipFamilyPolicy="SingleStack",
        sessionAffinity="ClientIP",
        sessionAffinityConfig={"clientIP": {"timeoutSeconds": 60}},
        externalTrafficPolicy="Local",
        ports=[{"name": "http", "port": 80, "targetPort": "web", "nodePort": 30080, "protocol": "TCP"}],
    )
    endpoint_slice(sandbox, "web-1", "10.0.0.1", ready=True)
    endpoint_slice(sandbox, "web-2", "10.0.0.2", ready=False)
    endpoint_slice(sandbox, "web-3", "10.0.0.3", ready=False, terminating=True)
    said = axo("describe", "svc", "web").lines
    for line in (
        "Selector:              app=web",
        "Type:                  NodePort",
        "IP families:           IPv4 (SingleStack)",
        "Addresses:             10.96.1.1",
        "Port:                  http 80/TCP",
        "  Target port:         web/TCP",
        "  Node port:           30080/TCP",
        "  Endpoints:           10.0.0.1:8080",
        "                       10.0.0.2:8080 (not ready)",
        "                       10.0.0.3:8080 (terminating)",
        "Session affinity:      ClientIP for 60 s",
        "External traffic:      Local",
    ):
        assert line in said, "\n".join(said)
