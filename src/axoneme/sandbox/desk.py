"""The supervisor's socket: how the sandbox is, and what the commands need to get into a pod."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence

from axoneme.rpc import NOT_FOUND, NoParams, RpcError, Server
from axoneme.sandbox import logs
from axoneme.sandbox.cluster import Cluster
from axoneme.sandbox.kubelet.kubelet import Kubelet
from axoneme.sandbox.kubelet.worker import PodWorker
from axoneme.sandbox.layout import Layout
from axoneme.sandbox.nodes import VirtualNode
from axoneme.sandbox.objects import ObjectKey, Pod
from axoneme.sandbox.plan import Plan
from axoneme.sandbox.readiness import waiting
from axoneme.sandbox.report import ExecTarget, LogsWish, PodName, SandboxReport


class Desk:
    """Answers for one sandbox."""

    def __init__(
        self,
        plan: Plan,
        layout: Layout,
        cluster: Cluster,
        nodes: Sequence[VirtualNode],
        kubelets: Sequence[Kubelet],
    ) -> None:
        self._plan = plan
        self._layout = layout
        self._cluster = cluster
        self._nodes = nodes
        self._kubelets = kubelets

    async def serve(self, ready: Callable[[], None]) -> None:
        """Until cancelled."""
        server = Server(self._layout.supervisor_socket)
        server.method("status", NoParams, self.status)
        server.method("pod.exec", PodName, self.exec_target)
        server.stream("pod.logs", LogsWish, self.read_log)
        await server.serve(ready)

    async def status(self, _: NoParams) -> SandboxReport:
        """How far everything is."""
        answering = await asyncio.gather(*(node.answering() for node in self._nodes))
        # From here on nothing is awaited, so that all of it is about the same moment.
        pods = self._cluster.all("Pod", Pod)
        reports = [
            node.report(*answers, sum(pod.spec.node_name == node.node.name for pod in pods))
            for node, answers in zip(self._nodes, answering, strict=True)
        ]
        missing = [
            f"Node {each.name}: its {what} does not answer"
            for each in reports
            for what, answers in (("agent", each.agent), ("flow server", each.flows))
            if not answers
        ]
        return SandboxReport(
            name=self._plan.name,
            routing=self._plan.routing,
            family=self._plan.family,
            supervisor=os.getpid(),
            nodes=tuple(reports),
            pods=len(pods),
            ready_pods=sum(pod.ready for pod in pods),
            waiting=(*missing, *waiting(self._cluster)),
            revision=self._cluster.revision,
            world=self._plan.world_addresses(),
        )

    async def exec_target(self, wish: PodName) -> ExecTarget:
        """Where a command for a container must run; RpcError when the pod is not there or not that far."""
        worker = self._worker(wish.namespace, wish.pod)
        return worker.exec_target(wish.container)

    async def read_log(self, wish: LogsWish) -> AsyncIterator[str]:
        """A container's log as text, in pieces."""
        worker = self._worker(wish.namespace, wish.pod)
        container = worker.container(wish.container).name
        async for piece in logs.read(worker.files.log(container), wish.tail, wish.follow):
            yield piece

    def _worker(self, namespace: str, name: str) -> PodWorker:
        pod = self._cluster.parsed(ObjectKey("Pod", namespace, name), Pod)
        if pod is None:
            raise RpcError(NOT_FOUND, f"there is no pod {name} in namespace {namespace}")
        for kubelet in self._kubelets:
            if worker := kubelet.worker(pod.metadata.uid):
                return worker
        raise RpcError(NOT_FOUND, f"pod {namespace}/{name} is on no node yet")
