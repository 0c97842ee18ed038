"""`axo agent`, `axo history`, `axo flows serve`, `axo proxy` and `axo operator` with options beyond the
plain ``--config`` that `daemons` knows, and `axo leave` for after them."""

from __future__ import annotations

from pathlib import Path

import click

from axoneme.cli.daemons import Daemon, Role, run
from axoneme.cli.loglevel import LOG_LEVEL
from axoneme.proxy.plan import KINDS

_CONFIG = click.option(
    "--config",
    required=True,
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The node's configuration.",
)


@click.command()
@_CONFIG
@LOG_LEVEL
def agent(config: Path, log_level: str) -> int:
    """Run the agent of a node: identities, policies, addresses, and the datapath of its pods."""
    return run(Daemon(Role.AGENT, config, log_level))


@click.command()
@click.argument("kind", type=click.Choice(KINDS))
@_CONFIG
@LOG_LEVEL
def proxy(kind: str, config: Path, log_level: str) -> int:
    """Run a proxy of a node, for connections that policies look into: KIND is envoy (HTTP, gRPC, TLS), kafka
    or dns."""
    return run(Daemon(Role(f"proxy {kind}"), config, log_level))


@click.command()
@_CONFIG
@LOG_LEVEL
def operator(config: Path, log_level: str) -> int:
    """Run the operator of a cluster: it gives services of type LoadBalancer their addresses.

    Where several run, one works, and another takes over when it ends.
    """
    return run(Daemon(Role.OPERATOR, config, log_level))


@click.command()
@_CONFIG
@click.option("--force", is_flag=True, help="Cut containers off that are still attached.")
def leave(config: Path, force: bool) -> None:
    """Take this machine out of the network for good, once its agent has been stopped.

    Removes what agents have left for their successors: programs and tables, interfaces, routes, the network
    of container runtimes, and the node from the shared state. Objects, such as policies, stay.
    """
    from axoneme.agent.config import load
    from axoneme.agent.leave import StillInUse
    from axoneme.agent.leave import leave as take_away
    from axoneme.cli.failures import Failure

    try:
        for line in take_away(load(config), force):
            click.echo(f"removed {line}")
    except StillInUse as error:
        raise Failure(str(error)) from error


@click.command()
@_CONFIG
@LOG_LEVEL
def history(config: Path, log_level: str) -> int:
    """Keep the flows of a node on disk, as Parquet files: what `history` in its configuration says."""
    return run(Daemon(Role.HISTORY, config, log_level))


@click.command()
@_CONFIG
@LOG_LEVEL
def serve(config: Path, log_level: str) -> int:
    """Run the flow server of a node: it reads events of the datapath, and answers `axo observe`."""
    return run(Daemon(Role.FLOWS, config, log_level))
