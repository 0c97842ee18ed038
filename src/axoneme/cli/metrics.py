"""``axo metrics``: dashboards and rules for what agents and flow servers serve."""

from __future__ import annotations

from pathlib import Path

import click

from axoneme.cli.failures import Failure

_PREFIX = click.option("--prefix", default="cilium", show_default=True, help="What metrics.prefix says.")
_FLOWS_PREFIX = click.option(
    "--flows-prefix", default="hubble", show_default=True, help="What metrics.flows_prefix says."
)


@click.group()
def group() -> None:
    """Dashboards and alert rules for metrics."""


@group.command()
@click.option(
    "--write",
    "folder",
    metavar="DIR",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the files go: a folder that Grafana provisions from, for example.",
)
@_PREFIX
@_FLOWS_PREFIX
def dashboards(folder: Path, prefix: str, flows_prefix: str) -> None:
    """Write dashboards for Grafana, one JSON file each."""
    import json

    from axoneme.metrics.provided import dashboards as provided
    from axoneme.metrics.provided import grafana

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, dashboard in provided(prefix, flows_prefix).items():
            path = folder / f"axoneme-{name}.json"
            path.write_text(json.dumps(grafana(dashboard), indent=1) + "\n")
            click.echo(f"{path}: {dashboard.title}")
    except OSError as error:
        raise Failure(f"{error.filename}: {error.strerror}") from error


@group.command()
@_PREFIX
@_FLOWS_PREFIX
def rules(prefix: str, flows_prefix: str) -> None:
    """Print alert rules for Prometheus."""
    from axoneme.metrics.provided import rules as provided

    click.echo(provided(prefix, flows_prefix), nl=False)
