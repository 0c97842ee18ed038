"""The agent's socket: what a container runtime, the command line and other tools may ask of a node."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from axoneme import __version__
from axoneme.agent.capacity import Need
from axoneme.agent.control import Control
from axoneme.agent.endpoints import EndpointTable
from axoneme.agent.health import Health
from axoneme.agent.hostpolicies import HostPolicies
from axoneme.agent.listener import Listener, Object
from axoneme.agent.names import Names
from axoneme.agent.pods import Attach, Attached, Detach, Pods
from axoneme.agent.proxies import ListenerState, Proxies
from axoneme.agent.questions import AddressLine, IdentityLine, PolicyLine, Question, Questions
from axoneme.agent.services import Services
from axoneme.datapath.bpf import BpfError
from axoneme.datapath.plane import Datapath
from axoneme.health.ways import HealthSummary
from axoneme.identity.nameview import NameLine, NamesSummary
from axoneme.model.hostpolicystate import HostPolicyState
from axoneme.model.state import EndpointState
from axoneme.rpc import INVALID, UNAVAILABLE, NoParams, RpcError, Server
from axoneme.services.view import BalancingSummary, ServiceView

#: Seconds for which an attach waits for an agent that is starting: less than runtimes wait themselves.
PATIENCE = 20.0


class Readiness:
    """What the agent still waits for; empty when it is ready."""

    def __init__(self) -> None:
        self.waits_for = "the datapath"
        self._ready = asyncio.Event()

    def reached(self, next_: str) -> None:
        self.waits_for = next_
        if not next_:
            self._ready.set()

    @property
    def ready(self) -> bool:
        return self._ready.is_set()

    async def wait(self, seconds: float = PATIENCE) -> None:
        """RpcError(UNAVAILABLE) that says what is missing."""
        try:
            async with asyncio.timeout(seconds):
                await self._ready.wait()
        except TimeoutError:
            raise RpcError(
                UNAVAILABLE, f"the agent has waited {seconds:g} s for {self.waits_for}; its log says more"
            ) from None


class Status(msgspec.Struct, frozen=True):
    """``phase`` is ``starting`` or ``ready``; counts are this node's, ``problems`` by object's key."""

    node: str
    pid: int
    version: str
    started: float  # seconds since 1970
    phase: str
    waits_for: str = ""
    endpoints: int = 0
    identities: int = 0
    policies: int = 0
    policy_entries: int = 0
    addresses: int = 0
    nodes: int = 0
    writes: dict[str, int] = {}
    problems: dict[str, str] = {}
    kernel: str = ""
    kernel_lacks: list[str] = []  # sentences: what it has not, and what goes without
    health: HealthSummary | None = None  # None: nothing is probed here
    repairs: dict[str, int] = {}  # what others had changed in the kernel, put right since the start
    balancing: BalancingSummary | None = None  # None: nothing is balanced here
    names: NamesSummary | None = None  # None: no policy selects by DNS names
    listeners: list[ListenerState] = []  # of the node's proxies
    host_policies: HostPolicyState = HostPolicyState()
    out_of_ports: dict[str, int] = {}  # connections that could not be masqueraded, by destination


class Candidates(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The parameters of ``policy.fits``: objects by their keys in the shared state."""

    objects: dict[str, Object]


class Api:
    """Serves one agent; calls that change something wait until it is ready."""

    def __init__(
        self,
        node: str,
        readiness: Readiness,
        control: Control,
        endpoints: EndpointTable,
        pods: Pods,
        listener: Listener,
        questions: Questions,
        health: Health | None,
        kernel_lacks: Sequence[str],
        plane: Datapath,
        services: Services,
        names: Names,
        proxies: Proxies,
        hosts: HostPolicies,
        confirm_host_policies: Callable[[], Awaitable[HostPolicyState]],
    ) -> None:
        self._node = node
        self._readiness = readiness
        self._control = control
        self._endpoints = endpoints
        self._pods = pods
        self._listener = listener
        self._questions = questions
        self._health = health
        self._kernel_lacks = kernel_lacks
        self._plane = plane
        self._services = services
        self._names = names
        self._proxies = proxies
        self._hosts = hosts
        self._confirm_host_policies = confirm_host_policies
        self._started = time.time()

    def register(self, server: Server) -> None:
        server.method("status", NoParams, self._status)
        server.method("endpoint.attach", Attach, self._attach)
        server.method("endpoint.detach", Detach, self._detach)
        server.method("endpoint.list", NoParams, self._endpoint_list)
        server.method("identity.list", NoParams, _answer(self._questions.identities))
        server.method("address.list", NoParams, _answer(self._questions.addresses))
        server.method("policy.list", NoParams, _answer(self._questions.policies))
        server.method("names.list", NoParams, _answer(self._names.lines))
        server.method("services", NoParams, _answer(self._services.list))
        server.method("policy.evaluate", Question, self._evaluate)
        server.method("policy.fits", Candidates, self._fits)
        server.method("policy.confirm", NoParams, self._confirm)
        if self._health:
            server.method("health.status", NoParams, self._health.status)
            server.method("health.probe", NoParams, self._health.probe)
            server.method("health.mtu", NoParams, self._health.path_mtus)

    async def _attach(self, wish: Attach) -> Attached:
        await self._readiness.wait()
        return await self._pods.attach(wish)

    async def _detach(self, wish: Detach) -> bool:
        await self._readiness.wait()
        return await self._pods.detach(wish)

    async def _endpoint_list(self, _: NoParams) -> list[EndpointState]:
        return [record.state for record in self._endpoints.of_pods()]

    async def _evaluate(self, question: Question) -> object:
        await self._readiness.wait()
        return await self._questions.evaluate(question)

    async def _fits(self, wanted: Candidates) -> list[Need]:
        if not self._readiness.ready:
            raise RpcError(UNAVAILABLE, f"the agent is starting, and waits for {self._readiness.waits_for}")
        await self._control.released()
        try:
            return self._listener.tried(wanted.objects)
        except BpfError as error:
            raise RpcError(UNAVAILABLE, f"{error}; the tables will be compared and mended") from error
        except (ValueError, RecursionError, msgspec.MsgspecError) as error:
            raise RpcError(INVALID, str(error)) from error

    async def _confirm(self, _: NoParams) -> HostPolicyState:
        await self._readiness.wait()
        return await self._confirm_host_policies()

    async def _status(self, _: NoParams) -> Status:
        engine, readiness, counts = self._control.engine, self._readiness, self._control.counts
        return Status(
            node=self._node,
            pid=os.getpid(),
            version=__version__,
            started=self._started,
            phase="ready" if readiness.ready else "starting",
            waits_for=readiness.waits_for,
            endpoints=len(self._endpoints.of_pods()),
            identities=counts.identities,
            policies=self._control.policies - self._hosts.given,
            policy_entries=len(engine.table),
            addresses=counts.addresses,
            nodes=counts.nodes,
            writes=self._control.writes | self._services.writes,
            problems={
                **self._listener.problems,
                **self._control.refused,
                **self._control.conflicts,
                **self._services.problems,
                **dict(self._proxies.problems()),
            },
            kernel=os.uname().release,
            kernel_lacks=list(self._kernel_lacks),
            health=self._health.monitor.summary() if self._health else None,
            repairs=dict(self._plane.repairs),
            balancing=self._services.summary(),
            names=self._names.summary(),
            listeners=self._proxies.states(),
            host_policies=self._hosts.state(),
            out_of_ports=self._plane.out_of_ports(),
        )


Listing = list[IdentityLine] | list[AddressLine] | list[PolicyLine] | list[ServiceView] | list[NameLine]


def _answer(question: Callable[[], Listing]) -> Callable[[NoParams], Awaitable[Listing]]:
    async def answer(_: NoParams) -> Listing:
        return question()

    return answer
