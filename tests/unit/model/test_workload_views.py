"""Pods, services and the workloads that make pods: what is read from them, and what is refused."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from axoneme.model.paths import ManifestError
from axoneme.model.pods import ContainerPort, Exec, HttpGet, Probe, TcpSocket, parse_pod
from axoneme.model.services import Service, ServicePort, parse_service
from axoneme.model.workloads import PARSERS, parse_deployment, parse_job, parse_stateful_set

from .given import Object


def pod(**spec: object) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c"}], **spec},
    }


def container(**fields: object) -> Object:
    return pod(containers=[{"name": "c", **fields}])


def service(**spec: object) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "s", "namespace": "shop", "labels": {"a": "b"}},
        "spec": {"ports": [{"port": 80}], **spec},
    }


def workload(kind: str, **spec: object) -> Object:
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c"}]}}
    return {
        "kind": kind,
        "metadata": {"name": "w"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template, **spec},
    }


def test_a_pod_with_what_it_leaves_out() -> None:
    found = parse_pod(pod(volumes=[{}]))
    assert (found.metadata.name, found.metadata.namespace, found.metadata.labels) == (
        "p",
        "default",
        {"app": "web"},
    )
    assert (found.spec.service_account, found.spec.restart_policy) == ("default", "Always")
    assert not found.spec.host_network


def test_named_ports_are_those_of_containers_and_sidecars() -> None:
    ports = [{"containerPort": 80, "name": "web"}, {"containerPort": 81}]
    dns = [{"containerPort": 53, "name": "dns", "protocol": "UDP"}]
    init = [
        {"name": "a", "ports": [{"containerPort": 1, "name": "gone"}]},
        {"name": "b", "ports": dns, "restartPolicy": "Always"},
    ]
    found = parse_pod(pod(containers=[{"name": "c", "ports": ports}], initContainers=init))
    assert found.spec.named_ports() == (ContainerPort(80, "web"), ContainerPort(53, "dns", "UDP"))


@pytest.mark.parametrize(
    ("probe", "expected"),
    [
        ({"httpGet": {"port": 80}, "periodSeconds": 3}, Probe(HttpGet(80), period=3)),
        ({"httpGet": {"port": "web", "path": "/x"}}, Probe(HttpGet("web", "/x"))),
        ({"tcpSocket": {"port": 80}}, Probe(TcpSocket(80))),
        ({"exec": {"command": ["true"]}}, Probe(Exec(("true",)))),
    ],
)
def test_probes(probe: Object, expected: Probe) -> None:
    assert parse_pod(container(readinessProbe=probe)).spec.containers[0].readiness_probe == expected


@pytest.mark.parametrize(
    ("object", "path", "remedy"),
    [
        (pod(containers=[]), "spec.containers", "at least one container"),
        (pod(containers=[{"name": "a"}, {"name": "a"}]), "spec.containers[1].name", "a name of its own"),
        (pod(containers=[{"name": "A"}]), "spec.containers[0].name", "lower-case"),
        (pod(restartPolicy="always"), "spec.restartPolicy", "is it Always?"),
        (container(ports=[{"containerPort": 0}]), "spec.containers[0].ports[0].containerPort", "from 1"),
        (
            container(ports=[{"containerPort": 1, "name": "80"}]),
            "spec.containers[0].ports[0].name",
            "at least one a letter",
        ),
        (container(readinessProbe={}), "spec.containers[0].readinessProbe", "exactly one of httpGet"),
        (container(env=[{"name": "a=b"}]), "spec.containers[0].env[0].name", "no '='"),
        (container(command="true"), "spec.containers[0].command", "a list belongs here"),
    ],
)
def test_pods_that_are_refused(object: Object, path: str, remedy: str) -> None:
    refused("Pod", object, path, remedy)


def test_a_service_with_what_it_leaves_out() -> None:
    found = parse_service(service(selector={"app": "web"}, clusterIP="10.0.0.1"))
    assert (found.type, found.cluster_ips, found.headless) == ("ClusterIP", (ip_address("10.0.0.1"),), False)
    assert found.ports == (ServicePort(80, 80),)
    assert found.selects({"app": "web", "x": "y"}) and not found.selects({"x": "y"})


@pytest.mark.parametrize(
    "spec",
    [{}, {"selector": {}}, {"type": "ExternalName", "externalName": "a.b", "selector": {"app": "web"}}],
)
def test_a_service_without_selector_selects_nobody(spec: dict[str, Any]) -> None:
    assert not parse_service(service(**spec)).selects({"app": "web"})


def test_a_headless_service_may_have_no_ports() -> None:
    found: Service = parse_service(service(clusterIP="None", ports=[]))
    assert found.headless and found.cluster_ips == () == found.ports


@pytest.mark.parametrize(
    ("object", "path", "remedy"),
    [
        (service(ports=[]), "spec.ports", "at least one port"),
        (service(ports=[{"port": 1}, {"port": 2}]), "spec.ports[0].name", "need names"),
        (
            service(ports=[{"port": 1, "name": "a"}, {"port": 1, "name": "b"}]),
            "spec.ports[1].port",
            "already",
        ),
        (service(type="clusterIP"), "spec.type", "is it ClusterIP?"),
        (service(type="ExternalName"), "spec.externalName", "has one"),
        (service(clusterIP="x"), "spec.clusterIP", "an IP address"),
        ({**service(), "metadata": {"name": "1s"}}, "metadata.name", "starting with a letter"),
    ],
)
def test_services_that_are_refused(object: Object, path: str, remedy: str) -> None:
    refused("Service", object, path, remedy)


@pytest.mark.parametrize("kind", ["Deployment", "ReplicaSet", "StatefulSet", "DaemonSet"])
def test_a_workload_must_know_its_own_pods(kind: str) -> None:
    PARSERS[kind](workload(kind))
    other = {"matchLabels": {"app": "other"}}
    refused(kind, workload(kind, selector=other), "spec.template.metadata.labels", "the selector's app")
    refused(kind, workload(kind, selector={}), "spec.selector", "cannot be empty")
    once = {**workload(kind)["spec"]["template"]}
    once["spec"] = {**once["spec"], "restartPolicy": "Never"}
    refused(kind, workload(kind, template=once), "spec.template.spec.restartPolicy", "restart Always")


def test_workloads_with_what_they_leave_out() -> None:
    deployment = parse_deployment(workload("Deployment"))
    assert (deployment.replicas, deployment.recreate) == (1, False)
    stateful = parse_stateful_set(workload("StatefulSet", replicas=2, ordinals={"start": 3}))
    assert stateful.pod_names() == ("w-3", "w-4")
    once = {"spec": {"containers": [{"name": "c"}], "restartPolicy": "Never"}}
    job = parse_job({"kind": "Job", "metadata": {"name": "j"}, "spec": {"template": once}})
    assert (job.parallelism, job.completions, job.suspend) == (1, None, False)


def refused(kind: str, object: Object, path: str, remedy: str) -> None:
    with pytest.raises(ManifestError) as caught:
        PARSERS[kind](object)
    assert caught.value.path == path and remedy in caught.value.right
    assert str(caught.value).startswith(f"{kind} ")
