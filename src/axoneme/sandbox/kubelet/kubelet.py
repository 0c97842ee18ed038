"""The kubelet of one node: a worker for each of its pods."""

from __future__ import annotations

import asyncio
import logging

from axoneme.net import netns
from axoneme.sandbox import cgroups, logs
from axoneme.sandbox.cluster import ObjectChange, Stored
from axoneme.sandbox.kubelet import network
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
        self._news: list[ObjectChange] = []
        self._heard = asyncio.Event()
        self._services_changed = asyncio.Event()
        context.cluster.listen(self._hear)

    def worker(self, uid: str) -> PodWorker | None:
        return self._workers.get(uid)

    async def run(self) -> None:
        """Until cancelled; what pods run runs on then."""
        await self._heard.wait()  # the first news are all that there is
        async with asyncio.TaskGroup() as group:
            group.create_task(self._clear_leftovers())
            group.create_task(self._follow_services())
            group.create_task(self._bound_logs())
            while True:
                await self._heard.wait()
                self._heard.clear()
                news, self._news = self._news, []
                for change in news:
                    self._concern(change.key, change.before, change.after, group)

    def _hear(self, news: list[ObjectChange]) -> None:
        self._news += [change for change in news if change.key.kind == "Pod"]
        if any(change.key.kind == "Service" for change in news):
            self._services_changed.set()
        self._heard.set()

    def _concern(
        self, key: ObjectKey, before: Stored | None, after: Stored | None, group: asyncio.TaskGroup
    ) -> None:
        if before is not None and (after is None or after.metadata.uid != before.metadata.uid):
            gone = self._workers.get(before.metadata.uid)
            if gone is not None:
                gone.stop(gone.pod.spec.termination_grace_period_seconds)
        if after is None:
            return
        pod = self._context.cluster.parsed(key, Pod)
        if pod is None or pod.spec.node_name != self._context.node or not pod.metadata.uid:
            return
        worker = self._workers.get(pod.metadata.uid)
        if worker is None:
            worker = PodWorker(pod, self._context)
            self._workers[pod.metadata.uid] = worker
            group.create_task(self._work(worker))
        if pod.metadata.labels != worker.pod.metadata.labels:
            self._services_changed.set()  # other services may select it now
        worker.update(pod)
        if pod.terminating:
            grace = pod.metadata.deletion_grace_period_seconds
            worker.stop(pod.spec.termination_grace_period_seconds if grace is None else grace)

    async def _work(self, worker: PodWorker) -> None:
        try:
            await worker.run()
        except Exception:  # one pod's trouble must not take the others along
            log.exception("%s could not be ended cleanly", worker.pod.key)
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
                    logs.bound(worker.files.log(container.name))

    async def _clear_leftovers(self) -> None:
        """Ends pods of this node that an earlier supervisor left and that exist no more."""
        for record in list(pods_of(self._context.layout.pods, self._context.node)):
            stored = self._context.cluster.get(ObjectKey("Pod", record.namespace, record.name))
            if stored is None or stored.metadata.uid != record.uid:
                await self._clear(record)

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
