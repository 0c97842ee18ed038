"""`axo exec` and `axo logs`: what goes on inside a pod."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from axoneme.cli import kinds, views
from axoneme.cli.completing import complete_containers, complete_kind
from axoneme.cli.failures import Failure
from axoneme.cli.objects import Stored, listing, need, work
from axoneme.cli.place import Place, in_namespace, in_sandbox
from axoneme.sandbox.objects import LabelSelector
from axoneme.sources.store import Store

_POD = click.argument("pod", metavar="POD|KIND/NAME", shell_complete=complete_kind(kinds.POD))
_CONTAINER = click.option(
    "-c",
    "--container",
    default="",
    metavar="NAME",
    shell_complete=complete_containers,
    help="Which container; default: the first.",
)


@click.command("exec")
@_POD
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND [ARG]...")
@_CONTAINER
@click.option("-i", "--stdin", is_flag=True, help="Let the command read this standard input.")
@click.option("-t", "--tty", is_flag=True, help="Let the command have this terminal.")
@in_namespace
@in_sandbox
@click.pass_obj
def exec_(place: Place, pod: str, command: Sequence[str], container: str, stdin: bool, tty: bool) -> int:
    """Run a command in a pod; ends with the command's exit code.

    `axo exec web-1 -- ip address`, `axo exec -it deploy/web -- sh`.
    """
    from axoneme.sandbox.execute import exec_in_pod

    layout = place.existing
    return exec_in_pod(
        layout.name,
        place.in_namespace,
        _pod_name(place, pod),
        command,
        tty and sys.stdin.isatty(),
        stdin=stdin,
        container=container,
    )


@click.command()
@_POD
@_CONTAINER
@click.option("-f", "--follow", is_flag=True, help="Go on with what is still written, until interrupted.")
@click.option("--tail", type=click.IntRange(-1), default=-1, help="Only so many of the last lines.")
@click.option("-p", "--previous", is_flag=True, help="What runs of the container before this one wrote.")
@in_namespace
@in_sandbox
@click.pass_obj
def logs(place: Place, pod: str, container: str, follow: bool, tail: int, previous: bool) -> None:
    """Print what a container of a pod has written; all its runs follow each other in one log."""
    from axoneme.rpc import Client
    from axoneme.sandbox.report import LogsWish

    if previous:
        click.echo(
            "the log of a container is one for all of its runs: what earlier ones wrote stands first",
            err=True,
        )
    wish = LogsWish(
        namespace=place.in_namespace,
        pod=_pod_name(place, pod),
        container=container,
        follow=follow,
        tail=None if tail < 0 else tail,
    )
    for piece in Client(place.existing.supervisor_socket).stream("pod.logs", wish, str):
        click.echo(piece, nl=False)


def _pod_name(place: Place, word: str) -> str:
    """The pod itself, or one of those that ``KIND/NAME`` has, a ready one if there is one."""
    if "/" not in word:
        return word
    (target, *_) = kinds.targets([word])
    if target.kind == kinds.POD:
        return target.name
    return work(place, lambda store: _pod_of(store, target, place.in_namespace))


async def _pod_of(store: Store, target: kinds.Target, namespace: str) -> str:
    owner = await need(store, target.kind, namespace, target.name)
    if target.kind == kinds.SERVICE:
        service = views.view(owner.value, views.Service).spec.selector
        selector = LabelSelector(match_labels=service)
    else:
        selector = views.view(owner.value, views.Workload).spec.selector
    # One without conditions would select every pod, where none is meant.
    selects = bool(selector.match_labels or selector.match_expressions)
    pods = [views.view(each.value, views.Pod) for each in await listing(store, kinds.POD, namespace)]
    mine = [pod for pod in pods if selects and selector.matches(pod.metadata.labels)]
    running = [pod for pod in mine if pod.state == "Running"]
    if not mine:
        raise Failure(f"{_title(owner)} has no pod")
    return (running or mine)[0].metadata.name


def _title(stored: Stored) -> str:
    return f"{stored} in namespace {stored.key.namespace}"
