"""Which endpoints of a service take new connections, for callers of a kind: kube-proxy's rules.

*Cluster*: the ready endpoints. If all of them carry hints, and one of them is meant for this node, only those
that are; else the same with this node's zone. Without any ready endpoint, those that are going but still
serve.

*Local*: the same without hints, among the endpoints of this node.

All others of the service take no new connections, but old ones may go on. Over UDP, where no end of a
connection can be seen, they move on when their endpoint stops to serve and another serves.

The families are told apart: an IPv6 caller can do nothing with an endpoint of IPv4.

Sources: KEP-1669 (terminating endpoints), KEP-2086 (internal policy), KEP-2433 and KEP-3015 (hints), the
Kubernetes documentation on "Virtual IPs and Service Proxies", and `pkg/proxy/topology.go` of Kubernetes 1.34.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from axoneme.model.endpointslices import Endpoint, EndpointSlice
from axoneme.services.balanced import Backend, BackendState


class Here(NamedTuple):
    """The node for which the choice is made."""

    node: str
    zone: str = ""


class Portion(NamedTuple):
    """Endpoints that have a port in common. ``weight`` 0: no new connections. They are of ``namespace``."""

    endpoints: Sequence[Endpoint]
    port: int
    weight: int
    namespace: str


def portions(
    slices: Iterable[EndpointSlice], port: str, protocol: str, here: Here, versions: Iterable[int]
) -> dict[int, list[Portion]]:
    """By version of IP: what the slices of a service say of its port with this name and protocol.

    Slices overlap while endpoints move between them: of two that say something of the same endpoint the one
    counts that has it on this node, or ready.
    """
    found: dict[int, list[Portion]] = {version: [] for version in versions}
    for each in slices:
        for number in each.ports if each.version in found else ():
            if number.name == port and number.protocol == protocol and number.port:
                portion = Portion(each.endpoints, number.port, each.weight, each.metadata.namespace)
                found[each.version].append(portion)
    return {version: _without_doubles(each, here) for version, each in found.items()}


def _without_doubles(family: list[Portion], here: Here) -> list[Portion]:
    """Each (address, port) once. The number of an address stands for it: it is quicker to look up."""
    spots = {(int(endpoint.addresses[0]), each.port) for each in family for endpoint in each.endpoints}
    if len(spots) == sum(len(each.endpoints) for each in family):
        return family
    best: dict[tuple[int, int], tuple[tuple[bool, bool], int, int]] = {}
    for number, each in enumerate(family):
        for place, endpoint in enumerate(each.endpoints):
            standing = endpoint.node == here.node, endpoint.ready
            spot = int(endpoint.addresses[0]), each.port
            if spot not in best or standing > best[spot][0]:
                best[spot] = standing, number, place
    kept = sorted((number, place) for _, number, place in best.values())
    return [
        each._replace(endpoints=[each.endpoints[place] for of, place in kept if of == number])
        for number, each in enumerate(family)
    ]


def cluster_view(family: Sequence[Portion], here: Here, protocol: str) -> list[Backend]:
    """The backends for callers who may get any endpoint; ``family`` are the `portions` of one family."""
    ready = [endpoint for each in family if each.weight for endpoint in each.endpoints if endpoint.ready]
    return _backends(family, _nearest(ready, here) if ready else _last_resort, protocol)


def local_view(family: Sequence[Portion], here: Here, protocol: str) -> list[Backend]:
    """The backends for callers who get endpoints of this node only."""
    local = [
        each._replace(endpoints=[endpoint for endpoint in each.endpoints if endpoint.node == here.node])
        for each in family
    ]
    ready = any(endpoint.ready for each in local if each.weight for endpoint in each.endpoints)
    return _backends(local, _ready if ready else _last_resort, protocol)


def _ready(endpoint: Endpoint) -> bool:
    return endpoint.ready


def _last_resort(endpoint: Endpoint) -> bool:
    return endpoint.serving and endpoint.terminating


def _nearest(ready: Sequence[Endpoint], here: Here) -> Callable[[Endpoint], bool]:
    """Which of the ``ready`` endpoints serve this node by their hints; all, if hints do not tell of each."""
    if all(each.nodes for each in ready) and any(here.node in each.nodes for each in ready):
        return lambda endpoint: endpoint.ready and here.node in endpoint.nodes
    if all(each.zones for each in ready) and any(here.zone in each.zones for each in ready):
        return lambda endpoint: endpoint.ready and here.zone in endpoint.zones
    return _ready


def _backends(family: Sequence[Portion], takes: Callable[[Endpoint], bool], protocol: str) -> list[Backend]:
    moves = protocol == "UDP" and any(endpoint.serving for each in family for endpoint in each.endpoints)
    return list(_each_backend(family, takes, moves))


def _each_backend(
    family: Sequence[Portion], takes: Callable[[Endpoint], bool], moves: bool
) -> Iterator[Backend]:
    """``moves``: connections leave an endpoint that does not serve."""
    active, leaving = BackendState.ACTIVE, BackendState.LEAVING
    for endpoints, port, weight, namespace in family:
        for endpoint in endpoints:
            name = f"{namespace}/{endpoint.target}" if endpoint.target else ""
            if weight and takes(endpoint):
                yield Backend(endpoint.addresses[0], port, weight, active, endpoint.node, name)
            elif endpoint.serving or not moves:
                yield Backend(endpoint.addresses[0], port, weight, leaving, endpoint.node, name)
