"""Names in pods, as their own libc finds them: by resolv.conf, the DNS service, and the pods behind it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from runtime import Document, Live, addresses, live

MANIFESTS = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: web, ports: [{name: http, containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  ipFamilyPolicy: PreferDualStack
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: shop}
spec:
  replicas: 2
  serviceName: db
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: db, image: db, ports: [{name: sql, containerPort: 5432}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {clusterIP: None, selector: {app: db}, ports: [{name: sql, port: 5432}]}
---
apiVersion: v1
kind: Service
metadata: {name: far, namespace: shop}
spec: {type: ExternalName, externalName: www.far.test}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop, labels: {app: client}}
spec:
  containers: [{name: c, image: i, command: [sleep, infinity]}]
  hostAliases: [{ip: 192.0.2.7, hostnames: [alias.test]}]
---
apiVersion: v1
kind: Pod
metadata: {name: node-client, namespace: shop}
spec:
  hostNetwork: true
  containers: [{name: c, image: i, command: [sleep, infinity]}]
"""
ZONE = """
$ORIGIN far.test.
www   A     203.0.113.20
      AAAA  2001:db8:a::20
many  A     192.0.2.1
"""
LOOK_UP = """
import json, socket, sys
found = set()
try:
    for family, _, _, _, address in socket.getaddrinfo(sys.argv[1], 80, type=socket.SOCK_STREAM):
        found.add(address[0])
except socket.gaierror as failure:
    print(json.dumps(failure.args[0]))
else:
    print(json.dumps(sorted(found)))
"""


@pytest.fixture(scope="module")
def zone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("names") / "world.zone"
    path.write_text(ZONE)
    return path


@pytest.fixture(scope="module")
def cluster(zone: Path) -> Iterator[Live]:
    with live("names", MANIFESTS, zone=str(zone)) as runtime:
        runtime.wait(lambda: look_up(runtime, "web") != -3, "the cluster's DNS is there", 30)
        yield runtime


def inside(runtime: Live, pod: str, *command: str) -> str:
    """What a command in a pod says."""
    axo = (sys.executable, "-m", "axoneme.cli", "--sandbox", runtime.name, "exec", "-n", "shop", pod, "--")
    done = subprocess.run([*axo, *command], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout


def look_up(runtime: Live, name: str, pod: str = "client") -> list[str] | int:
    """The addresses that the pod's libc finds, or its error (EAI_NONAME -2, EAI_AGAIN -3, EAI_NODATA -5)."""
    found: list[str] | int = json.loads(inside(runtime, pod, sys.executable, "-c", LOOK_UP, name) or "-3")
    return found


def service_addresses(runtime: Live, name: str) -> list[str]:
    found = runtime.get("Service", name, "shop")
    assert found is not None
    return sorted(found["spec"]["clusterIPs"])


def pods(runtime: Live, app: str) -> list[Document]:
    return sorted(runtime.pods(app=app), key=lambda pod: str(pod["metadata"]["name"]))


def test_a_service_is_found_by_each_of_its_names(cluster: Live) -> None:
    expected = service_addresses(cluster, "web")
    for name in (
        "web",
        "web.shop",
        "web.shop.svc",
        "web.shop.svc.cluster.local",
        "WEB.shop.svc.cluster.local.",
    ):
        assert look_up(cluster, name) == expected, name
    assert look_up(cluster, "web.default") == -2
    assert look_up(cluster, "nobody") == -2


def test_a_headless_service_is_its_pods_and_each_has_a_name(cluster: Live) -> None:
    first, second = pods(cluster, "db")
    four = sorted(addresses(each)[0] for each in (first, second))
    cluster.wait(lambda: look_up(cluster, "db") == four, "both pods behind the name")
    assert look_up(cluster, "db-0.db") == [addresses(first)[0]]
    assert look_up(cluster, "db-1.db.shop.svc.cluster.local") == [addresses(second)[0]]
    dashed = addresses(first)[0].replace(".", "-")
    assert look_up(cluster, f"{dashed}.shop.pod.cluster.local") == [addresses(first)[0]]


def test_names_of_the_world_come_from_its_zone_file(cluster: Live, zone: Path) -> None:
    expected = ["2001:db8:a::20", "203.0.113.20"]
    assert look_up(cluster, "www.far.test") == expected
    assert look_up(cluster, "far") == expected, "a service that is another name"
    assert look_up(cluster, "new.far.test") == -2
    zone.write_text(f"{ZONE}new A 192.0.2.99\n")
    assert look_up(cluster, "new.far.test") == ["192.0.2.99"]


def test_a_pods_own_hosts_come_first(cluster: Live) -> None:
    assert look_up(cluster, "alias.test") == ["192.0.2.7"]
    assert look_up(cluster, "localhost")[0] in ("127.0.0.1", "::1")  # type: ignore[index]


def test_a_pod_on_the_nodes_network_asks_the_worlds_name_server(cluster: Live) -> None:
    assert look_up(cluster, "www.far.test", "node-client") == ["2001:db8:a::20", "203.0.113.20"]
    assert look_up(cluster, "web.shop.svc.cluster.local", "node-client") == -2


def test_a_program_reaches_a_service_by_its_name(cluster: Live) -> None:
    fetch = (
        "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())"
    )
    names = {each["metadata"]["name"] for each in pods(cluster, "web")}
    said = json.loads(inside(cluster, "client", sys.executable, "-c", fetch, "http://web/"))
    assert said["pod"] in names


def test_names_follow_what_becomes_of_services_and_pods(cluster: Live) -> None:
    cluster.apply(
        "{apiVersion: v1, kind: Service, metadata: {name: late, namespace: shop}, "
        "spec: {clusterIP: 10.96.0.77, selector: {app: web}, ports: [{port: 80}]}}"
    )
    cluster.wait(lambda: look_up(cluster, "late") == ["10.96.0.77"], "the name of a new service")
    cluster.delete("Service", "late", "shop")
    cluster.wait(lambda: look_up(cluster, "late") == -2, "it is no name any more")


def test_the_process_of_the_name_servers_comes_again(cluster: Live) -> None:
    record = json.loads((cluster.layout.directory / "dns.pid").read_text())
    subprocess.run(["kill", "-KILL", str(record["pid"])], check=True)
    expected = service_addresses(cluster, "web")
    cluster.wait(lambda: look_up(cluster, "web") == expected, "names are served again", 30)
