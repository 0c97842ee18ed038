"""`axo status`: whether the sandbox is well, and what each node's two processes say of themselves."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from axoneme.cli import balancing, health, names
from axoneme.cli.ages import short
from axoneme.cli.place import Place, in_sandbox
from axoneme.cli.tables import Table, show
from axoneme.health.ways import HealthReport, HealthSummary
from axoneme.identity.nameview import NamesSummary
from axoneme.model.hostpolicystate import HostPolicyState
from axoneme.services.view import BalancingSummary

if TYPE_CHECKING:
    from axoneme.sandbox.report import SandboxReport

S = TypeVar("S", bound=msgspec.Struct)

#: Seconds that a process may take for an answer before it counts as stuck.
_PATIENCE = 5.0


class ListenerStatus(msgspec.Struct, frozen=True):
    """One distinct set of rules above L4, and the proxy that holds to it."""

    kind: str = ""
    port: int = 0
    direction: str = ""
    rules: str = ""
    audit: bool = False
    state: str = ""
    problem: str = ""


class AgentStatus(msgspec.Struct, frozen=True):
    """As much of an agent's ``status`` as is shown; an agent of another version may lack some."""

    node: str = ""
    pid: int = 0
    version: str = ""
    started: float = 0.0
    phase: str = ""
    waits_for: str = ""
    endpoints: int = 0
    identities: int = 0
    policies: int = 0
    policy_entries: int = 0
    addresses: int = 0
    problems: dict[str, str] = {}
    kernel: str = ""
    kernel_lacks: list[str] = []
    repairs: dict[str, int] = {}
    out_of_ports: dict[str, int] = {}
    health: HealthSummary | None = None
    balancing: BalancingSummary | None = None
    listeners: list[ListenerStatus] = []
    names: NamesSummary | None = None
    host_policies: HostPolicyState = HostPolicyState()


class FlowsStatus(msgspec.Struct, frozen=True):
    """The same of a flow server."""

    num_flows: int = 0
    seen_flows: int = 0
    flows_rate: float = 0.0
    attached: bool = True
    lost_flows: int = 0
    lost_drops: int = 0
    lost_requests: int = 0
    connections: int = 0


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """``None`` for a process that does not answer; then ``failures`` says why."""

    name: str
    agent: AgentStatus | None
    flows: FlowsStatus | None
    failures: tuple[str, ...]

    def troubles(self) -> Iterator[str]:
        yield from self.failures
        if self.agent and self.agent.phase != "ready":
            what = f", waits for {self.agent.waits_for}" if self.agent.waits_for else ""
            yield f"node {self.name}: its agent is {self.agent.phase or 'in an unknown state'}{what}"
        if self.agent:
            for key, problem in self.agent.problems.items():
                yield f"node {self.name}: {key.removeprefix('objects/')}: {problem}"
        if self.agent and self.agent.health and self.agent.health.unreachable:
            missing = ", ".join(self.agent.health.unreachable)
            yield f"node {self.name}: does not reach {missing} by every way: axo status --verbose, axo doctor"
        if self.agent and self.agent.names and self.agent.names.problem:
            yield f"node {self.name}: {self.agent.names.problem}"
        if self.flows and not self.flows.attached:
            yield f"node {self.name}: its flow server waits for the datapath"


@click.command()
@click.option("-o", "--output", type=click.Choice(["json"]), help="In which form.")
@click.option("-v", "--verbose", is_flag=True, help="Also every way from every node to every node.")
@in_sandbox
@click.pass_obj
def status(place: Place, output: str | None, verbose: bool) -> int:
    """Say how the sandbox, its nodes, their agents and flow servers are.

    Ends with 1 when something is not well.
    """
    report, troubles = _report(place)
    nodes = [_node(place, name) for name in place.nodes()]
    for node in nodes:
        troubles += node.troubles()
    if report:
        # What the supervisor says of processes, they have said themselves.
        troubles += [each for each in report.waiting if not each.startswith("Node ")]
    summaries = {node.name: node.agent.health for node in nodes if node.agent and node.agent.health}
    reports = list(_health_reports(place, summaries)) if verbose else []
    if output:
        known = _json(place, report, nodes, troubles)
        if verbose:
            known["health"] = msgspec.to_builtins(reports)
        click.echo(json.dumps(known, indent=4))
        return 1 if troubles else 0
    word = click.style("not well", fg="red") if troubles else click.style("well", fg="green")
    click.echo(f"{place}: {word}{_shape(report)}")
    click.echo()
    show(Table(_HEADERS, [_row(node) for node in nodes]))
    click.echo()
    click.echo(health.line(summaries))
    click.echo(
        balancing.line(
            {n.name: n.agent.balancing for n in nodes if n.agent and n.agent.balancing is not None}
        )
    )
    if named := {n.name: n.agent.names for n in nodes if n.agent and n.agent.names}:
        click.echo(names.line(named))
    for line in (*_listeners(nodes, verbose), *_lacks(nodes)):
        click.echo(line)
    if reports:
        click.echo()
        show(health.table(reports))
    for node in nodes:
        if node.agent and node.agent.repairs:
            what = ", ".join(f"{count} {name}" for name, count in sorted(node.agent.repairs.items()))
            click.echo(f"node {node.name}: somebody else changed what is in its kernel; put right: {what}")
        for destination, count in sorted(node.agent.out_of_ports.items() if node.agent else ()):
            click.echo(f"node {node.name}: no port was left for {count} connections to {destination}")
    for node in nodes:
        for line in _host_policies(node):
            click.echo(line)
    if troubles:
        click.echo()
    for trouble in troubles:
        click.echo(trouble)
    return 1 if troubles else 0


def _host_policies(node: NodeStatus) -> Iterator[str]:
    state = node.agent.host_policies if node.agent else HostPolicyState()
    if state.pending:
        yield (
            f"node {node.name}: {', '.join(state.pending)}: tried for {state.seconds:.0f} s more; "
            "`axo policy confirm` keeps it"
        )
    if state.given_up:
        names = ", ".join(state.given_up)
        yield f"node {node.name}: {names}: not in force, for nobody has confirmed it in time"


def _report(place: Place) -> tuple[SandboxReport | None, list[str]]:
    """What the supervisor says; without it pods run on, so the rest is worth showing."""
    from axoneme.sandbox import lifecycle
    from axoneme.sandbox.errors import SandboxError

    if place.machine:
        return None, []
    name = place.existing.name
    try:
        return lifecycle.status(name), []
    except SandboxError as failure:
        return None, [str(failure)]


def _node(place: Place, name: str) -> NodeStatus:
    sockets = place.sockets(name)
    failures: list[str] = []
    return NodeStatus(
        name,
        _ask(sockets.agent, AgentStatus, f"node {name}: its agent", failures),
        _ask(sockets.flows, FlowsStatus, f"node {name}: its flow server", failures),
        tuple(failures),
    )


def _health_reports(place: Place, names: Iterable[str]) -> Iterator[HealthReport]:
    for name in names:
        failures: list[str] = []
        socket = place.sockets(name).agent
        found = _ask(socket, HealthReport, f"node {name}: its agent", failures, "health.status")
        if found:
            yield found


def _ask(socket: Path, kind: type[S], who: str, failures: list[str], method: str = "status") -> S | None:
    from axoneme.rpc import Client, RpcError

    try:
        return Client(socket, _PATIENCE).call(method, None, kind)
    except RpcError as failure:
        failures.append(f"{who} does not answer: {failure.message}")
        return None


_HEADERS = (
    "NODE",
    "AGENT",
    "AGE",
    "ENDPOINTS",
    "IDENTITIES",
    "POLICIES",
    "ENTRIES",
    "FLOW-SERVER",
    "CONNECTIONS",
    "FLOWS/S",
    "SEEN",
    "LOST",
)


def _row(node: NodeStatus) -> Sequence[str]:
    agent, flows = node.agent, node.flows
    unknown = "-"
    return (
        node.name,
        agent.phase if agent else "no",
        short(timedelta(seconds=time.time() - agent.started)) if agent and agent.started else unknown,
        str(agent.endpoints) if agent else unknown,
        str(agent.identities) if agent else unknown,
        str(agent.policies) if agent else unknown,
        str(agent.policy_entries) if agent else unknown,
        ("ready" if flows.attached else "starting") if flows else "no",
        str(flows.connections) if flows else unknown,
        f"{flows.flows_rate:g}" if flows else unknown,
        str(flows.seen_flows) if flows else unknown,
        str(flows.lost_flows + flows.lost_drops + flows.lost_requests) if flows else unknown,
    )


def _listeners(nodes: Sequence[NodeStatus], verbose: bool) -> Iterator[str]:
    """How many listeners proxies have, by kind and state; one by one where that is asked for."""
    for node in nodes:
        listeners = node.agent.listeners if node.agent else []
        if listeners:
            counts = Counter(f"{each.state} for {each.rules.partition(':')[0]}" for each in listeners)
            told = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
            yield f"Proxies of {node.name}: {told}"
        for each in listeners if verbose else ():
            tried = ", only tried" if each.audit else ""
            yield f"  {each.kind} {each.port} {each.direction}: {each.rules}{tried}; {each.state}"


def _lacks(nodes: Sequence[NodeStatus]) -> Iterator[str]:
    """What kernels have not, each with its nodes: no trouble, for the datapath does without."""
    found: dict[str, list[str]] = {}
    for node in nodes:
        for sentence in node.agent.kernel_lacks if node.agent else ():
            found.setdefault(sentence, []).append(node.name)
    for sentence, lacking in found.items():
        yield f"{', '.join(lacking)}: {sentence}"


def _shape(report: SandboxReport | None) -> str:
    if report is None:
        return ""
    families = " and ".join(report.family.names())
    return (
        f"; {len(report.nodes)} nodes, {report.routing.value} routing, {families}; "
        f"{report.ready_pods} of {report.pods} pods ready"
    )


def _json(
    place: Place, report: SandboxReport | None, nodes: Sequence[NodeStatus], troubles: Sequence[str]
) -> dict[str, Any]:
    return {
        "sandbox": None if place.machine else place.sandbox,
        "well": not troubles,
        "troubles": list(troubles),
        "supervisor": msgspec.to_builtins(report),
        "nodes": [
            {
                "name": node.name,
                "agent": msgspec.to_builtins(node.agent),
                "flows": msgspec.to_builtins(node.flows),
            }
            for node in nodes
        ],
    }
