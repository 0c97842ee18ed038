"""The controllers' loop: hears of changes, asks the kind's `reconcile`, applies what it says.

Level-triggered: a change only marks a workload; what is done follows from how things stand when its turn
comes. So nothing is lost when the supervisor is restarted in the middle.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TypeVar

import msgspec

from axoneme.model import documents
from axoneme.sandbox import admission, scheduler
from axoneme.sandbox.cluster import Cluster, ObjectChange
from axoneme.sandbox.objects import (
    DaemonSet,
    Deployment,
    Job,
    Node,
    ObjectKey,
    Pod,
    ReplicaSet,
    StatefulSet,
)
from axoneme.sandbox.statuses import Condition, PodStatus
from axoneme.sandbox.workloads import daemonset, deployment, job, replicaset, statefulset
from axoneme.sandbox.workloads.changes import Changes, Surroundings

log = logging.getLogger(__name__)

K = TypeVar("K")

WORKLOADS = ("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job")
#: Kinds whose objects another object may control.
_DEPENDENTS = ("Pod", "ReplicaSet", "EndpointSlice")


class WorkloadController:
    """Admits objects, keeps workloads' pods, gives pods their nodes, clears away what lost its owner."""

    def __init__(self, cluster: Cluster, surroundings: Callable[[], Surroundings]) -> None:
        self._cluster = cluster
        self._surroundings = surroundings
        self._marked: dict[ObjectKey, None] = {}
        self._orphans: dict[ObjectKey, None] = {}
        self._emptied: dict[str, None] = {}
        self._called = asyncio.Event()
        cluster.listen(self._hear)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._called.wait()
            self._called.clear()
            while self._emptied:
                await self._empty_namespace(_take(self._emptied))
            while self._orphans:
                await self._cluster.terminate(_take(self._orphans), self._surroundings().now)
            while self._marked:
                await self._attend(_take(self._marked))

    # ---- what a change concerns --------------------------------------------------------------------

    def _hear(self, news: list[ObjectChange]) -> None:
        for change in news:
            self._concern(change)
        self._called.set()

    def _concern(self, change: ObjectChange) -> None:
        key = change.key
        if change.after is not None:
            self._marked[key] = None
        elif change.before is not None:
            for kind in _DEPENDENTS:
                for dependent in self._cluster.owned(change.before.metadata.uid, kind):
                    self._orphans[dependent] = None
            if key.kind == "Namespace":
                self._emptied[key.name] = None
        for stored in (change.before, change.after):
            owner = stored.metadata.controller if stored else None
            if owner is not None:
                self._marked[ObjectKey(owner.kind, key.namespace, owner.name)] = None
        if key.kind == "Node":
            for other in (*self._cluster.keys("DaemonSet"), *self._cluster.keys("Pod")):
                self._marked[other] = None

    # ---- what is done about it ---------------------------------------------------------------------

    async def _attend(self, key: ObjectKey) -> None:
        stored = self._cluster.get(key)
        if stored is None:
            return
        if not admission.admitted(key, stored.metadata):
            await self._cluster.update(
                key, lambda document: admission.complete(key, document, self._surroundings())
            )
            return  # which marks it again
        if key.namespace and not stored.metadata.deletion_timestamp:
            await self._ensure_namespace(key.namespace)
        owner = stored.metadata.controller
        if owner is not None and key.kind in _DEPENDENTS:
            holder = self._cluster.get(ObjectKey(owner.kind, key.namespace, owner.name))
            if holder is None or holder.metadata.uid != owner.uid:
                await self._cluster.terminate(key, self._surroundings().now)
                return
        if key.kind == "Pod":
            await self._schedule(key)
        elif key.kind in WORKLOADS and not stored.metadata.deletion_timestamp:
            changes = self._reconcile(key)
            if changes is not None:
                await self._apply(key, changes)

    def _reconcile(self, key: ObjectKey) -> Changes | None:
        cluster, surroundings = self._cluster, self._surroundings()
        match key.kind:
            case "Deployment":
                if found := cluster.parsed(key, Deployment):
                    return deployment.reconcile(
                        found, self._children(found.metadata.uid, "ReplicaSet", ReplicaSet), surroundings
                    )
            case "ReplicaSet":
                if replicas := cluster.parsed(key, ReplicaSet):
                    return replicaset.reconcile(replicas, self._pods(replicas.metadata.uid), surroundings)
            case "StatefulSet":
                if stateful := cluster.parsed(key, StatefulSet):
                    return statefulset.reconcile(stateful, self._pods(stateful.metadata.uid), surroundings)
            case "DaemonSet":
                if daemon := cluster.parsed(key, DaemonSet):
                    nodes = cluster.all("Node", Node)
                    return daemonset.reconcile(daemon, self._pods(daemon.metadata.uid), nodes, surroundings)
            case "Job":
                if task := cluster.parsed(key, Job):
                    return job.reconcile(task, self._pods(task.metadata.uid), surroundings)
        return None

    async def _apply(self, key: ObjectKey, changes: Changes) -> None:
        for new in changes.create:
            await self._cluster.create(new)
        for gone in changes.delete:
            await self._cluster.terminate(gone, self._surroundings().now)
        for change in changes.set:
            await self._cluster.update(
                change.key,
                lambda document, change=change: documents.with_field(  # type: ignore[misc]
                    document, change.path, change.value
                ),
            )
        if changes.status is not None:
            await self._write_status(key, changes.status)

    async def _write_status(self, key: ObjectKey, status: msgspec.Struct) -> None:
        wanted = msgspec.json.encode(status)

        def change(document: bytes) -> bytes:
            if documents.field(document, ("status",)) == wanted:
                return document
            return documents.with_field(document, ("status",), msgspec.Raw(wanted))

        await self._cluster.update(key, change)

    async def _schedule(self, key: ObjectKey) -> None:
        pod = self._cluster.parsed(key, Pod)
        if pod is None or pod.spec.node_name:
            return
        if pod.terminating:
            await self._cluster.remove(key, pod.metadata.uid)
            return
        placed = [other for other in self._cluster.all("Pod", Pod) if other.spec.node_name]
        try:
            node = scheduler.choose(pod, self._cluster.all("Node", Node), placed)
        except scheduler.Unschedulable as reason:
            waiting = Condition(
                type="PodScheduled",
                status="False",
                reason="Unschedulable",
                message=str(reason),
                last_transition_time=pod.metadata.creation_timestamp,
            )
            await self._write_status(key, PodStatus(phase="Pending", conditions=(waiting,)))
            return
        await self._cluster.update(
            key,
            lambda document: documents.with_field(document, ("spec", "nodeName"), node),
            pod.metadata.uid,
        )

    async def _ensure_namespace(self, name: str) -> None:
        if self._cluster.get(ObjectKey("Namespace", "", name)) is None:
            await self._cluster.create(admission.namespace(name, self._surroundings()))

    async def _empty_namespace(self, name: str) -> None:
        """A namespace that is deleted takes all that is in it along, workloads before their pods."""
        inside = [key for key, _ in self._cluster.every() if key.namespace == name]
        for key in sorted(inside, key=lambda key: key.kind in _DEPENDENTS):
            await self._cluster.terminate(key, self._surroundings().now)

    def _children(self, uid: str, kind: str, parsed: type[ReplicaSet]) -> list[ReplicaSet]:
        found = (self._cluster.parsed(key, parsed) for key in self._cluster.owned(uid, kind))
        return [each for each in found if each is not None]

    def _pods(self, uid: str) -> list[Pod]:
        found = (self._cluster.parsed(key, Pod) for key in self._cluster.owned(uid, "Pod"))
        return [each for each in found if each is not None]


def _take(marked: dict[K, None]) -> K:
    key = next(iter(marked))
    del marked[key]
    return key
