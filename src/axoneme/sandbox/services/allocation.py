"""Addresses and node ports for services, out of what no other service has.

Nothing is kept apart from the services themselves, so there is nothing that a crash could lose or give out
twice. As in Kubernetes, what nobody asks for by number is taken from the upper part of its range first, so
that the lower part stays for those who do (KEP 3070, KEP 3668).
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from axoneme.sandbox.services.spec import (
    Document,
    Owner,
    cluster_ips,
    health_port,
    needs_node_ports,
    node_port,
    on_nodes,
    owner_of,
    ports_of,
    protocol,
    refuse,
    spec_of,
    type_of,
)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

NODE_PORTS: Final = range(30000, 32768)

_FAMILIES: Final = {4: "IPv4", 6: "IPv6"}


@dataclass(frozen=True, slots=True)
class Ranges:
    """From where services get addresses: one network a family, that of the cluster's first family first."""

    networks: tuple[Network, ...]
    node_ports: range = NODE_PORTS

    @property
    def families(self) -> tuple[str, ...]:
        return tuple(_FAMILIES[each.version] for each in self.networks)

    def network(self, family: str) -> Network:
        return next(each for each in self.networks if _FAMILIES[each.version] == family)


@dataclass(slots=True)
class Taken:
    """What services have, and whose it is. A node port is taken as a number, whatever the protocol."""

    addresses: dict[str, Owner] = field(default_factory=dict)
    node_ports: dict[int, Owner] = field(default_factory=dict)

    @classmethod
    def by(cls, services: Iterable[Document]) -> Taken:
        taken = cls()
        for each in services:
            taken.add(each)
        return taken

    def add(self, service: Document) -> None:
        """Where two services have the same, it is the first one's."""
        owner, spec = owner_of(service), spec_of(service)
        for text in cluster_ips(spec):
            self.addresses.setdefault(_plain(text), owner)
        for number in (*map(node_port, ports_of(spec)), health_port(spec)):
            if number:
                self.node_ports.setdefault(number, owner)


def family_of(text: str, path: str) -> str:
    """IPv4 or IPv6."""
    return _FAMILIES[_parse(text, path).version]


def take_addresses(service: Document, taken: Taken, ranges: Ranges) -> None:
    """Sets ``clusterIPs`` by ``ipFamilies``; those that are there are checked, and stay."""
    spec, owner = service["spec"], owner_of(service)
    found = cluster_ips(spec)
    for index, text in enumerate(found):
        path = f"spec.clusterIPs[{index}]"
        address, network = _parse(text, path), ranges.network(spec["ipFamilies"][index])
        if address not in network or address in _edges(network):
            refuse(path, text, f"services have addresses of {network}: give one of these, or none")
        holder = taken.addresses.get(_plain(text), owner)
        if holder != owner:
            refuse(path, text, f"service {'/'.join(holder)} has it: give another one, or none")
    for family in spec["ipFamilies"][len(found) :]:
        found.append(_free_address(ranges.network(family), service, taken))
    spec["clusterIPs"] = found
    spec["clusterIP"] = found[0]


def take_node_ports(service: Document, taken: Taken, ranges: Ranges) -> None:
    """Sets ``nodePort`` of each port that lacks one, where the type needs them.

    Ports of one number get one node port, whatever their protocols, as far as nobody asks otherwise.
    """
    spec, owner = service["spec"], owner_of(service)
    mine: dict[tuple[int, str], object] = {}
    for index, port in enumerate(ports_of(spec)):
        if number := node_port(port):
            path = f"spec.ports[{index}].nodePort"
            if not on_nodes(spec):
                refuse(path, number, f"the type {type_of(spec)} has none: leave it away, or say NodePort")
            _check_port(path, number, owner, taken, ranges)
            if (number, protocol(port)) in mine:
                refuse(path, number, f"the service has this node port for {protocol(port)} already")
            mine[number, protocol(port)] = port.get("port")
    if not needs_node_ports(spec):
        return
    for port in ports_of(spec):
        if node_port(port):
            continue
        alike = (number for (number, _), each in mine.items() if each == port.get("port"))
        number = next((each for each in alike if (each, protocol(port)) not in mine), 0)
        if not number:
            used = {each for each, _ in mine} | {health_port(spec)}
            number = _free_port(f"{port.get('port')}/{protocol(port)}", service, used, taken, ranges)
        port["nodePort"] = number
        mine[number, protocol(port)] = port.get("port")


def take_health_port(service: Document, taken: Taken, ranges: Ranges) -> None:
    """Sets ``healthCheckNodePort``, or checks it."""
    spec, path = service["spec"], "spec.healthCheckNodePort"
    used = set(map(node_port, ports_of(spec)))
    if number := health_port(spec):
        _check_port(path, number, owner_of(service), taken, ranges)
        if number in used:
            refuse(path, number, "it is a node port of this service: give another one, or none")
    else:
        spec["healthCheckNodePort"] = _free_port("health", service, used, taken, ranges)


# ---- choosing --------------------------------------------------------------------------------------


def _free_address(network: Network, service: Document, taken: Taken) -> str:
    size = network.num_addresses
    last = size - 2 if network.version == 4 else size - 1
    for place in _places(str(network), service, 1, last, reserved=min(max(16, size // 16), 256)):
        address = str(network[place])
        if address not in taken.addresses:
            return address
    return refuse("spec.clusterIP", None, f"no address of {network} is free: delete a service")


def _free_port(what: str, service: Document, used: set[int], taken: Taken, ranges: Ranges) -> int:
    ports = ranges.node_ports
    reserved = min(max(16, len(ports) // 32), 128)
    for place in _places(what, service, 0, len(ports) - 1, reserved):
        if ports[place] not in taken.node_ports and ports[place] not in used:
            return ports[place]
    return refuse(
        "spec.ports", None, f"no node port from {ports[0]} to {ports[-1]} is left: delete a service"
    )


def _places(what: str, service: Document, first: int, last: int, reserved: int) -> Iterator[int]:
    """All places from `first` to `last`, those among the first `reserved` at the end.

    It begins where a hash of the service's identity says: what one service has left is not at once
    another's, and who computes it twice comes to the same.
    """
    uid = (service.get("metadata") or {}).get("uid") or ""
    text = "\0".join((*owner_of(service), uid, what))
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    upper = last - reserved + 1
    if upper > 0:
        yield from (reserved + (number + step) % upper for step in range(upper))
    yield from range(first, min(reserved, last + 1))


def _check_port(path: str, number: int, owner: Owner, taken: Taken, ranges: Ranges) -> None:
    ports = ranges.node_ports
    if number not in ports:
        refuse(path, number, f"node ports are {ports[0]} to {ports[-1]}: give one of these, or none")
    holder = taken.node_ports.get(number, owner)
    if holder != owner:
        refuse(path, number, f"service {'/'.join(holder)} has it: give another one, or none")


def _edges(network: Network) -> tuple[Address, ...]:
    """Addresses that nobody gets: that of the network, and IPv4's broadcast."""
    return (network[0], network[-1]) if network.version == 4 else (network[0],)


def _plain(text: str) -> str:
    """An address in the one form in which addresses are compared."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return text


def _parse(text: str, path: str) -> Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        refuse(path, text, "an IP address belongs here")
