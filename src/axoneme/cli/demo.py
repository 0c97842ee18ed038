"""`axo demo`: a small application on two virtual nodes, its policies, and real connections through both.

What each connection should come to stands in the example's file of expectations, which `axo policy test`
reads too; the demonstration fails when one comes to anything else.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING

import click

from axoneme.cli import policytest, state
from axoneme.cli.failures import Failure
from axoneme.cli.objects import work
from axoneme.cli.place import DEFAULT_SANDBOX, Place, in_sandbox
from axoneme.cli.tables import Table, show

if TYPE_CHECKING:
    from axoneme.cli.trials import Outcome
    from axoneme.cli.views import Pod
    from axoneme.flows.flow import Flow

SANDBOX = "demo"
EXPECTATIONS = "expectations.yaml"


@click.command()
@click.option(
    "--timeout", type=float, default=60.0, show_default=True, help="Seconds until the sandbox must be ready."
)
@in_sandbox
@click.pass_obj
def demo(place: Place, timeout: float) -> None:
    """Show in one go what this is: a sandbox, an application, its policies, and who may talk to whom.

    Everything is made in a sandbox with the name demo (or the one that --sandbox names), which is left
    running. Exit code 1 when a connection did not come to what it should.
    """
    from axoneme.cli.scene import run

    if place.sandbox == DEFAULT_SANDBOX:
        place.sandbox = SANDBOX
    place.named = True
    with resources.as_file(resources.files("axoneme") / "examples" / "bakery") as folder:
        file = policytest.read(str(folder / EXPECTATIONS))
    began = time.monotonic()
    click.echo(
        f"Making sandbox {place.sandbox}: two nodes, each a network namespace with an agent and eBPF\n"
        "programs of its own, a router between them, and a world outside. Into it go"
    )
    for name in file.test.manifests:
        click.echo(f"  {folder / name}")
    policytest.set_up(place.sandbox, file, timeout)
    click.echo(f"  ready after {time.monotonic() - began:.1f} s\n")
    _show_pods(place)
    click.echo(
        f"Connections, each made for real from inside the source, and what {EXPECTATIONS} says of them:"
    )
    outcomes = run(place, file.test.expect)
    policytest.show_outcomes(place, outcomes)
    _show_flows(outcomes)
    lost = _call_by_name(place)
    _show_more(place, outcomes)
    if wrong := [each for each in outcomes if not each.as_expected]:
        raise Failure(f"{len(wrong)} of {len(outcomes)} expectations were not fulfilled")
    if lost:
        raise Failure(f"{lost} calls by name came to something else than they should")


def _call_by_name(place: Place) -> int:
    """How many calls of services went wrong."""
    from axoneme.cli import byname

    click.echo("Services, called by their names by programs in pods, and denied like any other connection:")
    shop = next(each for each in work(place, state.endpoints) if each.workload == "shop")
    calls = (
        byname.Call("town", "visitor", "http://shop.bakery.svc.cluster.local/", "bakery/shop"),
        byname.Call("bakery", shop.pod, "http://orders:9000/", "bakery/orders"),
        byname.Call("town", "visitor", "http://ledger.bakery:5432/"),
    )
    wrong = byname.run(place.sandbox, calls)
    click.echo()
    return wrong


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


def _pods(place: Place) -> list[Pod]:
    from axoneme.cli import views
    from axoneme.cli.kinds import POD
    from axoneme.cli.objects import listing

    found = work(place, lambda store: listing(store, POD, None))
    return [views.view(each.value, views.Pod) for each in found]


def _show_flows(outcomes: Sequence[Outcome]) -> None:
    """One flow of each expectation: the one that names most policies."""
    from axoneme.flows import render

    click.echo("\nFlows behind them, as the nodes reported them:")
    found = (
        max((flow for made in each.made for flow in made.flows), key=_named, default=None)
        for each in outcomes
    )
    for flow in sorted((flow for flow in found if flow), key=lambda flow: flow.time):
        click.echo(f"  {render.compact(flow)}")
    click.echo()


def _named(flow: Flow) -> int:
    return sum(
        map(
            len,
            (flow.egress_allowed_by, flow.ingress_allowed_by, flow.egress_denied_by, flow.ingress_denied_by),
        )
    )


def _show_more(place: Place, outcomes: Sequence[Outcome]) -> None:
    made = (each for outcome in outcomes for each in outcome.made)
    between_pods = (
        each for each in made if each.connection.source.endpoint and each.connection.target.endpoint
    )
    shown = max(between_pods, key=lambda each: each.fate.value).connection
    port = f"{shown.port}/{shown.protocol.name}"
    click.echo(f"The sandbox runs on. To go on with it: export AXO_SANDBOX={place.sandbox}, then for example")
    for command, what in (
        ("axo get pods -A -o wide", "also services, policies, endpoints, identities, nodes"),
        ("axo observe --follow", "every flow as it happens; --verdict DROPPED for drops alone"),
        ("axo exec -n town visitor -- sh", "a shell inside a pod; from there, curl shop.bakery"),
        ("axo service list", "services: their backends, and what went there"),
        (
            f"axo policy why --from {shown.source.name} --to {shown.target.name} --port {port}",
            "a verdict, and the rules behind it",
        ),
        ("axo delete networkpolicy closed visitors -n bakery", "open the shop, and ask why again"),
        ("axo sandbox down", "remove everything"),
    ):
        click.echo(f"  {command}\n      {what}")
