"""Where a port of a Service is called: its frontends, by kind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address

from axoneme.model.policy import Protocol
from axoneme.model.serviceannotations import Forwarding
from axoneme.model.services import Service, ServicePort
from axoneme.services.balanced import Address, Frontend, FrontendKind
from axoneme.services.facts import NodeFacts, Options
from axoneme.services.ranges import served

#: Every address of the node, by version of IP.
EVERY: dict[int, Address] = {4: IPv4Address(0), 6: IPv6Address(0)}

PROTOCOLS = {each.name: each for each in (Protocol.TCP, Protocol.UDP, Protocol.SCTP)}


def internal(service: Service, port: ServicePort, versions: Sequence[int]) -> Iterator[Frontend]:
    """For callers within the cluster alone."""
    if service.annotations.exposed in ("", "ClusterIP"):
        for address in service.cluster_ips:
            if address.version in versions:
                yield Frontend(address, port.port, PROTOCOLS[port.protocol], FrontendKind.CLUSTER_IP)


def external(
    service: Service, port: ServicePort, versions: Sequence[int], node: NodeFacts, options: Options
) -> Iterator[Frontend]:
    """For callers from outside as well: of a load balancer, external ones, node ports."""
    exposed, protocol = service.annotations.exposed, PROTOCOLS[port.protocol]
    direct = not service.external_local and _direct(service, port, options)
    if service.type == "LoadBalancer" and exposed in ("", "LoadBalancer"):
        for ingress in service.ingress:
            address = ingress.address
            if address is not None and not ingress.proxy and address.version in versions:
                ranges = served(service.source_ranges, service.annotations.ranges_deny, address.version)
                kind = FrontendKind.LOAD_BALANCER
                yield Frontend(address, port.port, protocol, kind, True, ranges, direct)
    for address in service.external_ips:
        if address.version in versions:
            yield Frontend(address, port.port, protocol, FrontendKind.EXTERNAL_IP, True, None, direct)
    if port.node_port and service.type in ("NodePort", "LoadBalancer") and exposed in ("", "NodePort"):
        for address in _node_port_addresses(versions, node, options):
            yield Frontend(address, port.node_port, protocol, FrontendKind.NODE_PORT, True, None, direct)


def _direct(service: Service, port: ServicePort, options: Options) -> bool:
    if service.annotations.forwarding is not None:
        return service.annotations.forwarding is Forwarding.DSR
    return options.forwarding == "dsr" or (options.forwarding == "hybrid" and port.protocol == "TCP")


def _node_port_addresses(versions: Sequence[int], node: NodeFacts, options: Options) -> Iterator[Address]:
    if not options.node_port_addresses:
        yield from (EVERY[version] for version in versions)
        return
    for address in node.addresses:
        if address.version in versions and any(address in each for each in options.node_port_addresses):
            yield address
