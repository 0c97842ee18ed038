"""`axo observe`: flows of all nodes, past and present."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from axoneme.cli import flowoptions
from axoneme.cli.failures import Failure
from axoneme.cli.flowoptions import ObserveCommand, with_filters
from axoneme.cli.place import Place, in_sandbox

if TYPE_CHECKING:
    from axoneme.flows.flow import Flow, Item, ObserveRequest
    from axoneme.rpc import RpcError

#: Flows that are shown when nothing says how many.
_USUAL = 20
#: Lines that are written at once.
_AT_ONCE = 1000


@click.command(cls=ObserveCommand)
@click.option("-f", "--follow", is_flag=True, help="Show flows as they happen, until interrupted.")
@click.option("--last", type=click.IntRange(0), metavar="N", help=f"The last N flows; default: {_USUAL}.")
@click.option("--all", "every", is_flag=True, help="All flows that the nodes have kept.")
@click.option("--since", metavar="TIME", help="From then on: 5m ago, or 2026-01-31T12:00:00Z.")
@click.option("--until", metavar="TIME", help="Up to then.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["compact", "dict", "json", "table"]),
    default="compact",
    show_default=True,
    help="In which form; json has the fields of Hubble's flows.",
)
@with_filters
@in_sandbox
@click.pass_obj
def observe(
    place: Place,
    /,
    follow: bool,
    last: int | None,
    every: bool,
    since: str | None,
    until: str | None,
    output: str,
    **values: Any,
) -> int:
    """Show flows: who talks to whom, what was decided, and by which policies.

    A filter without prefix is about either end. Several values of one filter are alternatives, different
    filters must all hold; `--not` before a filter hides what it matches.

    `axo observe --verdict DROPPED --follow`, `axo observe --namespace shop --not --port 53 --last 100`.
    Ends with 1 when the flows of a node could not be had.
    """
    from axoneme.flows.flow import ObserveRequest

    if every and last is not None:
        raise click.UsageError("give --all or --last N, not both")
    if place.namespace and not values["namespace"]:
        values["namespace"] = (place.namespace,)
    sockets = flow_sockets(place, values["node"])
    shown, hidden = flowoptions.filters(values)
    now = time.time_ns()
    if last is None and not (follow or every or since or until):
        last = _USUAL
    request = ObserveRequest(
        filters=shown,
        not_filters=hidden,
        last=last,
        since=None if since is None else flowoptions.moment(since, "--since", now),
        until=None if until is None else flowoptions.moment(until, "--until", now),
    )
    printer = _Printer(output)
    from axoneme.rpc import INVALID, RpcError

    try:
        _run(sockets, request, follow, every, printer, now)
    except RpcError as failure:
        if failure.code == INVALID:
            raise click.UsageError(failure.message) from None
        raise
    except KeyboardInterrupt:
        return 0  # the way to end it
    if len(printer.absent) == len(sockets):
        raise Failure("no node's flow server answers; `axo status` says more")
    return 1 if printer.absent else 0


def _run(
    sockets: Mapping[str, Path],
    request: ObserveRequest,
    follow: bool,
    every: bool,
    printer: _Printer,
    now: int,
) -> None:
    from msgspec.structs import replace

    from axoneme.relay.merged import live, past

    newest: dict[str, str] = {}
    history = not follow or every or request.last is not None or request.since is not None
    if history:
        printer.show(past(sockets, request, printer.tell_absent, newest))
    if not follow:
        return
    present = replace(request, last=None, since=now if history else None, follow=True)

    async def go_on() -> None:
        async with contextlib.aclosing(live(sockets, present, printer.tell_absent, newest)) as batches:
            async for batch in batches:
                printer.show(batch)

    asyncio.run(go_on())


def flow_sockets(place: Place, wanted: Iterable[str]) -> dict[str, Path]:
    """Of the nodes that are wanted, or all."""
    nodes = place.nodes()
    for name in wanted:
        if name not in nodes:
            raise click.UsageError(f"--node {name}: {place} has no such node; it has {', '.join(nodes)}")
    chosen = [node for node in nodes if node in set(wanted)] or nodes
    if not chosen:
        raise Failure(f"{place} has no nodes yet: it is still being made")
    return {node: place.sockets(node).flows for node in chosen}


class _Printer:
    """Prints items; ``absent`` are the nodes whose flows are missing just now."""

    def __init__(self, form: str) -> None:
        self._json = form == "json"
        self._line = _lines(form)
        self.absent: set[str] = set()

    def show(self, items: Iterable[Item]) -> None:
        from msgspec.json import encode

        from axoneme.flows import render

        lines: list[str] = []  # one write for many
        for item in items:
            if item.flow is not None:
                lines.append(self._line(item.flow))
            if item.lost_events is not None:
                if self._json:
                    lines.append(encode(item).decode())
                else:
                    _print(lines)
                    click.echo(f"-- {render.lost(item.lost_events, item.node_name)}", err=True)
            if len(lines) >= _AT_ONCE:
                _print(lines)
        _print(lines)

    def tell_absent(self, node: str, failure: RpcError | None) -> None:
        if failure is None:
            self.absent.discard(node)
            click.echo(f"-- {node}: its flow server answers again", err=True)
        else:
            self.absent.add(node)
            click.echo(f"-- {node}: no flows from there: {failure.message}", err=True)


def _print(lines: list[str]) -> None:
    if lines:
        click.echo("\n".join(lines))
        lines.clear()


def _lines(form: str) -> Callable[[Flow], str]:
    from axoneme.flows import render

    if form == "json":
        return render.json
    if form == "dict":
        return lambda flow: render.block(flow) + "\n"
    if form == "compact":
        return render.compact
    table = render.Table()
    click.echo(table.header())
    return table.line
