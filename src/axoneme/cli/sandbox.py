"""`axo sandbox`: making, removing and looking at sandboxes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from axoneme.cli import manifests
from axoneme.cli.failures import Failure
from axoneme.cli.place import Place, in_namespace, in_sandbox
from axoneme.cli.tables import Table, show

if TYPE_CHECKING:
    from axoneme.sandbox.plan import Plan
    from axoneme.sandbox.report import SandboxReport

_NAME = click.option("--name", metavar="NAME", help="Which sandbox; default: as --sandbox says.")


@click.group()
def group() -> None:
    """Make, remove and look at sandboxes: small clusters on this machine."""


@group.command()
@manifests.with_files(required=False)
@click.option("--nodes", type=click.IntRange(1, 64), help="How many nodes; default: 2.")
@click.option(
    "--routing",
    type=click.Choice(["overlay", "native"]),
    help="How packets get from node to node: in VXLAN (overlay, the default), or by routes (native).",
)
@click.option(
    "--family",
    type=click.Choice(["ipv4", "ipv6", "dual"]),
    help="Which addresses pods have; default: dual.",
)
@click.option("--dns/--no-dns", default=None, help="With or without a cluster DNS; default: with one.")
@click.option(
    "--zone",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, resolve_path=True, path_type=Path),
    help="A master file with all names of the world outside; it may be edited while the sandbox runs.",
)
@click.option(
    "--history",
    metavar="DIR",
    type=click.Path(file_okay=False, resolve_path=True, path_type=Path),
    help="Keep flows there, in a folder for each node; default: only the newest, in memory.",
)
@click.option(
    "--metrics/--no-metrics",
    default=None,
    help="Serve Prometheus metrics within the nodes, at 127.0.0.1:9962 and of flows at 127.0.0.1:9965.",
)
@click.option(
    "--timeout", type=float, default=60.0, show_default=True, help="Seconds until everything must be ready."
)
@_NAME
@in_namespace
@in_sandbox
@click.pass_obj
def up(
    place: Place,
    files: Sequence[str],
    recursive: bool,
    nodes: int | None,
    routing: str | None,
    family: str | None,
    dns: bool | None,
    zone: Path | None,
    history: Path | None,
    metrics: bool | None,
    timeout: float,
    name: str | None,
) -> None:
    """Make a sandbox, fill it with the objects in FILE, and wait until all of it is ready.

    A sandbox that is there already is filled with more, and mended where it does not run; the options that
    shape it cannot be changed.
    """
    from axoneme.cli.writing import populate
    from axoneme.sandbox import lifecycle

    place.sandbox = name or place.sandbox
    found = manifests.read(place, files, recursive)  # before anything is made

    plan = _plan(place, nodes, routing, family, dns, zone, history, metrics)
    report = lifecycle.up(
        plan,
        populate(found.objects, plan.service_ranges()) if found.objects else None,
        progress=lambda step: click.echo(f"  {step}", err=True),
        deadline=timeout,
    )
    found.mention_ignored()
    click.echo(
        f"sandbox {report.name} is ready: {_count(len(report.nodes), 'node')}, {_count(report.pods, 'pod')}, "
        f"{report.routing.value} routing, {' and '.join(report.family.names())}"
    )


def _plan(
    place: Place,
    nodes: int | None,
    routing: str | None,
    family: str | None,
    dns: bool | None,
    zone: Path | None,
    history: Path | None,
    metrics: bool | None,
) -> Plan:
    """What is asked for; for the rest, what a sandbox that is there already has. `Failure` for a bad zone."""
    from msgspec.structs import replace

    from axoneme.sandbox import planfile
    from axoneme.sandbox.plan import Family, Plan, Routing

    layout = place.layout
    plan = planfile.load(layout) if layout.directory.exists() else Plan(name=layout.name)
    return replace(
        plan,
        nodes=plan.nodes if nodes is None else nodes,
        routing=plan.routing if routing is None else Routing(routing),
        family=plan.family if family is None else Family(family),
        dns=plan.dns if dns is None else dns,
        zone=plan.zone if zone is None else _checked(zone),
        history=plan.history if history is None else str(history),
        metrics=plan.metrics if metrics is None else metrics,
    )


def _checked(zone: Path) -> str:
    from axoneme.sandbox.dns.zonefile import BadZone, ZoneNames

    try:
        ZoneNames(zone.read_text("utf-8"), str(zone))
    except (BadZone, UnicodeDecodeError) as failure:
        raise Failure(f"--zone: {failure}") from None
    return str(zone)


@group.command()
@click.option("--all", "every", is_flag=True, help="Every sandbox of this machine.")
@_NAME
@in_sandbox
@click.pass_obj
def down(place: Place, name: str | None, every: bool) -> None:
    """Remove a sandbox with all that is in it, whatever state it is in; other things are left alone."""
    from axoneme.sandbox import lifecycle

    if every and name:
        raise click.UsageError("give --name or --all, not both")
    names = lifecycle.names() if every else [name or place.sandbox]
    for each in names:
        removed = lifecycle.down(each)
        if removed.anything:
            click.echo(
                f"sandbox {each} removed: {_count(removed.pods, 'pod')}, {removed.processes} processes"
            )
        else:
            click.echo(f"there is no sandbox {each}", err=True)
    if not names:
        click.echo("there is no sandbox", err=True)


@group.command()
@click.option("-o", "--output", type=click.Choice(["json"]), help="In which form.")
@_NAME
def status(name: str | None, output: str | None) -> int:
    """List the sandboxes of this machine; ends with 1 when one of them is not ready.

    `axo status` says more about one.
    """
    from axoneme.sandbox import lifecycle

    found = [_look(each) for each in ([name] if name else lifecycle.names())]
    if output:
        click.echo(json.dumps([each.json() for each in found], indent=4))
    elif found:
        headers = ("NAME", "READY", "NODES", "PODS", "ROUTING", "FAMILY", "NOTE")
        show(Table(headers, [each.row() for each in found]))
    else:
        click.echo("there is no sandbox; `axo sandbox up` makes one", err=True)
    return 0 if all(each.ready for each in found) else 1


@dataclass(frozen=True, slots=True)
class _Seen:
    """A sandbox as its supervisor reports it; without a report ``failure`` says why."""

    name: str
    report: SandboxReport | None
    failure: str = ""

    @property
    def ready(self) -> bool:
        return self.report is not None and self.report.ready

    def row(self) -> Sequence[str]:
        report = self.report
        if report is None:
            return (self.name, "no", "-", "-", "-", "-", self.failure)
        return (
            self.name,
            "yes" if report.ready else "no",
            str(len(report.nodes)),
            f"{report.ready_pods}/{report.pods}",
            report.routing.value,
            report.family.value,
            report.waiting[0] if report.waiting else "-",
        )

    def json(self) -> dict[str, object]:
        from msgspec import to_builtins

        if self.report is None:
            return {"name": self.name, "ready": False, "failure": self.failure}
        return {"name": self.name, "ready": self.ready, **to_builtins(self.report)}


def _look(name: str) -> _Seen:
    from axoneme.sandbox import lifecycle
    from axoneme.sandbox.errors import SandboxError

    try:
        return _Seen(name, lifecycle.status(name))
    except SandboxError as failure:
        return _Seen(name, None, str(failure))


@group.command(hidden=True)
@click.argument("name")
def supervise(name: str) -> None:
    """Run the supervisor of a sandbox in the foreground; `axo sandbox up` starts it by itself."""
    from axoneme.sandbox import supervisor

    supervisor.run(name)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
