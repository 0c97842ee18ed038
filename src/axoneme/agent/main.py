"""The agent's process: puts the parts together, hears the shared state, brings the kernel up to date.

    shared state ─> Listener ─> Control ─> kernel tables
    agent.sock ──> Pods ───────────┘

Whatever ends the process, the datapath goes on; the next agent takes up what is there.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import TypeVar

from axoneme.agent import highmark
from axoneme.agent.announcer import Announcer
from axoneme.agent.api import Api, Readiness
from axoneme.agent.authentication import Authentication
from axoneme.agent.balancer import Balancer
from axoneme.agent.callers import CallCloser
from axoneme.agent.cniserver import CniServer, write_network
from axoneme.agent.config import AgentConfig, load
from axoneme.agent.control import Control
from axoneme.agent.endpoints import EndpointTable
from axoneme.agent.gauges import Gauges
from axoneme.agent.health import Health
from axoneme.agent.healthendpoint import HealthEndpoint
from axoneme.agent.highmark import HighMark
from axoneme.agent.hostpolicies import FILE_NAME as HOST_POLICIES
from axoneme.agent.hostpolicies import HostPolicies
from axoneme.agent.lastgood import LastGood
from axoneme.agent.listener import PREFIXES, SERVICES, Listener
from axoneme.agent.lock import only_agent
from axoneme.agent.machine import Machine
from axoneme.agent.metering import Metering
from axoneme.agent.names import Names, connections, lend
from axoneme.agent.pods import PODS, Link, Pods
from axoneme.agent.proxies import Proxies
from axoneme.agent.questions import Questions
from axoneme.agent.services import Services
from axoneme.certificates.keeper import Keeper
from axoneme.datapath import features
from axoneme.datapath.bpf import BpfError
from axoneme.datapath.libbpf import LoadError
from axoneme.datapath.plane import Datapath
from axoneme.flows.agentevents import FILE_NAME as EVENTS
from axoneme.flows.agentevents import EventWriter
from axoneme.flows.kernel import LAYOUT, fingerprint
from axoneme.flows.rules import FILE_NAME, RuleWriter
from axoneme.identity.labels import LabelFilter
from axoneme.identity.names import NameCache, NameLimits
from axoneme.ipam.pools import AddressPools
from axoneme.model import l7event
from axoneme.model.hostpolicystate import HostPolicyState
from axoneme.model.policy import Enforcement
from axoneme.model.state import EndpointState, encode, node_key
from axoneme.net.commands import NetworkError
from axoneme.net.pods import accept_own
from axoneme.policy.engine import Options, PolicyEngine
from axoneme.proxy.names import SOCKET
from axoneme.proxy.plan import directory
from axoneme.rpc import Server
from axoneme.rpc.daemon import until_told
from axoneme.sources.config import open_store
from axoneme.sources.follow import Sync, follow
from axoneme.sources.identities import Collector, Identities
from axoneme.sources.podranges import claim
from axoneme.sources.store import Change, Compacted, Store, Unavailable

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds between two looks at links and routes.
LOOK_EVERY = 5.0
#: Seconds: how long an identity's number stays without holder, and how often agents look.
GRACE = 900.0
COLLECT_EVERY = 300.0
#: Seconds between two tries to mend tables that the kernel refused to write.
MEND_EVERY = 2.0
#: Seconds from one look at everything in the kernel to the next, if it takes less; share of a core for it.
AUDIT_EVERY, AUDIT_SHARE = 5.0, 0.01
#: Services or slices that are read before others get their turn: some ten milliseconds' work. They are many,
#: and of two that came at once none needs the other.
_PART = 200
_TRIAL_EVERY = 0.5
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 5.0


class Agent:
    """One node's agent. ``run`` may be called once."""

    def __init__(self, config: AgentConfig, store: Store) -> None:
        self._config = config
        self._metering = Metering(config)
        self._store = self._metering.timed(store)
        self._readiness = Readiness()
        self._machine = Machine(config)
        # Before programs are loaded: what is missing explains why one is refused.
        self._lacks = [feature.sentence for feature in features.missing()]
        for sentence in self._lacks:
            log.warning("%s", sentence)
        self._plane = Datapath.load(config.bpffs_path, self._machine.constants(), self._machine.sizes())
        self._machine.attach(self._plane)
        self._endpoints = EndpointTable(config.state_path / "endpoints", self._plane)
        _, self._vanished = self._endpoints.restore()
        for record in self._endpoints.records.values():
            self._plane.attach_endpoint(record.ifindex)
            accept_own(record.state.host_interface)
        self._plane.take_over()
        (config.state_path / LAYOUT).write_text(fingerprint(self._plane.schema))
        self._versions = versions = tuple(4 if family == "ipv4" else 6 for family in config.families)
        self._journal = RuleWriter(config.state_path / FILE_NAME)
        self._events = EventWriter(config.state_path / EVENTS, time.time_ns)
        self._last_good = LastGood(config.state_path / "last-good")
        limits = NameLimits(config.names.min_ttl, config.names.addresses_per_name)
        self._name_cache = NameCache(limits)
        self._proxies = Proxies(
            config.node,
            config.state_path,
            versions,
            Path(config.directory) / l7event.SOCKET,
            config.proxies,
            config.redaction,
        )
        self._control = Control(
            config.node,
            PolicyEngine(
                Options(ipv4=4 in versions, ipv6=6 in versions, cluster=config.cluster_name),
                Enforcement(config.enforcement),
            ),
            self._plane,
            self._journal,
            self._machine.overlay_version,
            config.tables.limits(),
            self._last_good,
            self._name_cache,
            self._proxies,
            lambda key, rules: self._events.policy(key.kind, key.namespace, key.name, rules),
        )
        self._names_folder = directory(config.state_path, "dns")
        self._names = Names(
            self._control,
            self._endpoints,
            self._name_cache,
            self._names_folder,
            versions,
            connections(lambda: self._plane),
        )
        self._closer = CallCloser(lambda: self._plane.calls, self._namespaces, config.close_tcp)
        self._services = Services(
            self._machine.facts(),
            config.load_balancing,
            Balancer(
                self._plane,
                self._journal,
                HighMark(config.state_path / highmark.FILE_NAME),
                config.tables.limits(),
                self._closer.departed,
            ),
            str(self._machine.group or ""),
        )
        self._hosts = HostPolicies(
            self._control,
            self._plane,
            config.state_path / HOST_POLICIES,
            config.failsafe(),
            config.host_policy.timeout,
            config.cluster_name,
        )
        self._questions = Questions(self._control, self._endpoints, versions, self._names)
        self._link = Link(self._machine.mtu, self._machine.route_mtu)
        self._health_endpoint = HealthEndpoint(
            config.node, config.health_namespace, self._control, self._endpoints, self._link
        )

    async def run(self) -> None:
        """Until cancelled."""
        config = self._config
        identities = Identities(self._store, config.node)
        pods = Pods(
            config.node,
            config.cluster_name,
            self._store,
            self._control,
            self._endpoints,
            identities,
            LabelFilter.parse(config.labels),
            self._link,
            self._services,
            self._tell_pod,
        )
        health = Health(config, self._machine, self._health_endpoint) if config.health.enabled else None
        listener = Listener(
            config.node,
            config.cluster_name,
            self._control,
            self._machine,
            pods,
            self._services,
            self._last_good,
            self._hosts,
            health.monitor if health else None,
        )
        announcer = Announcer(
            config.node,
            self._store,
            self._plane,
            config.announcements,
            config.uplinks,
            self._versions,
            listener.problems,
        )
        keeper = Keeper(
            config.node,
            config.state_path,
            self._store,
            listener.problems,
            lambda: authentication.certificates_changed(),  # noqa: PLW0108 (the one needs the other)
        )
        authentication = Authentication(
            config.node,
            self._control,
            lambda: self._plane,
            keeper,
            self._endpoints.identities,
            config.authentication.port,
            listener.problems,
        )
        server = Server(config.agent_socket_path)
        Api(
            config.node,
            self._readiness,
            self._control,
            self._endpoints,
            pods,
            listener,
            self._questions,
            health,
            self._lacks,
            self._plane,
            self._services,
            self._names,
            self._proxies,
            self._hosts,
            self._confirm_host_policies,
        ).register(server)
        self._metering.watch(self._control, pods)
        gauges = Gauges(
            config.metrics.prefix,
            config.cluster_name,
            config.node,
            self._plane,
            self._control,
            self._endpoints,
            pods,
            listener,
            self._services,
            self._names,
            self._proxies,
            self._hosts,
            health,
        )
        self._names_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Whoever can enter the folder, which is the DNS proxy's, may tell of names.
        learning = Server(self._names_folder / SOCKET, mode=0o666, draft_folder=self._names_folder.parent)
        self._names.register(learning)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.serve())
            tasks.create_task(_serve_names(learning))
            tasks.create_task(self._proxies.run(self._store))
            if config.cni_socket:
                cni = CniServer(Path(config.cni_socket), self._readiness, pods, self._endpoints)
                tasks.create_task(cni.serve())
            await self._join(pods, health)
            self._readiness.reached("the objects and nodes of the shared state")
            heard = [asyncio.Event() for _ in PREFIXES]
            for prefix, event in zip(PREFIXES, heard, strict=True):
                tasks.create_task(self._follow(prefix, listener, announcer, event))
            for event in heard:
                await event.wait()
            self._names.restore()
            self._hosts.prepare()
            written = self._control.start()
            self._proxies.names_are(self._names.plan())
            if self._hosts.enforce():
                self._control.settle()
            await _patiently(pods.introduce)
            try:
                written += self._services.settle()
            except BpfError as error:
                log.error("%s; the tables will be compared and mended", error)
            self._endpoints.adopt()
            self._endpoints.sweep()
            self._machine.drop_inherited_routes()
            await self._confirm(pods)
            self._readiness.reached("")
            if config.cni_config:
                write_network(Path(config.cni_config), config.cni_socket)
            log.info(
                "ready: %d pods, %d policy entries; %d entries written",
                len(self._endpoints.of_pods()),
                len(self._control.engine.table),
                written,
            )
            self._events.started()
            gc.freeze()
            tasks.create_task(self._metering.serve(gauges.collect))
            if health:
                tasks.create_task(health.run())
            tasks.create_task(self._look_after(pods, listener.problems))
            tasks.create_task(self._watch_pods(pods, listener))
            tasks.create_task(self._mend(pods))
            tasks.create_task(self._names.run())
            tasks.create_task(self._collect())
            tasks.create_task(self._audit())
            tasks.create_task(self._try_host_policies())
            tasks.create_task(announcer.run(heard=PREFIXES))
            tasks.create_task(self._closer.run())
            tasks.create_task(keeper.run())
            tasks.create_task(authentication.run())
            tasks.create_task(self._services.serve())
            tasks.create_task(self._services.keep_settled())

    def _tell_pod(self, pod: EndpointState, gone: bool) -> None:
        self._events.endpoint(pod.id, pod.namespace, pod.pod, pod.labels, gone)

    def _namespaces(self) -> list[Path]:
        """Where there are sockets whose calls go through the tables of this node."""
        pods = (Path(record.namespace_path) for record in self._endpoints.records.values())
        return [Path("/proc/thread-self/ns/net"), *pods]

    # ---- becoming part of the cluster ----------------------------------------------------------

    async def _join(self, pods: Pods, health: Health | None) -> None:
        """Claims this node's pod ranges, takes up the pods in them, and tells the others of the node."""
        self._readiness.reached("the shared state")
        config = self._config
        ranges = await _patiently(lambda: claim(self._store, config.node, config.pools()))
        pools = AddressPools(ranges)
        pods.begin(pools)
        if health:
            addresses = health.prepare(pools)
        else:
            addresses = ()
            self._health_endpoint.remove()
        self._told = ranges, tuple(addresses)
        await _patiently(self._announce)

    async def _announce(self) -> None:
        """Tells the others where this node is, if they do not know it."""
        await self._publish(node_key(self._config.node), encode(self._machine.state(*self._told)))

    async def _publish(self, key: str, value: bytes) -> None:
        entry = await self._store.get(key)
        if entry is None or entry.value != value:
            await self._store.put(key, value)

    async def _confirm(self, pods: Pods) -> None:
        for record in self._vanished:
            log.info("%s/%s went while no agent ran", record.state.namespace, record.state.pod)
            if self._endpoints.records.get((record.container_id, record.interface)) is None:
                self._endpoints.forget(record)
        await pods.confirm_restored()

    async def _follow(
        self, prefix: str, listener: Listener, announcer: Announcer, heard: asyncio.Event
    ) -> None:
        async with aclosing(follow(self._store, prefix)) as news:
            async for changes in news:
                if isinstance(changes, Sync):
                    heard.set()
                    continue
                for part in _parts(changes) if prefix in SERVICES else (changes,):
                    await listener.take(part)
                    announcer.hear(part)
                    self._metering.heard(part)
                    await asyncio.sleep(0)
                if self._readiness.ready:
                    await self._settle()

    async def _watch_pods(self, pods: Pods, listener: Listener) -> None:
        """Changes of pods, of which those of this node matter; nobody lists them all."""
        while True:
            try:
                after = (await self._store.list(f"{PODS}-/")).revision  # nothing stands there
                await pods.refresh()
                async with aclosing(self._store.watch(PODS, after)) as batches:
                    async for changes in batches:
                        await listener.take(changes)
            except (Compacted, Unavailable, OSError) as error:
                log.warning("%s: %s; looking at this node's pods again", PODS, error)
                await asyncio.sleep(_LONGEST_PAUSE)

    async def _look_after(self, pods: Pods, problems: dict[str, str]) -> None:
        """What others than the agent can do to a node: links and routes that were deleted are made anew; what
        is still wrong stands in ``problems``."""
        problems.update(self._endpoints.unreadable)
        while True:
            await asyncio.sleep(LOOK_EVERY)
            try:
                with self._metering.controller("look-after"):
                    if self._machine.look_again(self._plane):
                        log.info("the addresses of this node are other than before")
                        self._services.here(self._machine.facts())
                        await self._announce()
                    for what in [*self._machine.mend(self._plane), *await pods.look_after()]:
                        log.warning("%s had been deleted; made anew", what)
                problems.pop("network", None)
            except Unavailable as error:
                self._machine.forget_addresses()  # to be told once it can be
                log.warning("the other nodes do not know of the addresses yet: %s", error)
            except (NetworkError, BpfError, OSError) as error:
                problems["network"] = str(error)
                log.error("not made anew: %s", error)
            self._journal.retry()
            problems.pop(FILE_NAME, None)
            if self._journal.problem:
                problems[FILE_NAME] = self._journal.problem

    async def _settle(self) -> None:
        """New policies are in force once proxies are ready for them, or have not been for too long."""
        try:
            with self._metering.settling():
                self._hosts.prepare()
                self._control.settle(hold=True)
            self._proxies.names_are(self._names.plan())
            self._lend()
            if self._control.holds:
                await self._proxies.ready()
                self._control.settle()
            if self._hosts.enforce():
                self._control.settle()
        except (BpfError, LoadError) as error:
            log.error("%s; the tables will be compared and mended", error)

    def _lend(self) -> None:
        """There may be other tables than before."""
        if self._control.outside.selectors:
            try:
                lend(self._config.bpffs_path / "maps", self._config.proxies.user)
            except (OSError, KeyError) as error:
                log.error("while no agent is there, addresses of DNS names will not be learnt: %s", error)

    async def _try_host_policies(self) -> None:
        """What nobody confirms in time, the datapath stops by itself; here it is tidied up."""
        while True:
            await asyncio.sleep(_TRIAL_EVERY)
            if self._hosts.due:
                await self._settle()

    async def _confirm_host_policies(self) -> HostPolicyState:
        self._hosts.confirm()
        await self._settle()
        return self._hosts.state()

    # ---- what goes on beside -------------------------------------------------------------------

    async def _mend(self, pods: Pods) -> None:
        """What could not be done when it was due: kernel tables are compared, the store told."""
        while True:
            await asyncio.sleep(MEND_EVERY)
            try:
                with self._metering.controller("mend"):
                    if self._control.broken:
                        log.info("%d entries mended", self._control.reconcile())
                    self._services.mend()
                    self._proxies.retry()
                    # Neither should be so for long, unless what was to be done before has failed.
                    if self._hosts.owed or self._control.holds:
                        await self._settle()
                    self._proxies.names_are(self._names.plan())
                    self._lend()
                    await pods.retry()
            except (BpfError, Unavailable, OSError) as error:
                log.error("not mended: %s", error)

    async def _audit(self) -> None:
        """What others did to the kernel's tables, programs and pins is put right; a step is followed by so
        long a rest that all of it together takes `AUDIT_SHARE` of a core at most."""
        while True:
            began = time.monotonic()
            try:
                with self._metering.controller("audit"):
                    before = time.thread_time()
                    for _ in self._plane.audit():
                        await asyncio.sleep((time.thread_time() - before) / AUDIT_SHARE)
                        if self._control.broken or self._services.broken:
                            break  # tables are about to be compared as a whole
                        before = time.thread_time()
            except (BpfError, ValueError) as error:  # ValueError: tables were succeeded by others meanwhile
                log.info("looking through the kernel's tables was given up: %s", error)
            await asyncio.sleep(max(0.1, AUDIT_EVERY + began - time.monotonic()))

    async def _collect(self) -> None:
        """Numbers of identities that nobody uses are given back; any agent may do it."""
        collector = Collector(self._store, GRACE)
        while True:
            await asyncio.sleep(COLLECT_EVERY * random.uniform(0.5, 1.5))
            try:
                with self._metering.controller("identities"):
                    await collector.collect(time.time())
            except Unavailable as error:
                log.warning("unused identities were not collected: %s", error)

    def close(self) -> None:
        self._plane.close()


def _parts(changes: list[Change]) -> Iterator[list[Change]]:
    return (changes[at : at + _PART] for at in range(0, len(changes), _PART))


async def _patiently(work: Callable[[], Awaitable[T]]) -> T:
    """As soon as the store answers."""
    pause = _FIRST_PAUSE
    while True:
        try:
            return await work()
        except Unavailable as error:
            log.warning("%s; trying again in %.2g s", error, pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


async def _serve_names(server: Server) -> None:
    """In the DNS proxy's folder, where that might have put anything in the way: it harms itself with that,
    and not the agent."""
    try:
        await server.serve()
    except OSError as error:
        log.error("the DNS proxy cannot tell of names: %s", error)


def run(config_path: Path) -> None:
    """The process: until SIGTERM or SIGINT. Raises `axoneme.sources.config.ConfigError`."""
    config = load(config_path)
    with only_agent(config.state_path):
        asyncio.run(_main(config))


async def _main(config: AgentConfig) -> None:
    store = open_store(config.store)
    agent = Agent(config, store)
    try:
        if await until_told(agent.run()):
            log.info("asked to stop; the datapath goes on")
    finally:
        agent.close()
        await store.close()
