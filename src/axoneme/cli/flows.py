"""`axo flows`: the flow server, and questions about flows."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from axoneme.cli.failures import Failure
from axoneme.cli.flowoptions import moment
from axoneme.cli.place import Place, in_sandbox
from axoneme.cli.root import Entry, Lazy

if TYPE_CHECKING:
    import pyarrow as pa

    from axoneme.history.sources import Source

COMMANDS: dict[str, dict[str, Entry]] = {
    "Questions": {
        "sql": Entry("flows:sql", "Ask in SQL: SELECT … FROM flows."),
        "columns": Entry("flows:columns", "The columns of the table flows."),
        "history": Entry("flows:history", "What is recorded on disk."),
        "exports": Entry("flows:exports", "What goes to files and collectors."),
    },
    "Processes": {
        "serve": Entry("processes:serve", "Run the flow server of a node."),
    },
}


@click.group(cls=Lazy, table=COMMANDS)
def group() -> None:
    """Ask recorded and present flows in SQL; run the flow server of a node."""


@click.command()
@click.argument("query")
@click.option("--since", metavar="TIME", help="Look only at flows from then on: 5m ago, or a time.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json", "csv"]),
    default="table",
    show_default=True,
    help="In which form; json is one object a line.",
)
@in_sandbox
@click.pass_obj
def sql(place: Place, /, query: str, since: str | None, output: str) -> None:
    """Answer QUERY, a SELECT of DuckDB's SQL, over the table `flows`: what the nodes have in memory and,
    where history is kept, what they have on disk. `axo flows columns` lists the table's columns.

    axo flows sql "SELECT source_pod, count(*) FROM flows WHERE verdict = 'DROPPED' GROUP BY 1"
    """
    import time

    needed()
    from axoneme.history.sql import query as ask

    begin = 0 if since is None else moment(since, "--since", time.time_ns())
    _print(ask(sources(place), query, begin), output)


@click.command()
def columns() -> None:
    """The columns of the table `flows`, which are those of the Parquet files too."""
    needed()
    from axoneme.cli.tables import Table, show
    from axoneme.history.schema import COLUMNS

    show(Table(("COLUMN", "TYPE", "MEANING"), [(each.name, each.sql, each.meaning) for each in COLUMNS]))


@click.command()
@in_sandbox
@click.pass_obj
def history(place: Place, /) -> int:
    """What the nodes have recorded on disk. Ends with 1 where a node that should does not record."""
    needed()
    from axoneme.cli.tables import Table, show
    from axoneme.flows.render import size
    from axoneme.history.recorded import NodeHistory
    from axoneme.history.sources import load
    from axoneme.history.status import RecordingStatus
    from axoneme.rpc import Client, RpcError

    rows: list[Sequence[str]] = []
    problems: list[str] = []
    for source in sources(place):
        if source.history is None:
            rows.append((source.node, "off", "", "", "", "", "", ""))
            continue
        span = NodeHistory(source.history).span()
        first, last = (_moment(each) for each in span) if span else ("", "")
        try:
            status = Client(load(place.configuration(source.node)).socket).call(
                "status", result=RecordingStatus
            )
        except RpcError as error:
            rows.append((source.node, "no", str(source.history), "", "", first, last, ""))
            problems.append(f"{source.node}: {error.message}")
            continue
        problems.extend(f"{source.node}: {each}" for each in status.problems)
        rows.append(
            (
                source.node,
                "no" if status.problems else "yes",
                status.directory,
                str(status.tables + status.spools),
                f"{size(status.bytes)} of {size(status.most_bytes)}",
                first,
                last,
                str(status.lost),
            )
        )
    show(Table(("NODE", "RECORDS", "DIRECTORY", "FILES", "SIZE", "FIRST", "LAST", "LOST"), rows))
    for problem in problems:
        click.echo(problem, err=True)
    return 1 if problems else 0


@click.command()
@in_sandbox
@click.pass_obj
def exports(place: Place, /) -> int:
    """Which flows go to files and collectors, and how many did. Ends with 1 where something does not work."""
    from axoneme.cli.tables import Table, show
    from axoneme.rpc import Client

    rows: list[Sequence[str]] = []
    problems: list[str] = []
    for node in place.nodes():
        for each in Client(place.sockets(node).flows).call("flows.exports"):
            name, problem = each["name"], each["problem"]
            if problem:
                problems.append(f"{node}: {f'export {name}: ' if name else ''}{problem}")
            if name:
                counts = (str(each["exported"]), str(each["lost"]))
                rows.append((node, name, each["target"], "no" if problem else "yes", *counts))
    show(Table(("NODE", "NAME", "TARGET", "WORKS", "EXPORTED", "LOST"), rows))
    for problem in problems:
        click.echo(problem, err=True)
    return 1 if problems else 0


def sources(place: Place) -> list[Source]:
    """Of all nodes that can be asked from here."""
    from axoneme.history.sources import of_node

    return [of_node(place.configuration(node)) for node in place.nodes()]


def needed() -> None:
    """`Failure` where the libraries for history are not installed."""
    from importlib.util import find_spec

    missing = [name for name in ("duckdb", "pyarrow") if find_spec(name) is None]
    if missing:
        raise Failure(f"this needs {' and '.join(missing)}; `pip install 'axoneme[history]'` brings them")


def _moment(time: int) -> str:
    from datetime import datetime

    return f"{datetime.fromtimestamp(time / 1e9).astimezone():%Y-%m-%d %H:%M:%S}"


def _print(answer: pa.Table, form: str) -> None:
    names = answer.column_names
    if form == "json":
        from msgspec.json import encode

        for row in zip(*map(_values, answer.columns), strict=True):
            line = encode(dict(zip(names, row, strict=True)), enc_hook=str)
            click.echo(line.decode())
    elif form == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(zip(*map(_texts, answer.columns), strict=True))
    else:
        from axoneme.cli.tables import Table, show

        show(Table(names, list(zip(*map(_texts, answer.columns), strict=True))))


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Times as text, of which Python's own have too few digits."""
    import numpy as np
    import pyarrow as pa

    if not pa.types.is_timestamp(column.type):
        return list(column.to_pylist())
    numbers = column.cast(pa.timestamp(column.type.unit)).to_numpy()
    texts = np.datetime_as_string(numbers).tolist()
    zone = "Z" if column.type.tz else ""
    return [None if text == "NaT" else f"{text}{zone}" for text in texts]


def _texts(column: pa.ChunkedArray) -> list[str]:
    return [
        "" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        for value in _values(column)
    ]
