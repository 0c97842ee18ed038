"""Services, slices and pods, with what a case does not mention left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Any

from axoneme.model.endpointslices import Endpoint, EndpointPort, EndpointSlice
from axoneme.model.metadata import Metadata
from axoneme.model.services import Ingress, Service, ServicePort
from axoneme.services.balanced import Backend, BackendState, Balanced, FrontendKind
from axoneme.services.cluster import ClusterServices
from axoneme.services.facts import NodeFacts, Options

HTTP = ServicePort(80, 8080, "http", node_port=30080)
NODE = NodeFacts("n1", {"topology.kubernetes.io/zone": "a"}, (ip_address("192.0.2.1"),))


def service(
    *ports: ServicePort,
    name: str = "web",
    labels: Mapping[str, str] | None = None,
    ips: Iterable[str] = ("10.96.0.1",),
    external: Iterable[str] = (),
    ingress: Iterable[str] = (),
    **fields: Any,
) -> Service:
    """``shop/web``, with the port `HTTP` and an address of IPv4."""
    return Service(
        Metadata(name, "shop", labels or {}),
        ports=ports or (HTTP,),
        cluster_ips=tuple(map(ip_address, ips)),
        external_ips=tuple(map(ip_address, external)),
        ingress=tuple(Ingress(ip_address(each)) for each in ingress),
        **fields,
    )


def endpoint(address: str, state: str = "ready", **fields: Any) -> Endpoint:
    """``state``: ``ready``, ``serving`` (and going), ``going`` (serves no more), ``unready``."""
    ready, serving, terminating = {  # as the controller of Kubernetes says it
        "ready": (True, True, False),
        "serving": (False, True, True),
        "going": (False, False, True),
        "unready": (False, False, False),
    }[state]
    said = {"ready": ready, "serving": serving, "terminating": terminating, **fields}
    return Endpoint((ip_address(address),), **said)


def slice_of(
    *endpoints: Endpoint,
    name: str = "web-1",
    of: str = "web",
    ports: Iterable[EndpointPort] = (EndpointPort(8080, "http"),),
    version: int = 4,
    labels: Mapping[str, str] | None = None,
    weight: int = 1,
) -> EndpointSlice:
    return EndpointSlice(Metadata(name, "shop", labels or {}), of, version, endpoints, tuple(ports), weight)


def cluster(
    service: Service, *slices: EndpointSlice, node: NodeFacts = NODE, options: Options | None = None
) -> ClusterServices:
    made = ClusterServices(node, options)
    made.upsert_service(service)
    for each in slices:
        made.upsert_slice(each)
    return made


def balanced(made: ClusterServices) -> dict[str, Balanced]:
    """What changes, by port; nothing may go."""
    changes = made.changes()
    assert not changes.removals
    return {each.port: each for each in changes.upserts}


def only(made: ClusterServices) -> Balanced:
    (found,) = balanced(made).values()
    return found


def active(backends: Iterable[Backend] | None) -> set[str]:
    """Where new connections go."""
    assert backends is not None
    return {f"{each.address}" for each in backends if each.state is BackendState.ACTIVE}


def leaving(backends: Iterable[Backend] | None) -> set[str]:
    assert backends is not None
    return {f"{each.address}" for each in backends if each.state is BackendState.LEAVING}


def at(found: Balanced, kind: FrontendKind | None = None) -> set[str]:
    """Its frontends."""
    every = (each for each in found.frontends if kind in (None, each.kind))
    return {f"{each.address} {each.port}" for each in every}
