"""What commands about policies take from a place: its policies, and what its nodes have recorded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click
import msgspec

from axoneme.cli import state
from axoneme.cli.failures import Failure
from axoneme.cli.kinds import CIDR_GROUP, ENDPOINT_SLICE, POLICIES, SERVICE
from axoneme.cli.objects import listing
from axoneme.cli.place import Place
from axoneme.model.addresses import Address
from axoneme.model.labels import Labels
from axoneme.model.policies import parse_policy
from axoneme.model.policy import Enforcement, Protocol
from axoneme.rpc import RpcError
from axoneme.sources.store import Store

if TYPE_CHECKING:
    from axoneme.edges.judge import World
    from axoneme.edges.recorded import Recorded
    from axoneme.flows.flow import Flow


async def world(store: Store) -> World:
    """What holds at the place. `Failure` when a policy cannot be read."""
    from axoneme.edges.judge import World
    from axoneme.model.cidrgroup import parse_cidr_group
    from axoneme.model.storedservices import read_endpoint_slice, read_service
    from axoneme.policy.engine import PolicyKey
    from axoneme.policy.peers import Service

    found = World()
    try:
        for kind in POLICIES:
            for stored in await listing(store, kind, None):
                key = PolicyKey(kind.name, stored.key.namespace, stored.key.name)
                found.policies[key] = parse_policy(msgspec.json.decode(stored.value))
        for stored in await listing(store, CIDR_GROUP, None):
            group = parse_cidr_group(msgspec.json.decode(stored.value))
            found.groups[group.name] = group
        addresses: dict[tuple[str, str], set[Address]] = defaultdict(set)
        for stored in await listing(store, ENDPOINT_SLICE, None):
            slice_ = read_endpoint_slice(stored.value)
            owner = (stored.key.namespace, slice_.service)
            addresses[owner].update(a for each in slice_.endpoints for a in each.addresses)
        for stored in await listing(store, SERVICE, None):
            service = read_service(stored.value)
            name = (stored.key.namespace, stored.key.name)
            own = frozenset() if service.selector else frozenset(addresses[name])
            found.services.append(Service(*name, service.metadata.labels, service.selector, own))
    except ValueError as error:
        raise Failure(str(error)) from error
    ports: dict[tuple[str, ...], dict[tuple[str, Protocol], set[int]]] = defaultdict(lambda: defaultdict(set))
    for endpoint in await state.endpoints(store):
        labels = tuple(Labels.parse(endpoint.labels).texts())
        if endpoint.audit:
            found.audited.add(labels)
        for port in endpoint.named_ports:
            ports[labels][port.name, Protocol[port.protocol]].add(port.port)
    found.named_ports = {
        labels: {name: frozenset(numbers) for name, numbers in named.items()}
        for labels, named in ports.items()
    }
    return found


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
