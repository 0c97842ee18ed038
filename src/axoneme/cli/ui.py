"""`axo ui`: the web UI of a sandbox, of this machine, or of what a configuration file names."""

from __future__ import annotations

import logging
import os
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from axoneme.cli.failures import Failure
from axoneme.cli.place import Place

if TYPE_CHECKING:
    from axoneme.sources.config import StoreConfig
    from axoneme.ui.config import UiConfig

_USUAL = "127.0.0.1:12000"


@click.command()
@click.option("--sandbox", metavar="NAME", envvar="AXO_SANDBOX", help="Of which sandbox; default: 'default'.")
@click.option(
    "--config",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The UI's own configuration file (docs/ui.md), in place of all other options.",
)
@click.option(
    "--listen", default=_USUAL, show_default=True, metavar="ADDRESS:PORT", help="Where to serve it."
)
@click.option("--prefix", default="", metavar="PATH", help="The path below which everything is, as /axoneme.")
@click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="A name by which browsers call it, besides addresses.",
)
@click.option(
    "--certificate", default="", metavar="FILE", help="For TLS, which other addresses than loopback need."
)
@click.option("--key", default="", metavar="FILE", help="Of the certificate.")
@click.option(
    "--token-file",
    default="",
    metavar="FILE",
    help="Tokens to log in with, one a line; default: one that is made, and printed.",
)
@click.option("--no-login", is_flag=True, help="Let everybody on this machine in; on loopback only.")
@click.pass_obj
def ui(
    place: Place,
    sandbox: str | None,
    config: Path | None,
    listen: str,
    prefix: str,
    hosts: tuple[str, ...],
    certificate: str,
    key: str,
    token_file: str,
    no_login: bool,
) -> int:
    """Serve the web UI, until interrupted: service map, flows, policies, nodes.

    `axo ui --sandbox demo` prints an address, and the token to log in with.
    """
    from axoneme.ui import main
    from axoneme.ui.config import NodeConfig, UiConfig

    logging.basicConfig(stream=sys.stderr, level="WARNING", format="%(levelname)s %(message)s")
    if config:
        main.run(config)
        return 0
    if sandbox:
        place.sandbox, place.named = sandbox, True
    directory, store = _whereabouts(place)
    token = Path(token_file) if token_file else directory / "ui-token"
    if not token_file and not no_login:
        _make_token(token)
    sockets = {node: place.sockets(node) for node in place.nodes()}
    if not sockets:
        raise Failure(f"{place} has no nodes yet: it is still being made")
    machine = place.machine
    wanted = UiConfig(
        place=str(place),
        listen=listen,
        prefix=prefix.rstrip("/"),
        hosts=list(hosts),
        certificate=certificate,
        key=key,
        login="none" if no_login else "token",
        token_file="" if no_login else str(token),
        nodes={
            node: NodeConfig(str(each.flows), str(each.agent), _history(place, node))
            for node, each in sockets.items()
        },
        store=store,
        enforcement=machine.enforcement if machine else "default",
    )
    try:
        wanted.check()
    except ValueError as error:
        raise Failure(str(error)) from error
    _say(place, wanted, "" if no_login or token_file else token.read_text().strip())
    main.run_with(wanted)
    return 0


def _whereabouts(place: Place) -> tuple[Path, StoreConfig]:
    """Where a token may be kept, and the shared state."""
    from axoneme.sources.config import StoreConfig

    if machine := place.machine:
        return Path(machine.directory), machine.store
    layout = place.existing
    return layout.directory, StoreConfig(path=str(layout.store))


def _history(place: Place, node: str) -> str:
    """The folder in which the node keeps its flows; empty where it keeps none."""
    from axoneme.history.sources import of_node

    config = place.config if place.machine and place.config else place.existing.node(node).config
    found = of_node(config).history
    return str(found) if found else ""


def _make_token(path: Path) -> None:
    """Where there is none yet: a browser can keep it over restarts."""
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(24) + "\n")


def _say(place: Place, config: UiConfig, token: str) -> None:
    host, port = config.address()
    shown = f"[{host}]" if ":" in host else host or "0.0.0.0"
    scheme = "https" if config.certificate else "http"
    click.echo(f"{place}: {scheme}://{shown}:{port}{config.prefix}/")
    if token:
        click.echo(f"token: {token}")
