"""A virtual node: its directory, its bpffs, its agent and flow server, and the object that stands for it."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Callable

import msgspec

from axoneme.datapath import bpffs
from axoneme.proxy import plan as proxies
from axoneme.rpc import AsyncClient, RpcError
from axoneme.sandbox import admission, cgroups, clock
from axoneme.sandbox.daemons import Daemon, DaemonSpec
from axoneme.sandbox.layout import Layout
from axoneme.sandbox.objects import ObjectKey
from axoneme.sandbox.plan import CLUSTER_NAME, IPV4_PODS, IPV6_PODS, NodePlan, Plan
from axoneme.sandbox.report import NodeReport
from axoneme.sandbox.statuses import Condition, NodeAddress, NodeInfo, NodeStatus
from axoneme.sandbox.underlay import UPLINK
from axoneme.sandbox.workloads.changes import NewObject
from axoneme.sources.inotify import Folders

#: Seconds between two tries to reach a process that is starting.
_TRY = 0.01
#: Where metrics are, from within a node.
_METRICS = {"listen": "127.0.0.1:9962", "flows_listen": "127.0.0.1:9965"}


class VirtualNode:
    """One node of a sandbox; `run` keeps its processes."""

    def __init__(self, plan: Plan, node: NodePlan, layout: Layout, groups: cgroups.Groups) -> None:
        self.node = node
        self._plan = plan
        self._files = layout.node(node.name)
        self._store = layout.store
        self.agent = AsyncClient(self._files.agent_socket)
        self._flows = AsyncClient(self._files.flows_socket)
        group = groups.agent(node.name)
        self._group = groups.node(node.name)
        namespace = layout.namespace(node.name)

        def daemon(
            name: str,
            command: tuple[str, ...],
            started: Callable[[], None] | None = None,
            wanted: asyncio.Event | None = None,
        ) -> Daemon:
            return Daemon(
                DaemonSpec(
                    name=f"the {name} of {node.name}",
                    argv=(*command, str(self._files.config)),
                    group=group,
                    record=self._files.directory / f"{name}.pid",
                    log=layout.logs / f"{node.name}-{name}.log",
                    netns=namespace,
                    wanted=wanted,
                ),
                started,
            )

        self._agent_daemon = daemon("agent", plan.agent_command)
        self._flows_daemon = daemon("flows", plan.flows_command)
        self._history_daemon = daemon("history", plan.history_command) if plan.history else None
        self._wanted = {kind: asyncio.Event() for kind in proxies.KINDS}
        self._proxies = [
            daemon(f"{kind}-proxy", (*plan.proxy_command, kind), wanted=wanted)
            for kind, wanted in self._wanted.items()
        ]
        #: Set when the agent has answered for the first time.
        self.agent_up = asyncio.Event()

    def prepare(self) -> None:
        """Makes the directory, the bpffs and the configuration; what is there already stays."""
        self._files.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        bpffs.mount(self._files.bpffs)
        cgroups.make(self._group)
        self._files.config.write_text(self._configuration())

    async def run(self) -> None:
        """Keeps the agent and, once it answers, the flow server, which leaves it the processor until then,
        and the proxies that have a plan."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._agent_daemon.run())
            while not await _reachable(self.agent):
                await asyncio.sleep(_TRY)
            self.agent_up.set()
            group.create_task(self._flows_daemon.run())
            if self._history_daemon:
                group.create_task(self._history_daemon.run())
            group.create_task(self._follow_plans())
            for proxy in self._proxies:
                group.create_task(proxy.run())

    async def _follow_plans(self) -> None:
        """Proxies are wanted while they have a plan."""
        places = {kind: proxies.directory(self._files.state, kind) for kind in proxies.KINDS}
        for place in places.values():
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        folders = Folders(tuple(places.values()))
        try:
            while True:
                for kind, place in places.items():
                    if (place / proxies.PLAN).exists():
                        self._wanted[kind].set()
                    else:
                        self._wanted[kind].clear()
                await folders.changed()
        finally:
            folders.close()

    async def answering(self) -> tuple[bool, bool]:
        """Whether the agent answers, and the flow server."""
        agent, flows = await asyncio.gather(_reachable(self.agent), _reachable(self._flows))
        return agent, flows

    def report(self, agent: bool, flows: bool, pods: int) -> NodeReport:
        return NodeReport(
            name=self.node.name,
            addresses=self.node.addresses(),
            agent=agent,
            flows=flows,
            restarts=sum(each.restarts for each in (self._agent_daemon, self._flows_daemon, *self._proxies)),
            proxies=tuple(
                kind
                for kind, each in zip(proxies.KINDS, self._proxies, strict=True)
                if each.process is not None
            ),
            pods=pods,
        )

    def object(self) -> NewObject:
        """The Node as users and selectors see it."""
        system = platform.uname()
        architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(system.machine, system.machine)
        status = NodeStatus(
            addresses=(
                *(NodeAddress(type="InternalIP", address=each) for each in self.node.addresses()),
                NodeAddress(type="Hostname", address=self.node.name),
            ),
            conditions=(
                Condition(
                    type="Ready",
                    status="True",
                    reason="SandboxNode",
                    last_transition_time=clock.now(),
                ),
            ),
            node_info=NodeInfo(
                kernel_version=system.release,
                architecture=architecture,
                os_image="axoneme sandbox",
                container_runtime_version="axoneme://sandbox",
            ),
        )
        labels = {
            "kubernetes.io/hostname": self.node.name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": architecture,
        }
        key = ObjectKey("Node", "", self.node.name)
        document = msgspec.json.encode(
            {"apiVersion": "v1", "kind": "Node", "metadata": {"labels": labels}, "spec": {}, "status": status}
        )
        return NewObject(key, admission.complete(key, document, clock.surroundings()))

    def _configuration(self) -> str:
        """The agent's file, with the names of `axoneme.agent.config`."""
        import yaml

        families, kept = self._plan.family.names(), self._plan.history
        pools = [
            {"cidr": cidr, "node_prefix_length": length}
            for name, (cidr, length) in (("ipv4", IPV4_PODS), ("ipv6", IPV6_PODS))
            if name in families
        ]
        return yaml.safe_dump(
            {
                "node": self.node.name,
                "directory": str(self._files.directory),
                "store": {"kind": "sqlite", "path": str(self._store)},
                "cluster_name": CLUSTER_NAME,
                "routing": self._plan.routing.value,
                "families": list(families),
                "uplinks": [UPLINK],
                "underlay_addresses": list(self.node.addresses()),
                "cluster_pool": pools,
                "enforcement": "default",
                "masquerade": True,
                "cni_socket": str(self._files.cni_socket),
                "cgroup": str(self._group),
                **({"history": {"directory": f"{kept}/{self.node.name}"}} if kept else {}),
                **({"metrics": _METRICS} if self._plan.metrics else {}),
            },
            sort_keys=False,
        )


async def _reachable(client: AsyncClient) -> bool:
    """Whether it answers, and does not say that it is still starting."""
    try:
        async with asyncio.timeout(2.0):
            answer = await client.call("status")
    except (RpcError, TimeoutError):
        return False
    return bool(answer.get("phase") != "starting")
