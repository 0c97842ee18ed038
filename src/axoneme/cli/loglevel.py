"""How much a process says in its log: an option of those that run one."""

from __future__ import annotations

import click

LOG_LEVEL = click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="What is worth a line in the log.",
)
