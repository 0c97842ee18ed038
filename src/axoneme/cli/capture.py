"""`axo capture`: packets of chosen flows, into a file for Wireshark."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from axoneme.cli import flowoptions
from axoneme.cli.ages import nanoseconds
from axoneme.cli.failures import Failure
from axoneme.cli.flowoptions import ObserveCommand, with_filters
from axoneme.cli.observe import flow_sockets
from axoneme.cli.place import Place, in_sandbox

if TYPE_CHECKING:
    from axoneme.capture.recorder import Describe, Limits, Recorder
    from axoneme.capture.taps import Tap
    from axoneme.flows.flow import ObserveRequest
    from axoneme.rpc import RpcError

_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}


@click.command(cls=ObserveCommand)
@click.option("-w", "--write", metavar="FILE", required=True, help="The file, pcapng; - for standard output.")
@click.option(
    "--for", "duration", metavar="TIME", help="Stop after so long: 30s, 5m. Default: when interrupted."
)
@click.option("--packets", type=click.IntRange(1), metavar="N", help="Stop after so many packets.")
@click.option(
    "--size", default="100M", show_default=True, help="Stop when the file has so many bytes: 20k, 1G."
)
@click.option(
    "--snap-length",
    type=click.IntRange(64, 262144),
    default=262144,
    show_default="all",
    metavar="BYTES",
    help="Of each packet, at most so many bytes.",
)
@click.option(
    "--every-device",
    is_flag=True,
    help="Also where packets leave a node that were seen coming in: as translated.",
)
@with_filters
@in_sandbox
@click.pass_obj
def capture(
    place: Place,
    /,
    write: str,
    duration: str | None,
    packets: int | None,
    size: str,
    snap_length: int,
    every_device: bool,
    **values: Any,
) -> int:
    """Write packets of chosen flows, with their labels, verdicts and policies as comments.

    The filters are those of `axo observe`. Packets are taken from the devices of the nodes, those of pods
    among them; what is dropped is there too. Needs root.

    `axo capture -w drops.pcapng --verdict DROPPED --for 1m`, `axo capture -w - --pod shop/web | wireshark -k
    -i -`. Ends with 1 when flows of a node could not be had, or packets came too fast.
    """
    from axoneme.capture.recorder import Limits, Recorder
    from axoneme.flows.flow import ObserveRequest

    if place.namespace and not values["namespace"]:
        values["namespace"] = (place.namespace,)
    lasting = None if duration is None else nanoseconds(duration)
    if duration is not None and lasting is None:
        raise click.UsageError(f"--for {duration}: give how long, as 30s or 5m")
    limits = Limits(snap_length, _bytes(size), packets or 0)
    shown, hidden = flowoptions.filters(values)
    sockets = flow_sockets(place, values["node"])
    with contextlib.ExitStack() as stack:
        taps = {node: stack.enter_context(_tap(place, node, limits)) for node in sockets}
        file = stack.enter_context(_opened(write))
        asked = shlex.join(["axo", *sys.argv[1:]])
        recorder = Recorder(file, limits, asked, _describing(place), every_device)
        absent = _run(recorder, taps, sockets, ObserveRequest(shown, hidden), lasting)
    click.echo(f"{recorder.written} packets, {recorder.size} bytes in {write}", err=True)
    if recorder.full:
        click.echo(f"-- ended: {recorder.full}", err=True)
    for node, lost in recorder.lost().items():
        click.echo(f"-- {node}: {lost} packets came too fast and are missing", err=True)
    if len(absent) == len(sockets):
        raise Failure("no node's flow server answers, so no packet is known; `axo status` says more")
    return 1 if absent or recorder.lost() else 0


def _run(
    recorder: Recorder,
    taps: Mapping[str, Tap],
    sockets: Mapping[str, Path],
    request: ObserveRequest,
    lasting: int | None,
) -> set[str]:
    """The nodes whose flows are missing."""
    from msgspec.structs import replace

    from axoneme.capture.session import hear, record
    from axoneme.flows.flowfilter import FlowFilter
    from axoneme.relay.merged import instant, live, past
    from axoneme.rpc import INVALID, RpcError

    absent: set[str] = set()
    newest: dict[str, str] = {}

    def tell(node: str, failure: RpcError | None) -> None:
        (absent.discard if failure is None else absent.add)(node)
        click.echo(f"-- {node}: {failure.message if failure else 'its flow server answers again'}", err=True)

    async def work() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        flows = live(sockets, replace(request, since=began, follow=True), tell, newest)
        click.echo(f"-- capturing on {', '.join(taps)}; Ctrl-C ends it", err=True)
        await record(recorder, taps, flows, instant, None if lasting is None else lasting / 1e9, stop)

    began = time.time_ns()
    # Connections that are open already.
    open_ = [replace(each, event=each.event or ("new", "end")) for each in request.filters]
    try:
        found = past(
            sockets, replace(request, filters=open_ or [FlowFilter(event=("new", "end"))]), tell, newest
        )
        hear(recorder, found, instant)
        asyncio.run(work())
    except RpcError as failure:
        if failure.code == INVALID:
            raise click.UsageError(failure.message) from None
        raise
    return absent


@contextlib.contextmanager
def _tap(place: Place, node: str, limits: Limits) -> Iterator[Tap]:
    from axoneme.capture.taps import Tap

    try:
        made = Tap(place.network(node), limits.snap_length)
    except PermissionError:
        raise Failure("reading packets needs root (CAP_NET_RAW, and CAP_SYS_ADMIN for a sandbox)") from None
    try:
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    if path == "-":
        yield sys.stdout.buffer
        return
    try:
        file = Path(path).open("wb")  # noqa: SIM115
    except OSError as error:
        raise Failure(f"--write {path}: {error.strerror}") from None
    with file:
        yield file


def _describing(place: Place) -> Describe:
    from axoneme.rpc import Client, RpcError

    def describe(node: str, device: str) -> str:
        """Asked once a device."""
        try:
            found = Client(place.sockets(node).agent).call("endpoint.list")
        except RpcError:
            return ""
        pods = {each.get("host_interface"): f"pod {each['namespace']}/{each['pod']}" for each in found}
        return pods.get(device, f"of node {node}")

    return describe


def _bytes(text: str) -> int:
    number, unit = (text[:-1], text[-1]) if text[-1:] in _UNITS else (text, "")
    if not number.isdecimal() or not int(number):
        raise click.UsageError(f"--size {text}: give bytes, as 20k, 100M or 1G")
    return int(number) * _UNITS[unit]
