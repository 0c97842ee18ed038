"""How nodes are, as their own processes say it, and the ways between them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path as File
from typing import Final, TypeVar

import msgspec

from axoneme.flows.status import Status as FlowsStatus
from axoneme.health.ways import HealthReport, Measurement
from axoneme.model.state import NodeState
from axoneme.rpc import AsyncClient, RpcError
from axoneme.ui import api
from axoneme.ui.mapview import timestamp
from axoneme.ui.shared import OBJECTS, Shared

S = TypeVar("S")

#: Seconds that a process may take for an answer before it counts as stuck.
_PATIENCE: Final = 3.0


class AgentStatus(msgspec.Struct, frozen=True):
    """As much of an agent's ``status`` as is shown; an agent of another version may lack some."""

    phase: str = ""
    waits_for: str = ""
    version: str = ""
    kernel: str = ""
    started: float = 0.0
    endpoints: int = 0
    identities: int = 0
    policies: int = 0
    policy_entries: int = 0
    problems: dict[str, str] = {}
    kernel_lacks: list[str] = []


class NodeView:
    """``agents`` and ``flows``: sockets by node."""

    def __init__(self, agents: Mapping[str, File], flows: Mapping[str, File], shared: Shared | None) -> None:
        self._agents = dict(agents)
        self._flows = dict(flows)
        self._shared = shared

    async def nodes(self) -> api.Nodes:
        states = await self._shared.nodes() if self._shared else {}
        names = sorted(states.keys() | self._agents.keys() | self._flows.keys(), key=lambda n: (len(n), n))
        found = await asyncio.gather(*(self._node(name, states.get(name)) for name in names))
        return api.Nodes(
            nodes=[node for node, _ in found],
            ways=[way for _, report in found if report for way in _ways(report)],
        )

    async def problems(self) -> dict[str, str]:
        """What agents say of objects, by key."""
        found: dict[str, str] = {}
        for status in await asyncio.gather(*(_ask(p, "status", AgentStatus) for p in self._agents.values())):
            if isinstance(status, AgentStatus):
                found |= status.problems
        return found

    async def _node(self, name: str, state: NodeState | None) -> tuple[api.Node, HealthReport | None]:
        agent, flows, report = await asyncio.gather(
            _ask(self._agents.get(name), "status", AgentStatus),
            _ask(self._flows.get(name), "status", FlowsStatus),
            _ask(self._agents.get(name), "health.status", HealthReport),
        )
        node = api.Node(
            name=name,
            addresses=list(state.addresses) if state else [],
            agent=_agent(agent) if isinstance(agent, AgentStatus) else None,
            flows=_flow_server(flows) if isinstance(flows, FlowsStatus) else None,
            problems=list(_problems(agent, flows)),
            lacks=agent.kernel_lacks if isinstance(agent, AgentStatus) else [],
        )
        return node, report if isinstance(report, HealthReport) else None


async def _ask(socket: File | None, method: str, kind: type[S]) -> S | str | None:
    """The answer, or why there is none; None where it cannot be asked from here."""
    if socket is None:
        return None
    try:
        return await AsyncClient(socket, _PATIENCE).call(method, None, kind)
    except RpcError as failure:
        return failure.message


def _problems(agent: AgentStatus | str | None, flows: FlowsStatus | str | None) -> Iterator[str]:
    if isinstance(agent, str):
        yield f"its agent does not answer: {agent}"
    elif agent is not None:
        if agent.phase != "ready":
            yield f"its agent is {agent.phase}" + (
                f", waits for {agent.waits_for}" if agent.waits_for else ""
            )
        for key, problem in agent.problems.items():
            yield f"{key.removeprefix(OBJECTS)}: {problem}"
    if isinstance(flows, str):
        yield f"its flow server does not answer: {flows}"
    elif flows is not None and not flows.attached:
        yield "its flow server waits for the datapath"


def _agent(status: AgentStatus) -> api.Agent:
    return api.Agent(
        phase=status.phase,
        waits_for=status.waits_for,
        version=status.version,
        kernel=status.kernel,
        started=timestamp(status.started),
        endpoints=status.endpoints,
        identities=status.identities,
        policies=status.policies,
        policy_entries=status.policy_entries,
    )


def _flow_server(status: FlowsStatus) -> api.FlowServer:
    return api.FlowServer(
        attached=status.attached,
        rate=status.flows_rate,
        seen=status.seen_flows,
        lost=status.lost_flows + status.lost_drops + status.lost_requests,
        kept=status.num_flows,
        capacity=status.max_flows,
        connections=status.connections,
    )


def _ways(report: HealthReport) -> Iterator[api.Way]:
    for node in report.nodes:
        for each in node.measurements:
            yield _way(report.node, node.node, each)


def _way(source: str, destination: str, found: Measurement) -> api.Way:
    state = "unknown" if not found.known else "works" if found.works else "fails"
    return api.Way(
        source=source,
        destination=destination,
        path=found.way.path.value,
        protocol=found.way.protocol.value,
        address=found.way.address,
        state=state,
        reason=found.reason,
        latency=found.answer.latency if found.answer else msgspec.UNSET,
        measured=timestamp(found.measured) if found.known else msgspec.UNSET,
    )
