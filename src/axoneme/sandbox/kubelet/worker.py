"""One pod on its node, from its network to its end.

A supervisor that is started again adopts what its predecessor left: the network namespace, the endpoint
in the agent and the processes live on, and only the watching of them begins anew.
"""

from __future__ import annotations

import asyncio
import logging
import math
import shutil
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from axoneme.model import documents
from axoneme.net import netns
from axoneme.rpc import NOT_FOUND, UNAVAILABLE, AsyncClient, RpcError
from axoneme.sandbox import cgroups, clock
from axoneme.sandbox.cluster import Cluster
from axoneme.sandbox.dns.workload import serves_names
from axoneme.sandbox.echo.answers import Identity
from axoneme.sandbox.kubelet import network, programs, resolving
from axoneme.sandbox.kubelet.echoports import echo_ports
from axoneme.sandbox.kubelet.keeper import ContainerKeeper, Means
from axoneme.sandbox.kubelet.podstatus import ContainerView, PodView, compose
from axoneme.sandbox.kubelet.probing import Place, carry_out
from axoneme.sandbox.kubelet.programs import Facts, hostname
from axoneme.sandbox.kubelet.records import PodFiles, PodRecord
from axoneme.sandbox.kubelet.resolving import NameServers
from axoneme.sandbox.launch import Enclosure
from axoneme.sandbox.layout import Layout
from axoneme.sandbox.objects import Container, Pod, Probe, Service
from axoneme.sandbox.player import Player
from axoneme.sandbox.report import ExecTarget
from axoneme.sandbox.statuses import StateTerminated

log = logging.getLogger(__name__)

_FIRST_RETRY: Final = 0.1
_LONGEST_RETRY: Final = 5.0
_NSSWITCH: Final = Path("/etc/nsswitch.conf")


@dataclass(frozen=True, slots=True)
class NodeContext:
    """What the pods of one node share. `agent_up` is set when the agent has answered for the first time."""

    node: str
    addresses: Sequence[str]
    layout: Layout
    groups: cgroups.Groups
    agent: AsyncClient
    agent_up: asyncio.Event
    echoes: Player
    names: Player
    name_servers: NameServers
    cluster: Cluster

    @property
    def namespace(self) -> Path:
        return self.layout.namespace(self.node)


class PodWorker:
    """`stop` ends it; what happens in between is in the pod's status."""

    def __init__(self, pod: Pod, context: NodeContext) -> None:
        self.pod = pod
        self._context = context
        self._uid = pod.metadata.uid
        self._files = PodFiles(context.layout.pods / self._uid)
        self._group = context.groups.pod(context.node, self._uid)
        start = pod.status.start_time or clock.now()
        self._view = PodView(context.addresses, start)
        self._keepers: list[ContainerKeeper] = []
        self._changed = asyncio.Event()
        self._stopping = asyncio.Event()
        #: When what runs is ended by force, in the loop's time; and the wait for what it does before.
        self._until = math.inf
        self._goodbye: asyncio.Timeout | None = None
        self._shared = pod.spec.host_network
        self._adopted = False
        self._player = context.names if serves_names(pod) else context.echoes

    # ---- for the kubelet ---------------------------------------------------------------------------

    def update(self, pod: Pod) -> None:
        """The pod's object has changed: its labels may, its spec may not; and whoever replaces its
        status will find it mended."""
        self.pod = pod
        self._changed.set()

    def stop(self, grace: float) -> None:
        """The pod shall go, within `grace` seconds; said again, it may be sooner."""
        self._until = min(self._until, asyncio.get_running_loop().time() + grace)
        if self._goodbye is not None and not self._goodbye.expired():
            self._goodbye.reschedule(self._until)
        self._stopping.set()

    async def run(self) -> None:
        """Until the pod is gone; cancelling it leaves everything as it is, for adoption."""
        async with asyncio.TaskGroup() as group:
            reporting = group.create_task(self._report())
            living = group.create_task(self._live())
            await self._stopping.wait()
            await self._prepare_end()
            living.cancel()
            await asyncio.wait({living})
            await self._end()
            reporting.cancel()

    async def serve_echo(self) -> None:
        """Tells the echo server which ports it plays for this pod; again when services have changed."""
        if not self._view.pod_ips:
            return
        played = [keeper.view.container for keeper in self._keepers if keeper.played]
        services = self._context.cluster.all("Service", Service)
        ports = echo_ports(self.pod, played, services) if played else frozenset()
        identity = Identity(
            pod=self.pod.metadata.name,
            namespace=self.pod.metadata.namespace,
            node=self._context.node,
            addresses=tuple(self._view.pod_ips),
        )
        refused = await self._player.play(self._uid, self._namespace, identity, ports)
        notes = [f"port {port.number}/{port.protocol} is not served: {why}" for port, why in refused.items()]
        if notes != self._view.notes:
            self._view.notes = notes
            self._changed.set()

    def container(self, name: str) -> Container:
        """The container by name, the first one for an empty name; RpcError when there is none."""
        for container in self.pod.spec.containers:
            if name in {"", container.name}:
                return container
        known = ", ".join(each.name for each in self.pod.spec.containers)
        raise RpcError(NOT_FOUND, f"{self.pod.key} has no container {name!r}; it has: {known}")

    def exec_target(self, name: str) -> ExecTarget:
        """Where a command for a container must run: beside its process, or, for one that the echo server
        plays, in the pod's network with namespaces of its own. RpcError when there is no such place yet."""
        container = self.container(name)
        if not self._view.pod_ips:
            raise RpcError(UNAVAILABLE, f"{self.pod.key} has no network yet: {self._view.trouble or 'wait'}")
        keeper = next((each for each in self._keepers if each.view.container == container), None)
        if keeper is None or not (keeper.process or keeper.played):
            raise RpcError(UNAVAILABLE, f"{self.pod.key}: container {container.name} does not run now")
        enclosure = self.enclosure(keeper.process)
        program = programs.program(self.pod, container, self._facts())
        return ExecTarget(
            netns=enclosure.netns,
            group=enclosure.group,
            hostname=enclosure.hostname,
            hidden=enclosure.hidden,
            files=enclosure.files,
            join=enclosure.join,
            environment=dict(program.environment),
            directory=program.directory if keeper.process else "/",
            addresses=tuple(self._view.pod_ips),
        )

    @property
    def files(self) -> PodFiles:
        return self._files

    def enclosure(self, process: int = 0) -> Enclosure:
        """What a process of this pod lives in; that of `process`, if it is one of a container."""
        return Enclosure(
            netns=str(self._namespace),
            group=str(self._group),
            hostname=hostname(self.pod) if not self._shared else self._context.node,
            hidden=str(self._context.layout.directory),
            files=(
                (str(self._files.hosts), "/etc/hosts"),
                (str(self._files.resolv_conf), "/etc/resolv.conf"),
                (str(self._files.nsswitch), "/etc/nsswitch.conf"),
            ),
            join=process,
        )

    # ---- its life ----------------------------------------------------------------------------------

    @property
    def _namespace(self) -> Path:
        layout = self._context.layout
        return layout.namespace(self._context.node) if self._shared else layout.pod_namespace(self._uid)

    async def _live(self) -> None:
        if self.pod.finished:
            return  # an earlier supervisor has brought it to its end
        try:
            await self._go_through_life()
        except Exception as failure:  # one pod's trouble must not take the others along
            log.exception("%s cannot go on; delete it to try again", self.pod.key)
            self._tell_trouble(f"{type(failure).__name__}: {failure}")

    async def _go_through_life(self) -> None:
        self._show_containers()
        await self._until_done("network", self._connect)
        self._write_files()
        await self._initialize()
        await self._run_containers()
        await self._disconnect()  # a pod that has finished keeps its logs, not its address

    async def _until_done(self, what: str, work: Callable[[], Awaitable[None]]) -> None:
        pause = _FIRST_RETRY
        while True:
            try:
                await work()
            except (RpcError, OSError) as failure:
                self._tell_trouble(f"{what}: {failure}")
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_RETRY)
            else:
                self._tell_trouble("")
                self._changed.set()
                return

    def _tell_trouble(self, trouble: str) -> None:
        if trouble != self._view.trouble:
            self._view.trouble = trouble
            self._changed.set()
            if trouble:
                log.warning("%s: %s", self.pod.key, trouble)

    async def _connect(self) -> None:
        """The pod's namespace and its place on the network, or those that are there already."""
        self._files.make()
        cgroups.make(self._group)
        record = self._files.load_pod()
        if self._shared:
            self._save(None)
            self._view.pod_ips = tuple(self._context.addresses)
            return
        if not netns.held(self._namespace):
            netns.release(self._namespace)
            netns.make(self._namespace, netns.ENDPOINT_SYSCTLS)
            record = None
        if record is None or record.network is None:
            self._save(None)
            await self._context.agent_up.wait()
            attached = await network.attach(self._context.agent, self.pod, self._namespace)
            self._save(attached)
        else:
            attached, self._adopted = record.network, True
        self._view.pod_ips = attached.texts()

    async def _initialize(self) -> None:
        """Init containers one after the other. Where the echo server plays all of the pod, there is
        nothing to prepare, and they count as done: they would wait for what only the application does."""
        done = self._adopted and any(
            each.type == "Initialized" and each.status == "True" for each in self.pod.status.conditions
        )
        program = not done and any(self._is_program(each) for each in self.pod.spec.containers)
        for view in self._view.init_containers:
            if program and self._is_program(view.container) and view.container.restart_policy != "Always":
                policy = "Never" if self.pod.spec.restart_policy == "Never" else "OnFailure"
                keeper = ContainerKeeper(view, policy, self._means(view.container))
                self._keepers.append(keeper)
                await keeper.keep()
                self._keepers.remove(keeper)
                if not view.succeeded:
                    self._changed.set()
                    await self._stopping.wait()  # with Never there is no second try
            else:
                view.settled = view.ready = True
                now = clock.now()
                view.terminated = StateTerminated(
                    exit_code=0, reason="Completed", started_at=now, finished_at=now
                )
        self._view.initialized = True
        self._changed.set()

    async def _run_containers(self) -> None:
        policy = self.pod.spec.restart_policy
        self._keepers = [
            ContainerKeeper(view, policy, self._means(view.container)) for view in self._view.containers
        ]
        async with asyncio.TaskGroup() as group:
            for keeper in self._keepers:
                group.create_task(keeper.keep())

    async def _prepare_end(self) -> None:
        """Lets all containers do what they shall do before they end, meanwhile probed and ready as ever."""
        try:
            async with asyncio.timeout_at(self._until) as self._goodbye:
                await asyncio.gather(*(keeper.prepare_end() for keeper in self._keepers))
        except TimeoutError:
            log.info("%s: its preStop is not done within its time", self.pod.key)
        finally:
            self._goodbye = None

    async def _end(self) -> None:
        """Processes first, which may still say goodbye over the network; then all that was made."""
        grace = max(self._until - asyncio.get_running_loop().time(), 0.0)
        async with asyncio.TaskGroup() as group:
            for keeper in self._keepers:
                group.create_task(keeper.end(grace))
        await self._until_done("network", self._disconnect)
        cgroups.kill(self._group)
        await asyncio.to_thread(cgroups.remove, self._group)
        self._files.remove()
        await self._context.cluster.remove(self.pod.key, self._uid)

    async def _disconnect(self) -> None:
        await self._player.stop(self._uid)
        if not self._shared and netns.held(self._namespace):
            await network.detach(self._context.agent, self._uid)
            netns.release(self._namespace)

    # ---- parts -------------------------------------------------------------------------------------

    def _show_containers(self) -> None:
        self._view.containers = [ContainerView(each) for each in self.pod.spec.containers]
        self._view.init_containers = [ContainerView(each) for each in self.pod.spec.init_containers]
        for view in self._view.init_containers:
            view.waiting = "PodInitializing"

    def _is_program(self, container: Container) -> bool:
        return programs.is_program(
            container, lambda name: shutil.which(name, path=programs.DEFAULT_PATH) is not None
        )

    def _facts(self) -> Facts:
        addresses = self._context.addresses
        return Facts(self._context.node, addresses[0] if addresses else "", self._view.pod_ips)

    def _means(self, container: Container) -> Means:
        program = None
        if self._is_program(container):
            program = programs.program(self.pod, container, self._facts())

        async def probe(wish: Probe, enclosure: Enclosure | None) -> None:
            address = self._view.pod_ips[0]
            await carry_out(wish, container, Place(self._context.namespace, address, enclosure))

        return Means(
            pod=str(self.pod.key),
            files=self._files,
            enclosure=self.enclosure()._replace(directory=program.directory if program else "/"),
            program=program,
            play=self.serve_echo,
            probe=probe,
            changed=self._changed.set,
        )

    def _save(self, attached: network.Attached | None) -> None:
        metadata = self.pod.metadata
        self._files.save_pod(
            PodRecord(
                namespace=metadata.namespace,
                name=metadata.name,
                uid=self._uid,
                node=self._context.node,
                host_network=self._shared,
                network=attached,
            )
        )

    def _write_files(self) -> None:
        self._files.hosts.write_text(network.hosts_file(self.pod, tuple(self._view.pod_ips)))
        self._files.resolv_conf.write_text(resolving.resolv_conf(self.pod, self._context.name_servers))
        if _NSSWITCH.exists():
            self._files.nsswitch.write_text(resolving.nsswitch_conf(_NSSWITCH.read_text()))

    async def _report(self) -> None:
        """Writes the status whenever it has changed."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            if not self._view.containers:
                continue  # nothing to tell yet, or an earlier supervisor has told the end
            status = msgspec.json.encode(compose(self.pod, self._view, clock.now()))

            def change(document: bytes, status: bytes = status) -> bytes:
                if documents.field(document, ("status",)) == status:
                    return document
                return documents.with_field(document, ("status",), msgspec.Raw(status))

            await self._context.cluster.update(self.pod.key, change, self._uid)
