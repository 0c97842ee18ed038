"""The cluster's DNS as objects: an ordinary workload behind an ordinary service, with the names and labels
that other clusters have, so that policies about it mean it."""

from __future__ import annotations

from typing import Any, Final

from axoneme.sandbox.objects import Pod
from axoneme.sandbox.plan import DNS_PORT, Plan
from axoneme.sandbox.services.admission import admit
from axoneme.sandbox.services.allocation import Taken

#: Containers with this image are played by the process of the name servers.
IMAGE: Final = "axoneme/cluster-dns"
NAMESPACE: Final = "kube-system"

_NAME: Final = "kube-dns"
_LABELS: Final = {"k8s-app": "kube-dns"}
_REPLICAS: Final = 2


def serves_names(pod: Pod) -> bool:
    """Whether a pod is one of the cluster's DNS."""
    return any(each.image == IMAGE for each in pod.spec.containers)


def objects(plan: Plan) -> list[dict[str, Any]]:
    """The deployment and the service; of a plan with DNS."""
    ports = [{"name": "dns", "protocol": "UDP"}, {"name": "dns-tcp", "protocol": "TCP"}]
    container = {
        "name": "dns",
        "image": IMAGE,
        "ports": [{**each, "containerPort": DNS_PORT} for each in ports],
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": _NAME, "namespace": NAMESPACE, "labels": _LABELS},
        "spec": {
            "replicas": min(_REPLICAS, plan.nodes),
            "selector": {"matchLabels": _LABELS},
            "template": {
                "metadata": {"labels": _LABELS},
                "spec": {"dnsPolicy": "Default", "containers": [container]},
            },
        },
    }
    addresses = list(plan.dns_addresses())
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": _NAME,
            "namespace": NAMESPACE,
            "labels": {**_LABELS, "kubernetes.io/cluster-service": "true"},
        },
        "spec": {
            "clusterIP": addresses[0],
            "clusterIPs": addresses,
            "ipFamilyPolicy": "RequireDualStack" if len(addresses) > 1 else "SingleStack",
            "selector": _LABELS,
            "ports": [{**each, "port": DNS_PORT, "targetPort": DNS_PORT} for each in ports],
        },
    }
    return [admit(service, None, Taken(), plan.service_ranges()), deployment]
