"""A Service and its EndpointSlices, as this node balances them.

A port of a Service is one `Balanced`, unless who calls the service's own addresses gets others than who
calls those by which it is reached from outside (``internalTrafficPolicy: Local``, a local redirect): then
it is two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from axoneme.model.endpointslices import EndpointSlice
from axoneme.model.serviceannotations import EVERYWHERE
from axoneme.model.services import HEADLESS, PROXY_NAME, Service, ServicePort
from axoneme.services import frontends
from axoneme.services.balanced import Algorithm, Backend, Balanced, Frontend
from axoneme.services.endpoints import cluster_view, local_view, portions
from axoneme.services.facts import NodeFacts, Options

#: What stands behind the name of a port whose frontends for callers from outside are balanced apart.
EXTERNAL = "/external"


class HealthCheck(NamedTuple):
    """Load balancers ask at this port whether the node has endpoints of the service; so many are ready."""

    port: int
    local_endpoints: int


def concerns(labels: Mapping[str, str], proxy_name: str) -> bool:
    """Whether the proxy of this name serves a Service or takes an EndpointSlice with these labels."""
    return HEADLESS not in labels and labels.get(PROXY_NAME) == (proxy_name or None)


def balanced(
    service: Service,
    slices: Sequence[EndpointSlice],
    node: NodeFacts,
    options: Options,
    redirected: Mapping[ServicePort, tuple[Backend, ...]],
) -> Iterator[Balanced]:
    """``redirected``: who stands in, on this node, for the endpoints of these ports."""
    if not _is_served(service, node, options):
        return
    versions = _versions(service, node)
    for port in service.ports:
        yield from _of_port(service, port, versions, slices, node, options, redirected.get(port))


def health_check(
    service: Service, slices: Sequence[EndpointSlice], node: NodeFacts, options: Options
) -> HealthCheck | None:
    """Of a load balancer's service whose callers from outside get endpoints of the called node only."""
    wanted = service.type == "LoadBalancer" and service.external_local
    if not wanted or not service.health_check_node_port or not _is_served(service, node, options):
        return None
    local: dict[int, set[object]] = {version: set() for version in _versions(service, node)}
    for each in slices:
        if each.version in local:
            local[each.version] |= {
                endpoint.addresses[0]
                for endpoint in each.endpoints
                if endpoint.node == node.name and endpoint.ready
            }
    return HealthCheck(service.health_check_node_port, max(map(len, local.values()), default=0))


def _is_served(service: Service, node: NodeFacts, options: Options) -> bool:
    return (
        not service.headless
        and service.type != "ExternalName"
        and concerns(service.metadata.labels, options.proxy_name)
        and (service.annotations.nodes == EVERYWHERE or service.annotations.nodes.matches(node.label_set))
    )


def _versions(service: Service, node: NodeFacts) -> tuple[int, ...]:
    """Of IP: those in which the service has an address; in the other it is not served at all."""
    return tuple(
        version for version in node.versions if any(each.version == version for each in service.cluster_ips)
    )


def _of_port(
    service: Service,
    port: ServicePort,
    versions: tuple[int, ...],
    slices: Sequence[EndpointSlice],
    node: NodeFacts,
    options: Options,
    redirected: tuple[Backend, ...] | None,
) -> Iterator[Balanced]:
    inner = tuple(frontends.internal(service, port, versions))
    outer = tuple(frontends.external(service, port, versions, node, options))
    families = portions(slices, port.name, port.protocol, node.here, versions).values()

    def local() -> tuple[Backend, ...]:
        return tuple(each for of in families for each in local_view(of, node.here, port.protocol))

    def cluster() -> tuple[Backend, ...]:
        return tuple(each for of in families for each in cluster_view(of, node.here, port.protocol))

    def make(suffix: str, at: tuple[Frontend, ...], backends: tuple[Backend, ...]) -> Balanced:
        return Balanced(
            f"{service.metadata.namespace}/{service.metadata.name}",
            (port.name or f"{port.port}/{port.protocol}") + suffix,
            frontends.PROTOCOLS[port.protocol],
            at,
            backends,
            local() if service.external_local and at and at[-1].external else None,
            Algorithm(service.annotations.algorithm) if service.annotations.algorithm else options.algorithm,
            service.affinity_timeout,
            service.metadata.created,
        )

    if redirected is None and service.internal_policy == "Cluster":
        if inner or outer:
            yield make("", inner + outer, cluster())
        return
    if inner:
        yield make("", inner, local() if redirected is None else redirected)
    if outer:
        yield make(EXTERNAL, outer, cluster())
