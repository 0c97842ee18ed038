"""`axo top`: the busiest edges of all nodes, their drops, latencies and retransmissions."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from axoneme.cli.completing import complete_nodes
from axoneme.cli.failures import Failure
from axoneme.cli.observe import flow_sockets
from axoneme.cli.place import Place, in_sandbox

if TYPE_CHECKING:
    from axoneme.cli.edgerates import Row
    from axoneme.cli.topview import Sample

_SORTS = ("traffic", "connections", "drops", "rtt", "retransmissions")
_GROUPS = ("workload", "pod", "namespace")
#: Seconds that a node has to answer; and for its flow table to be walked through.
_PATIENCE, _WALK = 3.0, 5.0


@click.command()
@click.option("--once", is_flag=True, help="Print one table and end: for scripts.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    help="With --once: in which form.",
)
@click.option("--interval", type=click.FloatRange(0.5), default=2.0, show_default=True, metavar="SECONDS")
@click.option("--sort", type=click.Choice(_SORTS), default="traffic", show_default=True)
@click.option("--by", "group", type=click.Choice(_GROUPS), default="workload", show_default=True)
@click.option(
    "--match", "text", default="", metavar="WORDS", help="Only edges in whose ends all words stand."
)
@click.option("--most", type=click.IntRange(1), metavar="N", help="With --once: the first N.")
@click.option("--node", multiple=True, shell_complete=complete_nodes, help="Only what these nodes see.")
@in_sandbox
@click.pass_obj
def top(
    place: Place,
    /,
    once: bool,
    output: str,
    interval: float,
    sort: str,
    group: str,
    text: str,
    most: int | None,
    node: tuple[str, ...],
) -> int:
    """Show the busiest edges: who calls whom, how much, what is dropped, how long it takes, what is sent
    again.

    Keys: s sorts by another column, r turns it round, g groups by pod, namespace or workload, / filters,
    space pauses, q ends. Rates are a second's, of the last interval; counting begins with this command.
    """
    sockets = flow_sockets(place, node)
    if once:
        return _once(sockets, interval, sort, group, text, most, output)
    if not sys.stdout.isatty():
        raise click.UsageError("this is no terminal: give --once")
    from axoneme.cli.topview import Top

    Top(str(place), lambda: ask(sockets), interval, sort, group, text).run()
    return 0


async def ask(sockets: Mapping[str, Path]) -> Sample:
    """What all nodes have counted, and why some do not say."""
    from axoneme.flows.edgecounts import EdgeReport
    from axoneme.rpc import AsyncClient, RpcError

    async def one(path: Path) -> EdgeReport | str:
        try:
            return await AsyncClient(path, _PATIENCE).call("flows.edges", None, EdgeReport)
        except RpcError as failure:
            return failure.message

    answers = dict(zip(sockets, await asyncio.gather(*map(one, sockets.values())), strict=True))
    reports = [answer for answer in answers.values() if isinstance(answer, EdgeReport)]
    return reports, {node: answer for node, answer in answers.items() if isinstance(answer, str)}


def _once(
    sockets: Mapping[str, Path],
    interval: float,
    sort: str,
    group: str,
    text: str,
    most: int | None,
    output: str,
) -> int:
    """Counts for so long. Ends with 1 when a node does not answer."""
    from axoneme.cli.edgerates import Rates, matching, ordered

    async def measured() -> tuple[list[Row], Mapping[str, str]]:
        rates = Rates(group)
        loop = asyncio.get_running_loop()
        until = loop.time() + _WALK
        # What is open is known when the flow table was walked through; that goes on all the time.
        reports, absent = await ask(sockets)
        while any(report.walks == 0 for report in reports) and loop.time() < until:
            await asyncio.sleep(0.1)
            reports, absent = await ask(sockets)
        rates.rows(reports)
        await asyncio.sleep(interval)
        reports, absent = await ask(sockets)
        return rates.rows(reports), absent

    rows, absent = asyncio.run(measured())
    for node, why in absent.items():
        click.echo(f"-- {node}: {why}", err=True)
    if len(absent) == len(sockets):
        raise Failure("no node's flow server answers; `axo status` says more")
    shown = ordered(matching(rows, text), sort)[:most]
    if output == "json":
        from msgspec.json import encode

        click.echo(encode(shown).decode())
    else:
        from axoneme.cli.toptable import lines

        width = shutil.get_terminal_size((120, 0)).columns
        click.echo("\n".join(lines(shown, width)))
    return 1 if absent else 0
