"""`axo doctor`: what is broken, by which evidence, and what to do about it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from axoneme.cli.failures import Failure
from axoneme.cli.place import Place, in_sandbox

if TYPE_CHECKING:
    from axoneme.doctor.examine import Patient
    from axoneme.doctor.findings import Diagnosis, Placed

_COLOURS = {"error": "red", "warning": "yellow"}


@click.command()
@click.option("-o", "--output", type=click.Choice(["json"]), help="In which form.")
@in_sandbox
@click.pass_obj
def doctor(place: Place, output: str | None) -> int:
    """Find out what is wrong, from cause to cause.

    Looks at the kernel, what is attached and pinned, devices, routes, the shared state and the agent, has the
    agent try every way to the other nodes, and tells causes, not symptoms. Changes nothing. Ends with 1 when
    there are findings.
    """
    from axoneme.doctor.examine import examine

    diagnosis = examine(dict(_patients(place)))
    if output:
        click.echo(json.dumps(_json(diagnosis), indent=4))
    else:
        click.echo("\n".join(_lines(diagnosis)))
    return 0 if diagnosis.healthy else 1


def _patients(place: Place) -> Iterator[tuple[str, Patient]]:
    """This machine as a node, or all nodes of the sandbox."""
    from axoneme.agent.config import load
    from axoneme.doctor.examine import Patient

    if machine := place.machine:
        yield machine.node, Patient(machine)
        return
    layout = place.existing
    for name in place.nodes():
        namespace = layout.namespace(name)
        if not namespace.exists():
            raise Failure(f"node {name}: its network namespace {namespace} is gone; make the sandbox anew")
        yield name, Patient(load(layout.node(name).config), namespace)


def _lines(diagnosis: Diagnosis) -> Iterator[str]:
    for placed in diagnosis.findings:
        yield from _finding(placed)
        yield ""
    nodes = ", ".join(diagnosis.nodes)
    if diagnosis.healthy:
        yield f"{nodes}: nothing is wrong ({len(diagnosis.silent)} checks)"
    else:
        count = len(diagnosis.findings)
        said = "1 finding" if count == 1 else f"{count} findings"
        yield f"{nodes}: {said}; all well: {', '.join(diagnosis.silent)}"


def _finding(placed: Placed) -> Iterator[str]:
    finding = placed.finding
    severity = finding.severity.value
    yield click.style(severity, fg=_COLOURS.get(severity)) + f"  {placed.sentence}"
    for each in finding.evidence:
        yield f"  evidence     {each}"
    yield f"  remedy       {finding.remedy}"
    for each in placed.consequences:
        yield f"  consequence  {each}"


def _json(diagnosis: Diagnosis) -> dict[str, Any]:
    return {
        "healthy": diagnosis.healthy,
        "nodes": list(diagnosis.nodes),
        "findings": [
            {
                "node": placed.node,
                "check": placed.check,
                "severity": placed.finding.severity.value,
                "hop": placed.finding.hop,
                "peer": placed.finding.peer,
                "what": placed.finding.what,
                "evidence": list(placed.finding.evidence),
                "remedy": placed.finding.remedy,
                "consequences": list(placed.consequences),
            }
            for placed in diagnosis.findings
        ],
        "silent": list(diagnosis.silent),
    }
