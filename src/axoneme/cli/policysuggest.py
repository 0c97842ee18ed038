"""`axo policy suggest`: policies that let what was recorded pass, and nothing else."""

from __future__ import annotations

import time

import click

from axoneme.cli import flowoptions, recordings, state
from axoneme.cli.failures import Failure
from axoneme.cli.objects import work
from axoneme.cli.place import Place, in_namespace, in_sandbox
from axoneme.model.labels import Labels


@click.command()
@click.option(
    "--since", default="1h", show_default=True, metavar="TIME", help="From what was recorded since."
)
@click.option(
    "--kind",
    type=click.Choice(["auto", "cilium"]),
    default="auto",
    show_default=True,
    help="auto: a NetworkPolicy where it can say all of it.",
)
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True)
@in_namespace
@in_sandbox
@click.pass_obj
def suggest(place: Place, since: str, kind: str, output: str) -> int:
    """Write least-privilege policies for a namespace (-n), from what was recorded.

    One for each workload that was seen, by its labels. Requests (HTTP, DNS, Kafka) become rules where they
    were looked at, addresses outside become DNS names where the DNS proxy has answered with them. What was
    not recorded is not allowed: look over a time in which everything has happened that shall go on.
    """
    import yaml

    from axoneme.edges.suggest import suggest as write

    began = flowoptions.moment(since, "--since", time.time_ns())
    pods = work(place, state.endpoints)
    found = write(
        recordings.recorded(place, began),
        place.in_namespace,
        [Labels.parse(each.labels) for each in pods],
        cilium_only=kind == "cilium",
    )
    for edge in found.unsaid:
        click.echo(f"-- no policy can say this: {edge}", err=True)
    if not found.policies:
        raise Failure(f"no flows of pods in namespace {place.in_namespace} were recorded since {since}")
    seen = {subject.workload.rpartition("/")[2] for subject in found.subjects}
    there = {each.workload or each.pod for each in pods if each.namespace == place.in_namespace}
    idle = sorted(there - seen)
    if idle:
        click.echo(f"-- nothing was seen of {', '.join(idle)}: no policy for them", err=True)
    if output == "json":
        import json

        click.echo(json.dumps({"apiVersion": "v1", "kind": "List", "items": found.policies}, indent=4))
    else:
        click.echo(yaml.safe_dump_all(found.policies, sort_keys=False), nl=False)
    return 0
