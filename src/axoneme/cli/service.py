"""`axo service`: what is balanced, to which backends, and what goes there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from axoneme.cli import kinds
from axoneme.cli.completing import complete_kind, complete_nodes
from axoneme.cli.failures import Failure
from axoneme.cli.place import Place, in_namespace, in_sandbox
from axoneme.cli.root import Entry, Lazy
from axoneme.cli.tables import Table, show

if TYPE_CHECKING:
    from axoneme.cli.servicereport import BackendReport, NodeWord, ServiceReport, Traffic
    from axoneme.services.view import FrontendView

F = TypeVar("F", bound=Callable[..., Any])

COMMANDS: dict[str, dict[str, Entry]] = {
    "Commands": {
        "list": Entry("service:list_", "List services with their backends and what goes to them."),
        "get": Entry("service:get", "All that nodes know of a service."),
    }
}

#: Seconds that a process may take for an answer before it counts as stuck.
_PATIENCE = 5.0
_ANY = {"0.0.0.0": "*", "::": "*"}


@click.group(cls=Lazy, table=COMMANDS)
def group() -> None:
    """See what is balanced, to which backends, and what goes there."""


def _with_answers(command: F) -> F:
    command = click.option(
        "-o", "--output", type=click.Choice(["json", "yaml"]), help="In which form, instead of a table."
    )(command)
    return click.option(
        "--node",
        "wanted",
        multiple=True,
        metavar="NODE",
        shell_complete=complete_nodes,
        help="As this node sees it; default: all nodes together.",
    )(command)


@click.command("list")
@click.option("--problems", is_flag=True, help="Only those with something wrong; ends with 1 when there are.")
@_with_answers
@in_sandbox
@in_namespace
@click.pass_obj
def list_(place: Place, problems: bool, output: str | None, wanted: tuple[str, ...]) -> int:
    """List services as the nodes' kernels have them: a line for each port.

    OPEN are connections just now, CHOSEN those that a backend was chosen for and REFUSED those for which
    there was none, since the tables exist; SENT and RECEIVED is what clients have sent and received since the
    flow servers run. A connection is counted on the node that balances it: that of its client, or the one it
    came to from outside.
    """
    found, absent = _services(place, wanted)
    if place.namespace:
        found = [each for each in found if each.name.startswith(f"{place.namespace}/")]
    if problems:
        found = [each for each in found if each.problems]
    if output:
        _print(output, found)
    else:
        show(Table(_HEADERS, [_row(each) for each in found]))
        if problems and found:
            click.echo()
            for each in found:
                for problem in each.problems:
                    click.echo(f"{each.name} {each.port}: {problem}")
    return 1 if absent or (problems and found) else 0


@click.command()
@click.argument(
    "names", nargs=-1, required=True, metavar="NAME...", shell_complete=complete_kind(kinds.SERVICE)
)
@_with_answers
@in_sandbox
@in_namespace
@click.pass_obj
def get(place: Place, names: tuple[str, ...], output: str | None, wanted: tuple[str, ...]) -> int:
    """Say all that the nodes know of services: NAME, or NAMESPACE/NAME."""
    services, absent = _services(place, wanted)
    asked = [name if "/" in name else f"{place.in_namespace}/{name}" for name in names]
    # What is balanced without a cluster has no namespace.
    found = [each for each in services if each.name in asked or each.name in names]
    known = {each.name for each in found}
    missing = [full for name, full in zip(names, asked, strict=True) if not known & {name, full}]
    if output:
        _print(output, found)
    else:
        for number, each in enumerate(found):
            if number:
                click.echo()
            _describe(each)
    if missing:
        raise Failure(f"no node balances {', '.join(missing)}; `axo service list` lists what they do")
    return 1 if absent else 0


def _services(place: Place, wanted: Sequence[str]) -> tuple[list[ServiceReport], bool]:
    """Of these nodes, or all; and whether one of them does not answer, which is said."""
    from axoneme.cli.servicereport import merge

    nodes = place.nodes()
    for name in wanted:
        if name not in nodes:
            raise click.UsageError(f"--node {name}: {place} has no such node; it has {', '.join(nodes)}")
    failures: list[str] = []
    words = {}
    for node in wanted or nodes:
        word = _ask(place, node, failures)
        if word is not None:
            words[node] = word
    for failure in failures:
        click.echo(f"-- {failure}", err=True)
    if not words:
        raise Failure("no node's agent tells of services; `axo status` says more")
    return merge(words), bool(failures)


def _ask(place: Place, node: str, failures: list[str]) -> NodeWord | None:
    from axoneme.cli.servicereport import NodeWord
    from axoneme.flows.traffic import BackendTraffic
    from axoneme.rpc import Client, RpcError
    from axoneme.services.view import ServiceView

    sockets = place.sockets(node)
    try:
        services = Client(sockets.agent, _PATIENCE).call("services", None, list[ServiceView])
    except RpcError as failure:
        failures.append(f"node {node}: its agent does not answer: {failure.message}")
        return None
    try:
        traffic = Client(sockets.flows, _PATIENCE).call("services.traffic", None, list[BackendTraffic])
    except RpcError as failure:
        failures.append(f"node {node}: what goes to backends is not known: {failure.message}")
        return NodeWord(services, None)
    return NodeWord(services, traffic)


# ---- what is shown -------------------------------------------------------------------------------

_HEADERS = (
    "SERVICE",
    "PORT",
    "TYPE",
    "FRONTENDS",
    "BACKENDS",
    "OPEN",
    "CHOSEN",
    "REFUSED",
    "SENT",
    "RECEIVED",
)
_BACKEND = ("BACKEND", "NAME", "NODE", "STATE", "WEIGHT", "OPEN", "CHOSEN", "SENT", "RECEIVED")


def _row(service: ServiceReport) -> Sequence[str]:
    return (
        service.name,
        service.port,
        ",".join(dict.fromkeys(each.type for each in service.frontends)),
        ",".join(dict.fromkeys(_frontend(each) for each in service.frontends)),
        _how_many(service),
        *_traffic(service.traffic, service.chosen, service.refused),
    )


def _how_many(service: ServiceReport) -> str:
    """Each place counts once, whatever parts of the callers get it from which nodes."""
    active = {(each.address, each.port) for each in service.active}
    leaving = len({(each.address, each.port) for each in service.backends} - active)
    return f"{len(active)}+{leaving} leaving" if leaving else str(len(active))


def _traffic(traffic: Traffic | None, *counts: int) -> Iterator[str]:
    from axoneme.flows.render import size

    yield str(traffic.open) if traffic else "-"
    yield from map(str, counts)
    yield size(traffic.bytes) if traffic else "-"
    yield size(traffic.reply_bytes) if traffic else "-"


def _frontend(frontend: FrontendView) -> str:
    return _at(_ANY.get(frontend.address, frontend.address), frontend.port)


def _at(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _describe(service: ServiceReport) -> None:
    affinity = f"; a client keeps its backend for {service.affinity} s" if service.affinity else ""
    click.echo(f"{service.name} {service.port} ({service.protocol}): {service.algorithm}{affinity}")
    click.echo()
    show(Table(("FRONTEND", "TYPE", "CALLERS"), list(_frontends(service.frontends))))
    if service.backends:
        click.echo()
        partial = any(each.callers or each.seen_by for each in service.backends)
        headers = (*_BACKEND, "FOR") if partial else _BACKEND
        show(Table(headers, [_backend(each, partial) for each in service.backends]))
    if service.refused or service.problems:
        click.echo()
    if service.refused:
        click.echo(f"{service.refused} connections were refused for want of a backend")
    for problem in service.problems:
        click.echo(problem)


def _frontends(frontends: Iterable[FrontendView]) -> Iterator[Sequence[str]]:
    """Those of both families that stand for any address of the node are one."""
    rows: dict[Sequence[str], None] = {}
    for each in frontends:
        callers = "everybody" if each.external else "the cluster"
        if each.external and each.source_ranges is not None:
            callers = f"the cluster, {', '.join(each.source_ranges) or 'nobody from outside'}"
        rows[_frontend(each), each.type, callers + (", answered directly" if each.direct else "")] = None
    return iter(rows)


def _backend(backend: BackendReport, partial: bool) -> Sequence[str]:
    callers = {"inside": "callers within", "outside": "callers from outside"}.get(backend.callers, "")
    seen_by = ",".join(backend.seen_by)
    return (
        _at(backend.address, backend.port),
        backend.name,
        backend.node,
        backend.state,
        str(backend.weight),
        *_traffic(backend.traffic, backend.chosen),
        *([" on ".join(filter(None, (callers, seen_by))) or "all"] if partial else []),
    )


def _print(form: str, services: Sequence[ServiceReport]) -> None:
    documents = msgspec.to_builtins(services)
    if form == "json":
        click.echo(json.dumps(documents, indent=4, ensure_ascii=False))
        return
    import yaml

    click.echo(yaml.safe_dump(documents, sort_keys=False, allow_unicode=True), nl=False)
