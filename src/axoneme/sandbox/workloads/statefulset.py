"""StatefulSet: pods with numbers and lasting names, made in order.

With ``OrderedReady`` (the default) a pod waits until all before it are ready; with ``Parallel`` none
waits. A changed template replaces pods one by one, the highest number first.
"""

from __future__ import annotations

from collections.abc import Sequence

from axoneme.sandbox.objects import Pod, StatefulSet
from axoneme.sandbox.statuses import StatefulSetStatus
from axoneme.sandbox.workloads.changes import Changes, NewObject, Surroundings
from axoneme.sandbox.workloads.podtemplate import new_pod, owner_reference, template_hash

REVISION_LABEL = "controller-revision-hash"
NAME_LABEL = "statefulset.kubernetes.io/pod-name"
INDEX_LABEL = "apps.kubernetes.io/pod-index"


def reconcile(workload: StatefulSet, pods: Sequence[Pod], surroundings: Surroundings) -> Changes:
    revision = f"{workload.metadata.name}-{template_hash(workload.spec.template)}"
    first = workload.spec.ordinals.start
    wanted = [f"{workload.metadata.name}-{first + place}" for place in range(workload.spec.replicas)]
    by_name = {pod.metadata.name: pod for pod in pods}
    ordered = workload.spec.pod_management_policy != "Parallel"

    missing = [name for name in wanted if name not in by_name]
    if ordered:
        missing = missing[:1] if _all_ready_before(missing[:1], wanted, by_name) else []
    create = tuple(_pod(workload, name, revision, surroundings) for name in missing)

    surplus = sorted((pod for pod in pods if pod.metadata.name not in wanted), key=_ordinal, reverse=True)
    if ordered:
        surplus = [] if missing else surplus[:1]
    ended = [pod for pod in pods if pod.finished]
    settled = not missing and not surplus and all(name in by_name for name in wanted)
    outdated = [
        by_name[name]
        for name in reversed(wanted)
        if settled and by_name[name].metadata.labels.get(REVISION_LABEL) != revision
    ]
    # One at a time: the next is replaced when all are ready again, a broken one at once.
    calm = all(pod.ready for pod in pods)
    replaced = [pod for pod in outdated if calm or not pod.ready][:1]
    going = {pod.key: pod for pod in (*surplus, *ended, *replaced)}
    delete = tuple(key for key, pod in going.items() if not pod.terminating)
    return Changes(create=create, delete=delete, status=_status(workload, pods, wanted, revision))


def _all_ready_before(name: Sequence[str], wanted: Sequence[str], by_name: dict[str, Pod]) -> bool:
    before = wanted[: wanted.index(name[0])] if name else ()
    return all(each in by_name and by_name[each].ready for each in before)


def _pod(workload: StatefulSet, name: str, revision: str, surroundings: Surroundings) -> NewObject:
    return new_pod(
        workload.spec.template,
        owner_reference("apps/v1", "StatefulSet", workload.metadata),
        workload.metadata.namespace,
        name,
        surroundings,
        labels={
            REVISION_LABEL: revision,
            NAME_LABEL: name,
            INDEX_LABEL: name.rpartition("-")[2],
        },
        spec={"hostname": name, "subdomain": workload.spec.service_name},
        generate_name=f"{workload.metadata.name}-",
    )


def _ordinal(pod: Pod) -> int:
    number = pod.metadata.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def _status(
    workload: StatefulSet, pods: Sequence[Pod], wanted: Sequence[str], revision: str
) -> StatefulSetStatus:
    present = [pod for pod in pods if pod.metadata.name in wanted and not pod.terminating]
    ready = sum(pod.ready for pod in present)
    updated = sum(pod.metadata.labels.get(REVISION_LABEL) == revision for pod in present)
    return StatefulSetStatus(
        replicas=len(present),
        ready_replicas=ready,
        available_replicas=ready,
        current_replicas=updated,
        updated_replicas=updated,
        observed_generation=workload.metadata.generation,
        update_revision=revision,
    )
