"""ReplicaSet: so many pods, no matter which."""

from __future__ import annotations

from collections.abc import Sequence

from axoneme.sandbox.objects import Pod, ReplicaSet
from axoneme.sandbox.statuses import ReplicaSetStatus
from axoneme.sandbox.workloads.changes import Changes, Surroundings
from axoneme.sandbox.workloads.podtemplate import new_pod, owner_reference


def reconcile(workload: ReplicaSet, pods: Sequence[Pod], surroundings: Surroundings) -> Changes:
    """Replaces pods that have ended or are going, and takes away what is too many."""
    active = [pod for pod in pods if not pod.terminating and not pod.finished]
    wanted = workload.spec.replicas
    owner = owner_reference("apps/v1", "ReplicaSet", workload.metadata)
    stem = f"{workload.metadata.name}-"
    status = ReplicaSetStatus(
        replicas=len(active),
        ready_replicas=sum(pod.ready for pod in active),
        available_replicas=sum(pod.ready for pod in active),
        fully_labeled_replicas=len(active),
        observed_generation=workload.metadata.generation,
    )
    create = tuple(
        new_pod(
            workload.spec.template,
            owner,
            workload.metadata.namespace,
            stem + surroundings.suffix(),
            surroundings,
            labels={},
            generate_name=stem,
        )
        for _ in range(wanted - len(active))
    )
    ended = tuple(pod.key for pod in pods if pod.finished and not pod.terminating)
    surplus = tuple(pod.key for pod in least_useful_first(active)[: max(len(active) - wanted, 0)])
    return Changes(create=create, delete=ended + surplus, status=status)


def least_useful_first(pods: Sequence[Pod]) -> list[Pod]:
    """In the order in which they go when there are too many: the youngest of the least ready first."""
    age = sorted(pods, key=lambda pod: (pod.metadata.creation_timestamp, pod.metadata.name), reverse=True)
    return sorted(age, key=lambda pod: (bool(pod.spec.node_name), pod.ready))
