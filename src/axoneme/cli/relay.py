"""`axo relay`: the flows of all nodes at one address."""

from __future__ import annotations

from pathlib import Path

import click

from axoneme.cli.daemons import Daemon, Role
from axoneme.cli.daemons import run as run_daemon
from axoneme.cli.failures import Failure
from axoneme.cli.loglevel import LOG_LEVEL
from axoneme.cli.place import Place

_USUAL = "127.0.0.1:4245"


@click.command()
@click.option("--sandbox", metavar="NAME", envvar="AXO_SANDBOX", help="Of which sandbox; default: 'default'.")
@click.option(
    "--config",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The relay's configuration file (docs/relay.md), in place of a sandbox.",
)
@click.option(
    "--listen",
    default=_USUAL,
    show_default=True,
    metavar="ADDRESS:PORT",
    help="Of this machine, or unix:///PATH; only for a sandbox.",
)
@LOG_LEVEL
@click.pass_obj
def relay(place: Place, sandbox: str | None, config: Path | None, listen: str, log_level: str) -> int:
    """Serve the flows of all nodes at one address, until interrupted, as Hubble's relay does.

    `axo relay --sandbox demo`, and then `hubble observe --follow`.
    """
    if config is not None and sandbox is None:
        return run_daemon(Daemon(Role.RELAY, config, log_level))
    if config is not None:
        raise click.UsageError("give --config or --sandbox, not both")
    if sandbox:
        place.sandbox, place.named = sandbox, True
    nodes = place.existing.nodes
    from axoneme.hubble.address import Address
    from axoneme.relay.main import run_for_folders

    try:
        address = Address.parse(listen)
    except ValueError as error:
        raise click.UsageError(f"--listen: {error}") from None
    if not address.local:
        raise Failure(f"--listen {listen}: a sandbox has no certificates for others; listen at {_USUAL}")
    run_for_folders(nodes, address, lambda reached: click.echo(f"{place}: {reached}"))
    return 0
