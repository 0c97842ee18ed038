"""The world that edges are judged by, from objects and endpoints as they stand in the shared state."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from axoneme.edges.judge import World
from axoneme.model.addresses import Address
from axoneme.model.cidrgroup import parse_cidr_group
from axoneme.model.endpointslices import KIND as ENDPOINT_SLICE
from axoneme.model.labels import Labels
from axoneme.model.manifests import CIDR_GROUP
from axoneme.model.policies import POLICY_KINDS, parse_policy
from axoneme.model.policy import Protocol
from axoneme.model.state import EndpointState
from axoneme.model.storedservices import read_endpoint_slice, read_service
from axoneme.policy.engine import PolicyKey
from axoneme.policy.peers import Service

SERVICE = "Service"

#: The kinds of objects that `world` wants.
KINDS = (*POLICY_KINDS, CIDR_GROUP, ENDPOINT_SLICE, SERVICE)


class Object(NamedTuple):
    """``value`` is JSON."""

    kind: str
    namespace: str
    name: str
    value: bytes


def world(objects: Iterable[Object], endpoints: Iterable[EndpointState]) -> World:
    """ValueError where one cannot be read."""
    found = World()
    addresses: dict[tuple[str, str], set[Address]] = defaultdict(set)
    services = []
    for each in objects:
        if each.kind in POLICY_KINDS:
            key = PolicyKey(each.kind, each.namespace, each.name)
            found.policies[key] = parse_policy(msgspec.json.decode(each.value))
        elif each.kind == CIDR_GROUP:
            group = parse_cidr_group(msgspec.json.decode(each.value))
            found.groups[group.name] = group
        elif each.kind == ENDPOINT_SLICE:
            slice_ = read_endpoint_slice(each.value)
            owner = (each.namespace, slice_.service)
            addresses[owner].update(a for endpoint in slice_.endpoints for a in endpoint.addresses)
        elif each.kind == SERVICE:
            services.append((each.namespace, each.name, read_service(each.value)))
    for namespace, name, service in services:
        own = frozenset() if service.selector else frozenset(addresses[namespace, name])
        found.services.append(Service(namespace, name, service.metadata.labels, service.selector, own))
    ports: dict[tuple[str, ...], dict[tuple[str, Protocol], set[int]]] = defaultdict(lambda: defaultdict(set))
    for endpoint in endpoints:
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
