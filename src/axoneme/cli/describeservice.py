"""`axo describe service`: its addresses, its ports, and who is behind each of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from axoneme.cli import views
from axoneme.cli.columns import equalities
from axoneme.cli.objects import Stored
from axoneme.cli.sheets import field, many
from axoneme.sandbox.objects import ServicePort
from axoneme.sandbox.services.slices import Endpoint, EndpointSlice

#: So many endpoints of a port are named.
_NAMED = 10


def lines(stored: Stored, slices: Sequence[Stored]) -> Iterator[str]:
    """`slices` are those of all services."""
    it = views.view(stored.value, views.Service)
    spec = it.spec
    yield from many("Selector", [equalities(spec.selector)] if spec.selector else [])
    yield field("Type", spec.type)
    if spec.ip_families:
        yield field("IP families", f"{', '.join(spec.ip_families)} ({spec.ip_family_policy})")
    yield from many("Addresses", spec.cluster_ips or ([spec.cluster_ip] if spec.cluster_ip else []))
    for name, values in (
        ("External addresses", spec.external_ips),
        ("Load balancer", tuple(each.ip or each.hostname for each in it.status.load_balancer.ingress)),
        ("Source ranges", spec.load_balancer_source_ranges),
    ):
        if values:
            yield from many(name, values)
    if spec.external_name:
        yield field("External name", spec.external_name)
    there = [
        found
        for each in slices
        if each.key.namespace == stored.key.namespace
        and (found := views.view(each.value, EndpointSlice)).service == stored.key.name
    ]
    for port in spec.ports:
        yield from _port(port, there)
    affinity = spec.session_affinity
    if spec.session_affinity_config.client_ip.timeout_seconds and affinity != "None":
        affinity += f" for {spec.session_affinity_config.client_ip.timeout_seconds} s"
    yield field("Session affinity", affinity)
    for name, value in (
        ("External traffic", spec.external_traffic_policy),
        ("Internal traffic", spec.internal_traffic_policy),
        ("Traffic distribution", spec.traffic_distribution),
        ("Health check port", str(spec.health_check_node_port or "")),
        ("Not ready ones", "are published" if spec.publish_not_ready_addresses else ""),
    ):
        if value:
            yield field(name, value)


def _port(port: ServicePort, slices: Sequence[EndpointSlice]) -> Iterator[str]:
    name = f"{port.name} " if port.name else ""
    yield field("Port", f"{name}{port.port}/{port.protocol}")
    yield field("  Target port", f"{port.target_port or port.port}/{port.protocol}")
    if port.node_port:
        yield field("  Node port", f"{port.node_port}/{port.protocol}")
    found = [
        f"{f'[{address}]' if ':' in address else address}:{own.port}{_state(endpoint)}"
        for each in slices
        for own in each.ports
        if (own.name, own.protocol) == (port.name, port.protocol)
        for endpoint in each.endpoints
        for address in endpoint.addresses
    ]
    more = [f"and {len(found) - _NAMED} more"] if len(found) > _NAMED else []
    yield from many("  Endpoints", [*found[:_NAMED], *more])


def _state(endpoint: Endpoint) -> str:
    """Why it gets no new connections; nothing for one that does."""
    conditions = endpoint.conditions
    if conditions.terminating:
        return " (terminating)"
    return " (not ready)" if conditions.ready is False else ""
