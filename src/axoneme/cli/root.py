"""The root of the commands."""

import click

from axoneme import __version__


@click.group()
@click.version_option(__version__)
def cli() -> None:
    """Connect, secure and observe workloads."""
