"""`axo sandbox`: making, removing and looking at sandboxes."""

from __future__ import annotations

from collections.abc import Sequence

import click

from axoneme.cli import manifests
from axoneme.cli.place import Place, in_namespace, in_sandbox
from axoneme.cli.tables import Table, show

_NAME = click.option("--name", metavar="NAME", help="Which sandbox; default: as --sandbox says.")


@click.group()
def group() -> None:
    """Make, remove and look at sandboxes: small clusters on this machine."""


@group.command()
@manifests.with_files(required=False)
@click.option("--nodes", type=click.IntRange(1, 64), default=2, show_default=True, help="How many nodes.")
@click.option(
    "--routing",
    type=click.Choice(["overlay", "native"]),
    default="overlay",
    show_default=True,
    help="How packets get from node to node: in VXLAN, or by routes.",
)
@click.option(
    "--family",
    type=click.Choice(["ipv4", "ipv6", "dual"]),
    default="dual",
    show_default=True,
    help="Which addresses pods have.",
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
    nodes: int,
    routing: str,
    family: str,
    timeout: float,
    name: str | None,
) -> None:
    """Make a sandbox, fill it with the objects in FILE, and wait until all of it is ready.

    A sandbox that is there already with the same options is filled with more.
    """
    from axoneme.cli.writing import populate
    from axoneme.sandbox import lifecycle
    from axoneme.sandbox.plan import Family, Plan, Routing

    place.sandbox = name or place.sandbox
    found = manifests.read(place, files, recursive)  # before anything is made

    report = lifecycle.up(
        Plan(name=place.sandbox, nodes=nodes, routing=Routing(routing), family=Family(family)),
        populate(found.objects) if found.objects else None,
        progress=lambda step: click.echo(f"  {step}", err=True),
        deadline=timeout,
    )
    found.mention_ignored()
    click.echo(
        f"sandbox {report.name} is ready: {_count(len(report.nodes), 'node')}, {_count(report.pods, 'pod')}, "
        f"{report.routing.value} routing, {' and '.join(report.family.names())}"
    )


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
@_NAME
@click.pass_obj
def status(place: Place, name: str | None) -> int:
    """List the sandboxes of this machine; ends with 1 when one of them is not ready.

    `axo status` says more about one.
    """
    from axoneme.sandbox import lifecycle

    names = [name] if name else lifecycle.names()
    if not names:
        click.echo("there is no sandbox; `axo sandbox up` makes one", err=True)
        return 0
    rows = [_row(each) for each in names]
    show(Table(("NAME", "READY", "NODES", "PODS", "ROUTING", "FAMILY", "NOTE"), rows))
    return 0 if all(row[1] == "yes" for row in rows) else 1


@group.command(hidden=True)
@click.argument("name")
def supervise(name: str) -> None:
    """Run the supervisor of a sandbox in the foreground; `axo sandbox up` starts it by itself."""
    from axoneme.sandbox import supervisor

    supervisor.run(name)


def _row(name: str) -> Sequence[str]:
    from axoneme.sandbox import lifecycle
    from axoneme.sandbox.errors import SandboxError

    try:
        report = lifecycle.status(name)
    except SandboxError as failure:
        return [name, "no", "-", "-", "-", "-", str(failure)]
    return [
        name,
        "yes" if report.ready else "no",
        str(len(report.nodes)),
        f"{report.ready_pods}/{report.pods}",
        report.routing.value,
        report.family.value,
        report.waiting[0] if report.waiting else "-",
    ]


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
