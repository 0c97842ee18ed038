"""Tables on standard output: plain columns for programs and pipes, with colour for a person at a terminal.

Both show the same cells in the same order; a script that reads them sees no difference between machines.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import click

_GAP = "   "
_COLOURS = {
    "Running": "green",
    "Ready": "green",
    "Active": "green",
    "True": "green",
    "ready": "green",
    "yes": "green",
    "Completed": "bright_black",
    "Succeeded": "bright_black",
    "Pending": "yellow",
    "ContainerCreating": "yellow",
    "Terminating": "yellow",
    "False": "red",
    "Failed": "red",
    "Error": "red",
    "CrashLoopBackOff": "red",
    "NotReady": "red",
    "no": "red",
}


@dataclass
class Table:
    """Empty cells are shown as ``<none>``."""

    headers: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)

    def cells(self) -> list[list[str]]:
        return [[cell or "<none>" for cell in row] for row in self.rows]


def plain(table: Table, headers: bool = True) -> str:
    """Columns as wide as their widest cell, three spaces between them."""
    lines = [list(table.headers), *table.cells()] if headers else table.cells()
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)] if lines else []
    return "".join(
        _GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n"
        for line in lines
    )


def show(table: Table, headers: bool = True) -> None:
    """Prints the table in the form that the reader can use."""
    if sys.stdout.isatty():
        _rich(table, headers)
    else:
        click.echo(plain(table, headers), nl=False)


def _rich(table: Table, headers: bool) -> None:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(
        box=None, show_header=headers, header_style="bold", pad_edge=False, padding=(0, len(_GAP), 0, 0)
    )
    for header in table.headers:
        drawn.add_column(header, no_wrap=True)
    for row in table.cells():
        drawn.add_row(*(Text(cell, _COLOURS.get(cell, "")) for cell in row))
    console = Console()
    # A line that is too long is broken by the terminal, not cut off: it can be copied whole.
    wide = max((len(line) for line in plain(table).splitlines()), default=0) + len(_GAP)
    console.print(drawn, width=max(console.width, wide), soft_wrap=True)
