"""Which addresses of services a node may announce on its links, by CiliumL2AnnouncementPolicy.

One node announces an address at a time: the one that holds the lease of its service. Services that share an
address have one lease together, for two holders of it would contradict each other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from axoneme.model.addresses import Address
from axoneme.model.announcementpolicy import AnnouncementPolicy
from axoneme.model.exposure import L2_CLASS, ExposedService
from axoneme.model.labels import Labels

#: Namespace and name of a service.
Key = tuple[str, str]


class Announcement(NamedTuple):
    address: Address
    device: str


def candidacies(
    services: Iterable[ExposedService],
    policies: Sequence[AnnouncementPolicy],
    node: Labels,
    devices: Collection[str],
    here: Callable[[Key], bool],
) -> dict[Key, frozenset[Announcement]]:
    """What this node announces if it holds the lease, by the service that the lease is of: that of the first
    name among those that share an address.

    ``here``: whether a service has an endpoint on this node. Who gets packets for a service with external
    traffic policy Local must have one, or he would drop them.
    """
    policies = [policy for policy in policies if policy.nodes.matches(node)]
    found: dict[Key, frozenset[Announcement]] = {}
    for group in _sharing(services):
        if any(each.service.external_local and not here(each.key) for each in group):
            continue
        its = frozenset(
            Announcement(address, device)
            for each in group
            for policy in policies
            if policy.services.matches(each.labels)
            for address in _announced(each, policy)
            for device in devices
            if policy.on(device)
        )
        if its:
            found[min(each.key for each in group)] = its
    return found


def hesitation(service: Key, node: str, nodes: Iterable[str], step: float = 0.25, most: int = 4) -> float:
    """Seconds that a node waits before it takes a lease that is free: a step for each node before it in an
    order that is the service's own. So services spread over the nodes, and not all run for each at once."""

    def place(name: str) -> bytes:
        return hashlib.blake2b("/".join((*service, name)).encode(), digest_size=8).digest()

    own = place(node)
    return step * min(sum(place(other) < own for other in nodes if other != node), most)


def _announced(each: ExposedService, policy: AnnouncementPolicy) -> Iterator[Address]:
    about = each.service
    ours = about.type == "LoadBalancer" and about.load_balancer_class in ("", L2_CLASS)
    if policy.load_balancer_ips and ours:
        yield from (given.address for given in about.ingress if given.address and not given.proxy)
    if policy.external_ips:
        yield from about.external_ips


def _addresses(each: ExposedService) -> set[Address]:
    return {*each.held, *each.service.external_ips}


def _sharing(services: Iterable[ExposedService]) -> list[list[ExposedService]]:
    """Groups of services that are connected by addresses."""
    groups: dict[Address, list[ExposedService]] = {}
    for each in services:
        joined = [each]
        for other in _distinct(groups[address] for address in _addresses(each) if address in groups):
            joined += other
        for address in set().union(*map(_addresses, joined)):
            groups[address] = joined
    return _distinct(groups.values())


def _distinct(groups: Iterable[list[ExposedService]]) -> list[list[ExposedService]]:
    return list({id(group): group for group in groups}.values())
