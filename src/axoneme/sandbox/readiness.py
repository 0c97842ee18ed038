"""What a cluster still waits for, in sentences for whoever waits with it."""

from __future__ import annotations

from collections.abc import Iterable

from axoneme.sandbox.cluster import Cluster
from axoneme.sandbox.objects import (
    DaemonSet,
    Deployment,
    Job,
    Metadata,
    Node,
    Pod,
    PodSpec,
    ReplicaSet,
    StatefulSet,
    read,
)
from axoneme.sandbox.scheduler import admits


def waiting(cluster: Cluster) -> list[str]:
    """One sentence for each workload that lacks ready pods, and for each pod that is not ready.

    Pods that have finished, or are going, are not waited for.
    """
    pods = cluster.all("Pod", Pod)
    return [
        *_workloads(cluster, pods),
        *(_unready(pod) for pod in pods if not (pod.ready or pod.finished or pod.terminating)),
    ]


def _workloads(cluster: Cluster, pods: Iterable[Pod]) -> Iterable[str]:
    ready: dict[str, int] = {}
    for pod in pods:
        owner = pod.metadata.controller
        if owner is not None:
            ready[owner.uid] = ready.get(owner.uid, 0) + (pod.ready or pod.status.phase == "Succeeded")
    for replicas in cluster.all("ReplicaSet", ReplicaSet):
        have = ready.get(replicas.metadata.uid, 0)
        owner = replicas.metadata.controller
        if owner is not None:
            ready[owner.uid] = ready.get(owner.uid, 0) + have
        else:
            yield from _lack("ReplicaSet", replicas.metadata, have, replicas.spec.replicas)
    for deployment in cluster.all("Deployment", Deployment):
        have = ready.get(deployment.metadata.uid, 0)
        yield from _lack("Deployment", deployment.metadata, have, deployment.spec.replicas)
    for stateful in cluster.all("StatefulSet", StatefulSet):
        have = ready.get(stateful.metadata.uid, 0)
        yield from _lack("StatefulSet", stateful.metadata, have, stateful.spec.replicas)
    nodes = cluster.all("Node", Node)
    for daemon in cluster.all("DaemonSet", DaemonSet):
        spec = read(bytes(daemon.spec.template.spec), PodSpec)
        wanted = sum(admits(spec, node) for node in nodes)
        yield from _lack("DaemonSet", daemon.metadata, ready.get(daemon.metadata.uid, 0), wanted)
    for job in cluster.all("Job", Job):
        if not job.status.conditions and not job.spec.suspend:
            yield from _lack("Job", job.metadata, ready.get(job.metadata.uid, 0), 1)


def _lack(kind: str, metadata: Metadata, have: int, wanted: int) -> Iterable[str]:
    if have < wanted:
        yield f"{kind} {metadata.namespace}/{metadata.name}: {have} of {wanted} pods are ready"


def _unready(pod: Pod) -> str:
    name = f"Pod {pod.metadata.namespace}/{pod.metadata.name}"
    if not pod.spec.node_name:
        why = next((each.message for each in pod.status.conditions if each.type == "PodScheduled"), "")
        return f"{name}: has no node yet{f': {why}' if why else ''}"
    if not pod.status.conditions:
        return f"{name}: being made on {pod.spec.node_name}"
    why = pod.status.message or next(
        (each.message for each in pod.status.conditions if each.type == "Ready"), ""
    )
    return f"{name}: not ready{f': {why}' if why else ''}"
