"""What commands about policies take from a place: its policies, and what its nodes have recorded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from axoneme.cli import state
from axoneme.cli.failures import Failure
from axoneme.cli.kinds import of_object
from axoneme.cli.objects import listing
from axoneme.cli.place import Place
from axoneme.model.policy import Enforcement
from axoneme.rpc import RpcError
from axoneme.sources.store import Store

if TYPE_CHECKING:
    from axoneme.edges.judge import World
    from axoneme.edges.recorded import Recorded
    from axoneme.flows.flow import Flow


async def world(store: Store) -> World:
    """What holds at the place. `Failure` when a policy cannot be read."""
    from axoneme.edges import stored

    objects = [
        stored.Object(each.key.kind, each.key.namespace, each.key.name, each.value)
        for kind in stored.KINDS
        for each in await listing(store, of_object(kind), None)
    ]
    try:
        return stored.world(objects, await state.endpoints(store))
    except ValueError as error:
        raise Failure(str(error)) from error


def enforcement(place: Place) -> Enforcement:
    """The agents' mode."""
    machine = place.machine
    return Enforcement(machine.enforcement) if machine else Enforcement.DEFAULT


def recorded(place: Place, since: int | None) -> Recorded:
    """Edges from all nodes' flows. `Failure` when a node's cannot be had: what is missing there could be just
    what a policy breaks."""
    from axoneme.edges.recorded import record
    from axoneme.flows.flow import ObserveRequest
    from axoneme.relay.merged import past

    nodes = place.nodes()
    if not nodes:
        raise Failure(f"{place} has no nodes yet: it is still being made")
    sockets = {node: place.sockets(node).flows for node in nodes}

    def absent(node: str, failure: RpcError | None) -> None:
        why = failure.message if failure else "it has gone"
        raise Failure(f"no flows from {node}: {why}; without them nothing can be said for sure")

    lost: list[int] = []

    def flows() -> Iterator[Flow]:
        for item in past(sockets, ObserveRequest(since=since), absent, {}):
            if item.lost_events:
                lost.append(item.lost_events.num_events_lost)
            if item.flow:
                yield item.flow

    found = record(flows())
    if lost:
        click.echo(f"-- {sum(lost)} flows are missing from the record", err=True)
    return found
