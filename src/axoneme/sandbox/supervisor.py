"""The process that keeps one sandbox running, as `systemd` and a control plane would keep a cluster.

It makes the underlay, starts the nodes' agents and flow servers, the echo server and the name server, runs
the controllers of workloads and services and every node's kubelet, and tells the router which node has which
pods. `lifecycle.up` starts it, detached.

It may be killed at any time: pods, agents and the echo server run on without it, and the next one adopts
them.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import sys

import msgspec

from axoneme.model.state import NODES, NodeState, decode
from axoneme.net import kernel
from axoneme.operator.addresses import AddressController
from axoneme.sandbox import admission, authority, cgroups, clock, logs, planfile, underlay
from axoneme.sandbox.cluster import Cluster
from axoneme.sandbox.daemons import Daemon, DaemonSpec
from axoneme.sandbox.desk import Desk
from axoneme.sandbox.dns import workload
from axoneme.sandbox.echo.answers import Identity
from axoneme.sandbox.kubelet.kubelet import Kubelet
from axoneme.sandbox.kubelet.resolving import NameServers
from axoneme.sandbox.kubelet.worker import NodeContext
from axoneme.sandbox.layout import OUTSIDE, Layout
from axoneme.sandbox.nodes import VirtualNode
from axoneme.sandbox.objects import ObjectKey
from axoneme.sandbox.plan import DNS_PORT, WORLD_PORTS, Plan
from axoneme.sandbox.player import Player
from axoneme.sandbox.reaper import bury_orphans
from axoneme.sandbox.services.controller import ServiceController
from axoneme.sandbox.wildcard import Port
from axoneme.sandbox.workloads.changes import NewObject
from axoneme.sandbox.workloads.controller import WorkloadController
from axoneme.sources.follow import Sync, follow
from axoneme.sources.sqlite import SqliteStore
from axoneme.sources.store import Store

#: The namespace of objects that name none.
DEFAULT_NAMESPACE = "default"
#: What the players call the world.
WORLD = "world"
#: Seconds between two looks at the sizes of logs.
_LOG_ROUND = 10.0


def run(name: str) -> None:
    """Supervises the sandbox until the process is ended."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    layout = Layout(name)
    asyncio.run(supervise(planfile.load(layout), layout))


async def supervise(plan: Plan, layout: Layout) -> None:
    """Until cancelled."""
    kernel.become_subreaper()
    groups = cgroups.Groups(plan.name)
    echoes = Player("the echo server", layout.echo_socket)
    names = Player("the name server", layout.dns_socket)
    if not underlay.complete(plan, layout):
        underlay.build(plan, layout)
    nodes = [VirtualNode(plan, node, layout, groups) for node in plan.all_nodes()]
    for node in nodes:
        node.prepare()
    store = SqliteStore(layout.store)
    try:
        cluster = Cluster(store)
        controller = WorkloadController(cluster, clock.surroundings)
        services = ServiceController(store, cluster, plan.service_ranges(), clock.surroundings)
        kubelets = [
            Kubelet(
                NodeContext(
                    node=node.node.name,
                    addresses=node.node.addresses(),
                    layout=layout,
                    groups=groups,
                    agent=node.agent,
                    agent_up=node.agent_up,
                    echoes=echoes,
                    names=names,
                    name_servers=NameServers(plan.dns_addresses(), plan.name_servers()),
                    cluster=cluster,
                )
            )
            for node in nodes
        ]
        desk = Desk(plan, layout, cluster, nodes, kubelets)
        async with asyncio.TaskGroup() as group:
            group.create_task(bury_orphans())
            for node in nodes:
                group.create_task(node.run())
            for module, player, argument in (
                ("echo", echoes, str(layout.echo_socket)),
                ("dns", names, plan.name),
            ):
                group.create_task(_player(layout, groups, module, player, argument).run())
                group.create_task(player.run())
            await _make_standing_objects(plan, cluster, nodes)
            group.create_task(controller.run())
            group.create_task(services.run())
            for kubelet in kubelets:
                group.create_task(kubelet.run())
            group.create_task(cluster.run())
            group.create_task(_play_world(plan, layout, echoes, names))
            group.create_task(_route_pods(store, layout))
            group.create_task(_bound_logs(layout))
            group.create_task(authority.certify(layout, groups))
            group.create_task(AddressController(store, clock.now, plan.family.versions()).run())
            group.create_task(desk.serve(ready=gc.freeze))
    finally:
        await store.close()


def _player(layout: Layout, groups: cgroups.Groups, module: str, player: Player, argument: str) -> Daemon:
    """The process that plays; `module` is the package that it runs."""
    return Daemon(
        DaemonSpec(
            name=player.name,
            argv=(sys.executable, "-P", "-m", f"axoneme.sandbox.{module}", argument),
            group=groups.supervisor,
            record=layout.directory / f"{module}.pid",
            log=layout.logs / f"{module}.log",
        ),
        player.server_started,
    )


async def _make_standing_objects(plan: Plan, cluster: Cluster, nodes: list[VirtualNode]) -> None:
    """What every cluster has from the start; what is there already stays."""
    for name in (DEFAULT_NAMESPACE, workload.NAMESPACE):
        await cluster.create(admission.namespace(name, clock.surroundings()))
    for node in nodes:
        await cluster.create(node.object())
    for document in workload.objects(plan) if plan.dns else ():
        key = ObjectKey(document["kind"], workload.NAMESPACE, document["metadata"]["name"])
        made = admission.complete(key, msgspec.json.encode(document), clock.surroundings())
        await cluster.create(NewObject(key, made))


async def _play_world(plan: Plan, layout: Layout, echoes: Player, names: Player) -> None:
    """On the addresses of the outside, an echo server and a name server."""
    ports = [Port(protocol, number) for protocol in ("TCP", "UDP") for number in WORLD_PORTS]
    identity = Identity(pod="world", namespace="", node=OUTSIDE, addresses=plan.world_addresses())
    await echoes.play(WORLD, layout.namespace(OUTSIDE), identity, ports)
    ports = [Port(protocol, DNS_PORT) for protocol in ("TCP", "UDP")]
    await names.play(WORLD, layout.namespace(OUTSIDE), identity, ports)


async def _route_pods(store: Store, layout: Layout) -> None:
    """Keeps the router's routes to the nodes' pod ranges, which the nodes publish."""
    known: set[tuple[str, str]] = set()
    async for news in follow(store, NODES):
        if isinstance(news, Sync):
            continue
        wanted: set[tuple[str, str]] = set()
        for change in news:
            if change.value is not None:
                wanted |= _routes(decode(change.value, NodeState, change.key))
        if new := wanted - known:
            await asyncio.to_thread(underlay.route_pods, layout, sorted(new))
            known |= new


async def _bound_logs(layout: Layout) -> None:
    while True:
        await asyncio.sleep(_LOG_ROUND)
        for log in layout.logs.glob("*.log"):
            logs.bound(log)


def _routes(state: NodeState) -> set[tuple[str, str]]:
    """Pairs of a pod range and the node's address of the same family."""
    return {
        (pods, address)
        for pods in state.pod_cidrs
        for address in state.internal_addresses
        if (":" in pods) == (":" in address)
    }
