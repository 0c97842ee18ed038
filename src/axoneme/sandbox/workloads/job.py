"""Job: pods that run to their end, until enough have succeeded or too many failed."""

from __future__ import annotations

from collections.abc import Sequence

from axoneme.sandbox.objects import Job, Pod
from axoneme.sandbox.statuses import Condition, JobStatus
from axoneme.sandbox.workloads.changes import Changes, NewObject, Surroundings
from axoneme.sandbox.workloads.podtemplate import new_pod, owner_reference

COMPLETE = "Complete"
FAILED = "Failed"


def reconcile(workload: Job, pods: Sequence[Pod], surroundings: Surroundings) -> Changes:
    """Finished pods stay, for their logs. A job that has ended changes no more."""
    if any(each.type in {COMPLETE, FAILED} and each.status == "True" for each in workload.status.conditions):
        return Changes()
    active = [pod for pod in pods if not pod.terminating and not pod.finished]
    succeeded = sum(pod.status.phase == "Succeeded" for pod in pods)
    failed = sum(pod.status.phase == "Failed" for pod in pods)
    wanted = workload.spec.parallelism if workload.spec.completions is None else workload.spec.completions
    ending: Condition | None = None
    if succeeded >= wanted:
        ending = Condition(type=COMPLETE, status="True", last_transition_time=surroundings.now)
    elif failed > workload.spec.backoff_limit:
        ending = Condition(
            type=FAILED,
            status="True",
            reason="BackoffLimitExceeded",
            message=f"{failed} pods failed; backoffLimit is {workload.spec.backoff_limit}",
            last_transition_time=surroundings.now,
        )
    idle = ending is not None or workload.spec.suspend
    room = 0 if idle else min(workload.spec.parallelism, wanted - succeeded) - len(active)
    surplus = active if idle else active[: max(-room, 0)]
    status = JobStatus(
        active=len(active),
        ready=sum(pod.ready for pod in active),
        succeeded=succeeded,
        failed=failed,
        start_time=workload.status.start_time or surroundings.now,
        completion_time=surroundings.now if ending and ending.type == COMPLETE else "",
        conditions=(ending,) if ending else (),
    )
    return Changes(
        create=tuple(_pod(workload, surroundings) for _ in range(room)),
        delete=tuple(pod.key for pod in surplus),
        status=status,
    )


def _pod(workload: Job, surroundings: Surroundings) -> NewObject:
    name = workload.metadata.name
    labels = {
        "batch.kubernetes.io/job-name": name,
        "batch.kubernetes.io/controller-uid": workload.metadata.uid,
        "job-name": name,
        "controller-uid": workload.metadata.uid,
    }
    return new_pod(
        workload.spec.template,
        owner_reference("batch/v1", "Job", workload.metadata),
        workload.metadata.namespace,
        f"{name}-{surroundings.suffix()}",
        surroundings,
        labels=labels,
        generate_name=f"{name}-",
    )
