"""The kubelet of one node: a worker for each of its pods."""

from __future__ import annotations

import asyncio
import logging

from axoneme.sandbox import cgroups, netns
from axoneme.sandbox.cluster import ObjectChange, Stored
from axoneme.sandbox.kubelet import network
from axoneme.sandbox.kubelet.containers import bound_log
from axoneme.sandbox.kubelet.records import PodFiles, PodRecord, pods_of
from axoneme.sandbox.kubelet.worker import NodeContext, PodWorker
from axoneme.sandbox.objects import ObjectKey, Pod

log = logging.getLogger(__name__)

#: Seconds between two looks at the sizes of logs.
_LOG_ROUND = 2.0


class Kubelet:
    """Hears of pods through the cluster's mirror."""

    def __init__(self, context: NodeContext) -> None:
        self._context = context
        self._workers: dict[str, PodWorker] = {}
        self._group: asyncio.TaskGroup | None = None
        self._services_changed = asyncio.Event()
        context.cluster.listen(self._hear)

    async def run(self) -> None:
        """Until cancelled; pods run on then. Start it before the cluster tells its first news."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self._follow_services())
            group.create_task(self._bound_logs())
            await asyncio.Event().wait()

    async def clear_leftovers(self) -> None:
        """Ends pods of this node that an earlier supervisor left and that exist no more."""
        for record in list(pods_of(self._context.layout.pods, self._context.node)):
            stored = self._context.cluster.get(ObjectKey("Pod", record.namespace, record.name))
            if stored is None or stored.metadata.uid != record.uid:
                await self._clear(record)

    def worker(self, uid: str) -> PodWorker | None:
        return self._workers.get(uid)

    # ---- what is heard -----------------------------------------------------------------------------

    def _hear(self, news: list[ObjectChange]) -> None:
        for change in news:
            if change.key.kind == "Service":
                self._services_changed.set()
            elif change.key.kind == "Pod":
                self._concern(change.key, change.before, change.after)

    def _concern(self, key: ObjectKey, before: Stored | None, after: Stored | None) -> None:
        if before is not None and (after is None or after.metadata.uid != before.metadata.uid):
            worker = self._workers.get(before.metadata.uid)
            if worker is not None:
                worker.stop(worker.pod.spec.termination_grace_period_seconds)
        if after is None:
            return
        pod = self._context.cluster.parsed(key, Pod)
        if pod is None or pod.spec.node_name != self._context.node or not pod.metadata.uid:
            return
        worker = self._workers.get(pod.metadata.uid)
        if worker is None:
            worker = PodWorker(pod, self._context)
            self._workers[pod.metadata.uid] = worker
            assert self._group is not None
            self._group.create_task(self._work(worker))
        worker.update(pod)
        if pod.terminating:
            grace = pod.metadata.deletion_grace_period_seconds
            default = pod.spec.termination_grace_period_seconds
            worker.stop(default if grace is None else grace)

    async def _work(self, worker: PodWorker) -> None:
        try:
            await worker.run()
        except Exception:  # one pod's trouble must not take the others along
            log.exception("%s is given up; delete it to try again", worker.pod.key)
            return
        self._workers.pop(worker.pod.metadata.uid, None)

    # ---- in the background -------------------------------------------------------------------------

    async def _follow_services(self) -> None:
        while True:
            await self._services_changed.wait()
            self._services_changed.clear()
            for worker in list(self._workers.values()):
                await worker.serve_echo()

    async def _bound_logs(self) -> None:
        while True:
            await asyncio.sleep(_LOG_ROUND)
            for worker in list(self._workers.values()):
                for container in worker.pod.spec.containers:
                    bound_log(worker.files.log(container.name))

    async def _clear(self, record: PodRecord) -> None:
        context = self._context
        group = context.groups.pod(context.node, record.uid)
        cgroups.kill(group)
        await asyncio.to_thread(cgroups.remove, group)
        if not record.host_network:
            await network.detach(context.agent, record.uid)
            netns.release(context.layout.pod_namespace(record.uid))
        PodFiles(context.layout.pods / record.uid).remove()
        log.info("pod %s/%s, which is no more, has been cleared away", record.namespace, record.name)
