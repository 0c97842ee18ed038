"""`axo demo`: a small application on two virtual nodes, its policies, and real connections through both.

The table below says what each connection should come to; the demonstration makes them all, and fails
when one comes to anything else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, NamedTuple

import click

from axoneme.cli import state
from axoneme.cli.failures import Failure
from axoneme.cli.objects import work
from axoneme.cli.place import DEFAULT_SANDBOX, Place, in_sandbox
from axoneme.cli.tables import Table, show

if TYPE_CHECKING:
    from axoneme.cli.views import Pod
    from axoneme.flows.flow import Flow
    from axoneme.sandbox.client import Probe, ProbeResult

SANDBOX = "demo"
WORLD = "world"
#: Seconds after which a connection that nobody answers counts as dropped.
_TIMEOUT = 1.0
#: Seconds for flows to arrive at those who keep them.
_FLOWS_WITHIN = 3.0


class Attempt(NamedTuple):
    """A connection that somebody tries: workloads as namespace/name, `WORLD`, or an address outside."""

    source: str
    target: str
    port: int
    allowed: bool
    protocol: str = "tcp"
    family: int = 4


ATTEMPTS = (
    Attempt("town/visitor", "bakery/shop", 8080, True, "http"),
    Attempt("town/visitor", "bakery/shop", 8080, True, "http", family=6),
    Attempt("town/visitor", "bakery/shop", 22, False),
    Attempt("town/visitor", "bakery/orders", 9000, False),
    Attempt("bakery/shop", "bakery/orders", 9000, True),
    Attempt("bakery/shop", "bakery/ledger", 5432, False),
    Attempt("bakery/shop", "bakery/ledger", 5432, False, family=6),
    Attempt("bakery/orders", "bakery/ledger", 5432, True),
    Attempt("bakery/orders", "203.0.113.10", 443, True),
    Attempt("bakery/orders", "203.0.113.10", 80, False),
    Attempt("bakery/shop", "203.0.113.10", 80, True),
    Attempt("bakery/shop", "198.51.100.10", 443, False),
    Attempt(WORLD, "bakery/shop", 8080, False),
    Attempt("bakery/shop", "town/board", 8000, True, "http"),
)


@dataclass(frozen=True, slots=True)
class Tried:
    """An attempt that was made: between which places, and what came of it."""

    attempt: Attempt
    address: str
    source: Pod | None
    target: Pod | None
    result: ProbeResult

    @property
    def passed(self) -> bool:
        return self.result.verdict.value == "connected"

    @property
    def as_expected(self) -> bool:
        dropped = self.result.verdict.value == "timeout"
        return self.passed if self.attempt.allowed else dropped


@click.command()
@in_sandbox
@click.pass_obj
def demo(place: Place) -> None:
    """Show in one go what this is: a sandbox, an application, its policies, and who may talk to whom.

    Everything is made in a sandbox with the name demo (or the one that --sandbox names), which is left
    running. Exit code 1 when a connection did not come to what it should.
    """
    if place.sandbox == DEFAULT_SANDBOX:
        place.sandbox = SANDBOX
    began = time.monotonic()
    _set_up(place)
    click.echo(f"  ready after {time.monotonic() - began:.1f} s\n")
    _show_pods(place)
    since = time.time_ns()
    tried = _try_all(place)
    flows = _flows_of(place, tried, since)
    _show_attempts(tried, flows)
    _show_flows(flows)
    _show_more(place, tried)
    if wrong := [each for each in tried if not each.as_expected]:
        raise Failure(f"{len(wrong)} of {len(tried)} connections did not come to what was expected")


# ---- the sandbox -------------------------------------------------------------------------------------


def _set_up(place: Place) -> None:
    from axoneme.cli import manifests
    from axoneme.cli.writing import populate
    from axoneme.sandbox import lifecycle
    from axoneme.sandbox.plan import Plan

    folder = resources.files("axoneme") / "examples" / "bakery"
    texts = [(str(folder / name), (folder / name).read_text()) for name in ("app.yaml", "policies.yaml")]
    click.echo(
        f"Making sandbox {place.sandbox}: two nodes, each a network namespace with an agent and eBPF\n"
        "programs of its own, a router between them, and a world outside. Into it go"
    )
    for name, _ in texts:
        click.echo(f"  {name}")
    found = manifests.check(texts)
    plan = Plan(name=place.sandbox)
    lifecycle.up(plan, populate(found.objects), progress=lambda step: click.echo(f"  {step}"))


def _show_pods(place: Place) -> None:
    table = Table(["POD", "NODE", "ADDRESSES", "IDENTITY"])
    found = work(place, state.endpoints)
    identities = {(each.namespace, each.pod): each.identity for each in found}
    for pod in _pods(place):
        key = (pod.metadata.namespace, pod.metadata.name)
        table.rows.append(
            ["/".join(key), pod.spec.node_name, " ".join(pod.addresses), str(identities.get(key, ""))]
        )
    show(table)
    click.echo()


# ---- connections -------------------------------------------------------------------------------------


def _try_all(place: Place) -> list[Tried]:
    from axoneme.sandbox.client import Probe, Protocol, probe_all
    from axoneme.sandbox.layout import OUTSIDE

    pods = _pods(place)
    layout = place.existing
    wishes: list[Probe] = []
    ends: list[tuple[Attempt, str, Pod | None, Pod | None]] = []
    for attempt in ATTEMPTS:
        source = _find(pods, attempt.source)
        target = _find(pods, attempt.target, away_from=source)
        address = _address(target, attempt.family) if target else attempt.target
        namespace = layout.pod_namespace(source.metadata.uid) if source else layout.namespace(OUTSIDE)
        wishes.append(Probe(namespace, address, attempt.port, Protocol(attempt.protocol), _TIMEOUT))
        ends.append((attempt, address, source, target))
    results = asyncio.run(probe_all(wishes))
    return [
        Tried(attempt, address, source, target, result)
        for (attempt, address, source, target), result in zip(ends, results, strict=True)
    ]


def _find(pods: list[Pod], name: str, away_from: Pod | None = None) -> Pod | None:
    """A pod of the workload, on another node where there is one; None for what is no workload's name."""
    if name == WORLD or "/" not in name:
        return None
    namespace, _, workload = name.partition("/")
    found = [
        pod
        for pod in pods
        if pod.metadata.namespace == namespace
        and (pod.metadata.name == workload or pod.metadata.name.startswith(f"{workload}-"))
    ]
    if not found:
        raise Failure(f"there is no pod of {name} in the sandbox; remove it and run the demonstration again")
    elsewhere = [pod for pod in found if away_from is None or pod.spec.node_name != away_from.spec.node_name]
    return (elsewhere or found)[0]


def _address(pod: Pod, family: int) -> str:
    return next(each for each in pod.addresses if (":" in each) == (family == 6))


# ---- what was seen -----------------------------------------------------------------------------------


def _flows_of(place: Place, tried: list[Tried], since: int) -> list[Flow | None]:
    """For each attempt the first flow of it that says most, as soon as all have one."""
    from axoneme.flows.flow import ObserveRequest

    until = time.monotonic() + _FLOWS_WITHIN
    while True:
        seen = [flow for node in place.nodes() for flow in _observe(place, node, ObserveRequest(since=since))]
        found = [_best(seen, each) for each in tried]
        if all(found) or time.monotonic() > until:
            return found
        time.sleep(0.1)


def _best(flows: list[Flow], tried: Tried) -> Flow | None:
    mine = [
        flow
        for flow in flows
        if flow.IP.destination == tried.address
        and (flow.l4.TCP and flow.l4.TCP.destination_port) == tried.attempt.port
        and flow.source.pod_name == (tried.source.metadata.name if tried.source else "")
        and flow.event != "end"
    ]
    return max(mine, key=lambda flow: len(_decided_by(flow)), default=None)


def _observe(place: Place, node: str, request: object) -> Iterator[Flow]:
    from axoneme.flows.render import item
    from axoneme.rpc import Client

    for found in Client(place.existing.node(node).flows_socket).stream("flows.observe", request):
        if (flow := item(found).flow) is not None:
            yield flow


def _decided_by(flow: Flow) -> str:
    policies = (
        *flow.egress_denied_by,
        *flow.ingress_denied_by,
        *flow.egress_allowed_by,
        *flow.ingress_allowed_by,
    )
    return ", ".join(dict.fromkeys(each.name for each in policies))


def _show_attempts(tried: list[Tried], flows: list[Flow | None]) -> None:
    click.echo("Connections, each made for real from inside the source:")
    table = Table(["FROM", "TO", "PORT", "FAMILY", "NODES", "EXPECTED", "MEASURED", "POLICIES", ""])
    for each, flow in zip(tried, flows, strict=True):
        nodes = [pod.spec.node_name if pod else "outside" for pod in (each.source, each.target)]
        table.rows.append(
            [
                each.attempt.source,
                each.attempt.target,
                f"{each.attempt.port}/{each.attempt.protocol}",
                f"IPv{each.attempt.family}",
                "→".join(dict.fromkeys(nodes)),
                "allowed" if each.attempt.allowed else "dropped",
                _measured(each),
                (_decided_by(flow) or "none") if flow else "(no flow)",
                "yes" if each.as_expected else "no",
            ]
        )
    show(table)
    click.echo()


def _measured(tried: Tried) -> str:
    if tried.passed:
        return f"allowed in {tried.result.latency * 1000:.1f} ms"
    words: dict[str, Callable[[], str]] = {"timeout": lambda: f"dropped ({_TIMEOUT:g} s without answer)"}
    return words.get(tried.result.verdict.value, lambda: tried.result.verdict.value)()


def _show_flows(flows: list[Flow | None]) -> None:
    from axoneme.flows import render

    click.echo("The flows behind them, as the nodes reported them:")
    for flow in sorted((flow for flow in flows if flow), key=lambda flow: flow.time):
        click.echo(f"  {render.compact(flow)}")
    click.echo()


def _show_more(place: Place, tried: list[Tried]) -> None:
    between_pods = [each for each in tried if each.source and each.target]
    shown = min(between_pods, key=lambda each: each.passed)
    ends = [f"{pod.metadata.namespace}/{pod.metadata.name}" for pod in (shown.source, shown.target) if pod]
    click.echo(f"The sandbox runs on. To go on with it: export AXO_SANDBOX={place.sandbox}, then for example")
    for command, what in (
        ("axo get pods -A -o wide", "also services, policies, endpoints, identities, nodes"),
        ("axo observe --follow", "every flow as it happens; --verdict DROPPED for drops alone"),
        ("axo exec -n town visitor -- sh", "a shell inside a pod"),
        (
            f"axo policy why --from {ends[0]} --to {ends[1]} --port {shown.attempt.port}/TCP",
            "a verdict, and the rules behind it",
        ),
        ("axo delete networkpolicy closed visitors -n bakery", "open the shop, and ask why again"),
        ("axo sandbox down", "remove everything"),
    ):
        click.echo(f"  {command}\n      {what}")


def _pods(place: Place) -> list[Pod]:
    from axoneme.cli import views
    from axoneme.cli.kinds import POD
    from axoneme.cli.objects import listing

    found = work(place, lambda store: listing(store, POD, None))
    return [views.view(each.value, views.Pod) for each in found]
