"""`axo lb`: the standalone load balancer, run here or asked through its API."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from axoneme.cli.ages import short
from axoneme.cli.failures import Failure
from axoneme.cli.loglevel import LOG_LEVEL
from axoneme.cli.root import Entry, Lazy
from axoneme.cli.tables import Table, show

if TYPE_CHECKING:
    from axoneme.balancer.client import Client
    from axoneme.balancer.reports import BackendReport, ServiceReport, StatusReport

F = TypeVar("F", bound=Callable[..., Any])

COMMANDS: dict[str, dict[str, Entry]] = {
    "Running": {
        "run": Entry("balancer:run", "Run the load balancer of this machine."),
        "check": Entry("balancer:check", "Say whether a file could be run."),
    },
    "Looking": {
        "status": Entry("balancer:status", "How it is."),
        "services": Entry("balancer:services", "List services."),
        "backends": Entry("balancer:backends", "List backends with their states."),
        "connections": Entry("balancer:connections", "List connections of clients."),
    },
    "Changing": {
        "drain": Entry("balancer:drain", "Give a backend no new connections."),
        "undrain": Entry("balancer:undrain", "Give a backend connections again."),
        "apply": Entry("balancer:apply", "Put what a file says in the place of what is wanted now."),
    },
}

DEFAULT_SOCKET = "/run/axoneme/lb/api.sock"
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(cls=Lazy, table=COMMANDS)
@click.option(
    "--socket",
    metavar="FILE",
    envvar="AXO_LB_SOCKET",
    default=DEFAULT_SOCKET,
    show_default=True,
    type=click.Path(path_type=Path),
    help="Where it answers.",
)
@click.pass_context
def group(context: click.Context, socket: Path) -> None:
    """The standalone load balancer: the datapath's services on a machine without a cluster."""
    context.obj = socket


def _with_output(command: F) -> F:
    return click.option(
        "-o", "--output", type=click.Choice(["json", "yaml"]), help="In which form, instead of a table."
    )(command)


def _client(socket: Path) -> Client:
    from axoneme.balancer.client import Client

    return Client(socket)


# ---- running -----------------------------------------------------------------------------------


@click.command()
@click.option("--config", required=True, metavar="FILE", type=_FILE, help="What to balance, and where.")
@LOG_LEVEL
def run(config: Path, log_level: str) -> int:
    """Run the load balancer in the foreground. When it ends, what it has set up goes on working."""
    from axoneme.cli.daemons import Daemon, Role
    from axoneme.cli.daemons import run as run_daemon

    return run_daemon(Daemon(Role.BALANCER, config, log_level))


@click.command()
@click.argument("file", type=_FILE)
def check(file: Path) -> int:
    """Say whether FILE could be run, without touching anything. Ends with 1 when not."""
    from axoneme.balancer.config import load
    from axoneme.model.balancer import version
    from axoneme.services.standalone import assign

    config, desired = load(file)
    assign(desired, {})
    where = "" if config.store is None else "; services stand in the store"
    backends = sum(len(service.backends) for service in desired.services)
    what = f"services: {len(desired.services)}, backends: {backends}, version {version(desired)}{where}"
    click.echo(f"{file}: good; {what}")
    return 0


# ---- looking -----------------------------------------------------------------------------------


@click.command()
@_with_output
@click.pass_obj
def status(socket: Path, output: str | None) -> int:
    """Say how the load balancer is. Ends with 1 when something is not well."""
    from axoneme.balancer.reports import StatusReport

    report = _client(socket).get("/v1/status", StatusReport)
    if output:
        _print(output, report)
    else:
        _describe(report)
    return 1 if report.problems else 0


def _describe(report: StatusReport) -> None:
    word = click.style("not well", fg="red") if report.problems else click.style("well", fg="green")
    age = short(timedelta(seconds=time.time() - report.started))
    click.echo(f"load balancer {report.name}: {word}; runs for {age} (process {report.pid})")
    states = ", ".join(f"{count} {state}" for state, count in report.backends.items() if count) or "none"
    lines = [
        ("version", f"{report.version} of {report.source}"),
        ("services", str(report.services)),
        ("backends", states),
        ("connections", str(report.connections)),
        *(("uplink", f"{name}: {', '.join(each) or 'no address'}") for name, each in report.uplinks.items()),
        *(("kernel", sentence) for sentence in report.kernel_lacks),
        *(("repaired", f"{count} {what}") for what, count in report.repairs.items()),
    ]
    for name, text in lines:
        click.echo(f"  {name:<12} {text}")
    for problem in report.problems.values():
        click.echo(problem)


@click.command()
@_with_output
@click.pass_obj
def services(socket: Path, output: str | None) -> None:
    """List services: where clients call them, how many of their backends are up, what goes there now."""
    found = _services(socket)
    if output:
        _print(output, found)
        return
    headers = ("NAME", "FRONTENDS", "ALGORITHM", "MODE", "UP", "CONNECTIONS", "REFUSED", "VERSION")
    show(Table(headers, [_service_row(each) for each in found]))
    for each in found:
        if each.problem:
            click.echo(f"{each.name}: {each.problem}")


def _service_row(service: ServiceReport) -> Sequence[str]:
    ready = sum(backend.state in ("up", "unknown") for backend in service.backends)
    return (
        service.name,
        ",".join(service.frontends),
        service.algorithm,
        service.mode,
        f"{ready}/{len(service.backends)}",
        str(service.connections),
        str(service.refused),
        service.version,
    )


@click.command()
@click.argument("service", required=False)
@_with_output
@click.pass_obj
def backends(socket: Path, service: str | None, output: str | None) -> None:
    """List the backends of SERVICE, or of all: state, weight, connections just now, how often chosen."""
    found = [each for each in _services(socket) if service in (None, each.name)]
    if service is not None and not found:
        raise Failure(f"there is no service {service}; `axo lb services` lists them")
    if output:
        _print(output, {each.name: each.backends for each in found})
        return
    headers = (
        "SERVICE",
        "BACKEND",
        "ADDRESS",
        "STATE",
        "FOR",
        "WEIGHT",
        "CONNECTIONS",
        "CHOSEN",
        "PROBLEM",
    )
    show(Table(headers, [_backend_row(each.name, backend) for each in found for backend in each.backends]))


def _backend_row(service: str, backend: BackendReport) -> Sequence[str]:
    return (
        service,
        backend.name,
        backend.address if backend.port is None else f"{backend.address} {backend.port}",
        backend.state,
        short(timedelta(seconds=time.time() - backend.since)) if backend.since else "-",
        str(backend.weight),
        str(backend.connections),
        str(backend.chosen),
        backend.problem or "-",
    )


@click.command()
@click.option("--service", default="", metavar="NAME", help="Of this service only.")
@click.option("--backend", default="", metavar="NAME", help="With this backend only.")
@click.option("--limit", default=1000, show_default=True, help="At most so many, the oldest first.")
@_with_output
@click.pass_obj
def connections(socket: Path, service: str, backend: str, limit: int, output: str | None) -> None:
    """List connections: CLIENT called FRONTEND, and is served by SERVER, which sees SOURCE."""
    from urllib.parse import urlencode

    from axoneme.balancer.reports import ConnectionsReport

    query = urlencode({"service": service, "backend": backend, "limit": limit})
    report = _client(socket).get(f"/v1/connections?{query}", ConnectionsReport)
    if output:
        _print(output, report)
        return
    headers = (
        "SERVICE",
        "BACKEND",
        "PROTOCOL",
        "CLIENT",
        "FRONTEND",
        "SOURCE",
        "SERVER",
        "STATE",
        "AGE",
        "IDLE",
        "SENT",
        "RECEIVED",
    )
    rows: list[Sequence[str]] = [
        (
            each.service,
            each.backend,
            each.protocol,
            each.client,
            each.frontend,
            each.source,
            each.server,
            each.state,
            short(timedelta(seconds=each.age)),
            short(timedelta(seconds=each.idle)),
            str(each.bytes[0]),
            str(each.bytes[1]),
        )
        for each in report.connections
    ]
    show(Table(headers, rows))
    if report.total > len(rows):
        click.echo(f"{len(rows)} of {report.total}; --limit shows more", err=True)


# ---- changing ----------------------------------------------------------------------------------


@click.command()
@click.argument("service")
@click.argument("backend")
@click.option("--wait", is_flag=True, help="Until its last connection has ended.")
@click.option("--timeout", default=0.0, metavar="SECONDS", help="For how long to wait; 0: for ever.")
@click.pass_obj
def drain(socket: Path, service: str, backend: str, wait: bool, timeout: float) -> int:
    """Give BACKEND of SERVICE no new connections; those that it has go on.

    With --wait ends when it has none any more, with 3 when the time is over.
    """
    _patch(socket, service, backend, {"drain": True})
    click.echo(f"{service}/{backend} drains")
    began = time.monotonic()
    while wait:
        found = [each for each in _services(socket) if each.name == service]
        left = sum(each.connections for each in (found[0].backends if found else ()) if each.name == backend)
        if not left:
            click.echo(f"{service}/{backend} has no connections any more")
            break
        if timeout and time.monotonic() - began > timeout:
            click.echo(f"{service}/{backend} still has {left} connections", err=True)
            return 3
        time.sleep(1)
    return 0


@click.command()
@click.argument("service")
@click.argument("backend")
@click.pass_obj
def undrain(socket: Path, service: str, backend: str) -> None:
    """Give BACKEND of SERVICE connections again."""
    _patch(socket, service, backend, {"drain": None})
    click.echo(f"{service}/{backend} takes connections")


@click.command()
@click.option("-f", "--file", required=True, type=_FILE, help="Its pools and services; '-o yaml' of desired.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.pass_obj
def apply(socket: Path, file: Path, dry_run: bool) -> None:
    """Put pools and services of a file in the place of all that is wanted now."""
    from axoneme.balancer.config import load
    from axoneme.model.balancer import Desired, version

    _, wanted = load(file)
    client = _client(socket)
    before = client.get("/v1/desired", Desired)
    if not dry_run:
        client.put("/v1/desired", wanted, Desired, if_match=version(before))
    for kind in ("pools", "services"):
        old = {each.name: each for each in getattr(before, kind)}
        new = {each.name: each for each in getattr(wanted, kind)}
        for name in sorted({**old, **new}):
            verb = (
                "created"
                if name not in old
                else "removed"
                if name not in new
                else "unchanged"
                if old[name] == new[name]
                else "configured"
            )
            click.echo(f"{kind.removesuffix('s')}/{name} {verb}{' (dry run)' if dry_run else ''}")


def _patch(socket: Path, service: str, backend: str, change: dict[str, Any]) -> None:
    from urllib.parse import quote

    from axoneme.model.balancer import Backend

    path = f"/v1/services/{quote(service, '')}/backends/{quote(backend, '')}"
    _client(socket).patch(path, change, Backend)


def _services(socket: Path) -> list[ServiceReport]:
    from axoneme.balancer.reports import ServiceReport

    return _client(socket).get("/v1/services", list[ServiceReport])


def _print(form: str, value: object) -> None:
    plain = msgspec.to_builtins(value)
    if form == "json":
        click.echo(json.dumps(plain, indent=4))
        return
    import yaml

    click.echo(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True), nl=False)
