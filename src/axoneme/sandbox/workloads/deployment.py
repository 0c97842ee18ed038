"""Deployment: one ReplicaSet for each version of its template.

A new version comes up whole beside the old one, which goes when the new one is ready, or first with the
strategy ``Recreate``. There is no rollout by steps: the sandbox shows networks, not releases.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from axoneme.sandbox.objects import Deployment, ObjectKey, ReplicaSet
from axoneme.sandbox.statuses import DeploymentStatus, condition
from axoneme.sandbox.workloads.changes import Changes, FieldChange, NewObject, Surroundings
from axoneme.sandbox.workloads.podtemplate import metadata_of, owner_reference, template_hash

HASH_LABEL = "pod-template-hash"


def reconcile(workload: Deployment, owned: Sequence[ReplicaSet], surroundings: Surroundings) -> Changes:
    version = template_hash(workload.spec.template)
    namespace = workload.metadata.namespace
    key = ObjectKey("ReplicaSet", namespace, f"{workload.metadata.name}-{version}")
    current = next((each for each in owned if each.metadata.name == key.name), None)
    old = [each for each in owned if each is not current and not each.metadata.deletion_timestamp]
    wanted = workload.spec.replicas
    create: tuple[NewObject, ...] = ()
    change: tuple[FieldChange, ...] = ()
    replace_first = workload.spec.strategy.type == "Recreate"
    if current is None:
        create = (_replica_set(workload, key, version, surroundings),)
    elif current.spec.replicas != wanted:
        change = (FieldChange(key, ("spec", "replicas"), wanted),)
    ready = current.status.ready_replicas if current else 0
    gone = tuple(
        ObjectKey("ReplicaSet", namespace, each.metadata.name)
        for each in old
        if replace_first or (current is not None and ready >= wanted)
    )
    return Changes(
        create=create, delete=gone, set=change, status=_status(workload, current, owned, surroundings.now)
    )


def _replica_set(workload: Deployment, key: ObjectKey, version: str, surroundings: Surroundings) -> NewObject:
    template = workload.spec.template
    labels = {**template.metadata.labels, HASH_LABEL: version}
    match = {**workload.spec.selector.match_labels, HASH_LABEL: version}
    metadata = metadata_of(
        key, owner_reference("apps/v1", "Deployment", workload.metadata), surroundings, labels, {}
    )
    document = msgspec.json.encode(
        {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": metadata,
            "spec": {
                "replicas": workload.spec.replicas,
                "selector": {
                    "matchLabels": match,
                    "matchExpressions": workload.spec.selector.match_expressions,
                },
                "template": {
                    "metadata": {"labels": labels, "annotations": template.metadata.annotations},
                    "spec": template.spec,
                },
            },
        }
    )
    return NewObject(key, document)


def _status(
    workload: Deployment, current: ReplicaSet | None, owned: Sequence[ReplicaSet], now: str
) -> DeploymentStatus:
    wanted = workload.spec.replicas
    ready = sum(each.status.ready_replicas for each in owned)
    available = ready >= wanted
    reached = condition(
        workload.status.conditions,
        "Available",
        available,
        now,
        reason="MinimumReplicasAvailable" if available else "MinimumReplicasUnavailable",
    )
    return DeploymentStatus(
        replicas=sum(each.status.replicas for each in owned),
        updated_replicas=current.status.replicas if current else 0,
        ready_replicas=ready,
        available_replicas=ready,
        unavailable_replicas=max(wanted - ready, 0),
        observed_generation=workload.metadata.generation,
        conditions=(reached,),
    )
