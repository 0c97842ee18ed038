"""`axo names`: what nodes know of DNS names, and what `axo status` says of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from axoneme.cli.completing import complete_nodes
from axoneme.cli.failures import Failure
from axoneme.cli.place import Place, in_sandbox
from axoneme.cli.tables import Table, show
from axoneme.model.names import canonical

if TYPE_CHECKING:
    from axoneme.identity.nameview import NameLine, NamesSummary

#: Seconds that an agent may take for an answer.
_PATIENCE = 5.0
_HEADERS = ("NAME", "ADDRESS", "TTL", "IDENTITY", "SELECTORS", "TOLD", "NODE")


@click.command()
@click.argument("wanted", nargs=-1, metavar="[NAME]...")
@click.option(
    "--node", "at", multiple=True, metavar="NODE", shell_complete=complete_nodes, help="Only this one."
)
@click.option("-o", "--output", type=click.Choice(["json"]), help="In which form, instead of a table.")
@in_sandbox
@click.pass_obj
def names(place: Place, wanted: tuple[str, ...], at: tuple[str, ...], output: str | None) -> int:
    """List the addresses of DNS names that workloads were told, of names that policies select by.

    TTL is for how many seconds an address counts on at least, IDENTITY what it has by its names, SELECTORS
    what of policies matches the name, TOLD which pods have asked.
    """
    from axoneme.identity.nameview import NameLine
    from axoneme.rpc import Client, RpcError

    nodes = place.nodes()
    for name in at:
        if name not in nodes:
            raise click.UsageError(f"--node {name}: {place} has no such node; it has {', '.join(nodes)}")
    found: dict[str, list[NameLine]] = {}
    for node in at or nodes:
        try:
            lines = Client(place.sockets(node).agent, _PATIENCE).call("names.list", None, list[NameLine])
        except RpcError as failure:
            click.echo(f"-- node {node}: its agent does not answer: {failure.message}", err=True)
            continue
        asked = set(map(canonical, wanted))
        found[node] = [line for line in lines if not wanted or line.name in asked]
    if not found:
        raise Failure("no node's agent tells of names; `axo status` says more")
    if output:
        click.echo(
            json.dumps([_plain(line, node) for node, lines in found.items() for line in lines], indent=4)
        )
    else:
        show(Table(_HEADERS, [_row(line, node) for node, lines in found.items() for line in lines]))
    return 1 if len(found) < len(at or nodes) else 0


def _row(line: NameLine, node: str) -> Sequence[str]:
    return (
        line.name,
        line.address,
        str(line.ttl),
        str(line.identity or "-"),
        ",".join(line.selectors) or "-",
        ",".join(line.endpoints),
        node,
    )


def _plain(line: NameLine, node: str) -> object:
    import msgspec

    return {"node": node, **msgspec.structs.asdict(line)}


def line(summaries: Mapping[str, NamesSummary]) -> str:
    """One for all nodes: each knows what its own pods were told."""
    of_most = max(summaries.values(), key=lambda each: each.selectors)
    names, addresses = (sum(getattr(s, what) for s in summaries.values()) for what in ("names", "addresses"))
    return (
        f"DNS names: policies select by {of_most.selectors}; "
        f"{names} names with {addresses} addresses known on {len(summaries)} nodes"
    )
