"""`axo policy lint`: traps in policies, of files or of a running sandbox."""

from __future__ import annotations

import ipaddress
import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from axoneme.cli import manifests, state
from axoneme.cli.kinds import KINDS
from axoneme.cli.objects import listing, work
from axoneme.cli.place import Place, in_namespace, in_sandbox
from axoneme.model.manifests import CIDR_GROUP, Manifest, load
from axoneme.model.policies import POLICY_KINDS
from axoneme.model.policy import Network
from axoneme.sources.store import Store

if TYPE_CHECKING:
    from axoneme.lint.findings import Finding
    from axoneme.lint.surroundings import Surroundings

#: The exit code where there are errors, or with --strict warnings.
TRAPPED = 1

_COLOURS = {"error": "red", "warning": "yellow", "note": "bright_black"}


@click.command()
@click.argument("files", nargs=-1, metavar="[FILE|DIR|-]...", type=click.Path(exists=True, allow_dash=True))
@click.option("-R", "--recursive", is_flag=True, help="Of a folder, read the folders in it as well.")
@click.option("--strict", is_flag=True, help="End with 1 for warnings too.")
@click.option("--ignore", multiple=True, metavar="CODE", help="Leave out findings of this code.")
@click.option(
    "--pod-cidr",
    "ranges",
    multiple=True,
    metavar="RANGE",
    help="Where pods and nodes have their addresses; default: a sandbox's pod ranges.",
)
@click.option("-o", "--output", type=click.Choice(["json"]), help="In which form.")
@in_namespace
@in_sandbox
@click.pass_obj
def lint(
    place: Place,
    files: Sequence[str],
    recursive: bool,
    strict: bool,
    ignore: Sequence[str],
    ranges: Sequence[str],
    output: str | None,
) -> int:
    """Find traps in policies: what says something else than it seems to say.

    Of the policies in FILE, against the workloads in FILE; without FILE those of the running sandbox,
    against its pods. Ends with 1 when there are errors. docs/policy-tools.md lists all codes.
    """
    from axoneme.lint.findings import TRAPS
    from axoneme.lint.linter import lint as look

    if unknown := sorted(set(ignore) - {trap.code for trap in TRAPS}):
        raise click.UsageError(f"--ignore {unknown[0]}: there is no such code")
    own = tuple(map(_network, ranges))
    if files:
        found, known = _of_files(place, files, recursive, own)
    else:
        found, known = work(place, lambda store: _of_sandbox(store, own))
    findings = [each for each in look(found, known) if each.trap.code not in ignore]
    counts = Counter(each.trap.severity.value for each in findings)
    if output:
        click.echo(json.dumps([_json(each) for each in findings], indent=4))
    else:
        explained: set[str] = set()
        for each in findings:
            click.echo(_text(each, brief=each.trap.code in explained))
            explained.add(each.trap.code)
        policies = sum(each.kind in POLICY_KINDS for each in found)
        click.echo(
            ", ".join(f"{counts[name]} {name}{'' if counts[name] == 1 else 's'}" for name in _COLOURS)
            + f" in {policies} {'policy' if policies == 1 else 'policies'}"
        )
    return TRAPPED if counts["error"] or (strict and counts["warning"]) else 0


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise click.UsageError(f"--pod-cidr {text}: {error}") from None


# ---- what is looked at ---------------------------------------------------------------------------------


def _of_files(
    place: Place, files: Sequence[str], recursive: bool, ranges: tuple[Network, ...]
) -> tuple[list[Manifest], Surroundings]:
    from axoneme.lint.surroundings import POD_RANGES, of_manifests

    found = [
        manifest
        for origin, text in manifests.texts(files, recursive)
        for manifest in load(text, origin, namespace=place.in_namespace)
    ]
    return found, of_manifests(found, ranges or POD_RANGES)


async def _of_sandbox(store: Store, ranges: tuple[Network, ...]) -> tuple[list[Manifest], Surroundings]:
    from axoneme.lint.surroundings import of_cluster

    found = [
        manifest
        for kind in KINDS
        if kind.name in (*POLICY_KINDS, CIDR_GROUP, "Service")
        for stored in await listing(store, kind, None)
        for manifest in load(stored.value.decode(), str(stored))
    ]
    nodes = await state.nodes(store)
    return found, of_cluster(found, await state.endpoints(store), nodes.values(), ranges)


# ---- what is said --------------------------------------------------------------------------------------


def _text(finding: Finding, brief: bool) -> str:
    """``brief``: what a trap is has been said before."""
    trap = finding.trap
    name = click.style(f"{trap.severity.value} {trap.code}", fg=_COLOURS[trap.severity.value])
    lines = [
        f"{finding.object} ({finding.origin}): {finding.path}",
        f"  {name} {trap.title}: {finding.what}",
        *([] if brief else [f"    {trap.why}", f"    {trap.remedy}"]),
    ]
    return "\n".join(lines)


def _json(finding: Finding) -> dict[str, object]:
    trap = finding.trap
    return {
        "code": trap.code,
        "severity": trap.severity.value,
        "title": trap.title,
        "object": {"kind": finding.kind, "namespace": finding.namespace, "name": finding.name},
        "origin": finding.origin,
        "path": finding.path,
        "found": finding.what,
        "why": trap.why,
        "remedy": trap.remedy,
    }
