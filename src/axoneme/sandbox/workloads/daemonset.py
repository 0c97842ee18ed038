"""DaemonSet: one pod on each node that the template's node selector admits."""

from __future__ import annotations

from collections.abc import Sequence

from axoneme.sandbox.objects import DaemonSet, Node, Pod, PodSpec, read
from axoneme.sandbox.scheduler import admits
from axoneme.sandbox.statuses import DaemonSetStatus
from axoneme.sandbox.workloads.changes import Changes, NewObject, Surroundings
from axoneme.sandbox.workloads.podtemplate import new_pod, owner_reference, template_hash

REVISION_LABEL = "controller-revision-hash"


def reconcile(
    workload: DaemonSet, pods: Sequence[Pod], nodes: Sequence[Node], surroundings: Surroundings
) -> Changes:
    """A pod of an older template goes first; the new one is made when it is gone from the node."""
    template = workload.spec.template
    revision = template_hash(template)
    spec = read(bytes(template.spec), PodSpec)
    wanted = [node.metadata.name for node in nodes if admits(spec, node)]
    by_node: dict[str, list[Pod]] = {}
    for pod in pods:
        by_node.setdefault(pod.spec.node_name, []).append(pod)

    create: list[NewObject] = []
    delete = [pod for node, there in by_node.items() if node not in wanted for pod in there]
    for node in wanted:
        there = by_node.get(node, [])
        if not there:
            create.append(_pod(workload, node, revision, surroundings))
        # Extra ones are left over from a crash between making one and learning of it.
        delete += there[1:]
        delete += [
            pod for pod in there[:1] if pod.finished or pod.metadata.labels.get(REVISION_LABEL) != revision
        ]
    present = [pod for pod in pods if pod.spec.node_name in wanted and not pod.terminating]
    ready = sum(pod.ready for pod in present)
    status = DaemonSetStatus(
        desired_number_scheduled=len(wanted),
        current_number_scheduled=len(present),
        updated_number_scheduled=sum(pod.metadata.labels.get(REVISION_LABEL) == revision for pod in present),
        number_ready=ready,
        number_available=ready,
        observed_generation=workload.metadata.generation,
    )
    keys = tuple(pod.key for pod in delete if not pod.terminating)
    return Changes(create=tuple(create), delete=keys, status=status)


def _pod(workload: DaemonSet, node: str, revision: str, surroundings: Surroundings) -> NewObject:
    stem = f"{workload.metadata.name}-"
    return new_pod(
        workload.spec.template,
        owner_reference("apps/v1", "DaemonSet", workload.metadata),
        workload.metadata.namespace,
        stem + surroundings.suffix(),
        surroundings,
        labels={REVISION_LABEL: revision},
        spec={"nodeName": node},
        generate_name=stem,
    )
