"""On which ports the echo server plays a pod: every port that the manifests name for it."""

from __future__ import annotations

from collections.abc import Iterable

from axoneme.sandbox.objects import Container, Pod, Service
from axoneme.sandbox.wildcard import Port


def named_port(containers: Iterable[Container], name: int | str) -> int | None:
    """The number of a port given by number or by a container port's name."""
    if isinstance(name, int):
        return name
    if name.isdigit():
        return int(name)
    for container in containers:
        for port in container.ports:
            if port.name == name:
                return port.container_port
    return None


def echo_ports(pod: Pod, played: Iterable[Container], services: Iterable[Service]) -> frozenset[Port]:
    """The ports of the containers in `played`: their container ports, those of their probes, and what
    services that select the pod take for its ports.

    A service's numeric target port belongs to the echo server only when it plays all of the pod:
    otherwise a real process of the pod may be about to listen there.
    """
    containers = tuple(played)
    ports = {
        Port(port.protocol.upper(), port.container_port)
        for container in containers
        for port in container.ports
    }
    for container in containers:
        for probe in container.probes():
            wanted = probe.port()
            number = None if wanted is None else named_port([container], wanted)
            if number is not None:
                ports.add(Port("TCP", number))
    if len(containers) < len(pod.spec.containers):
        return frozenset(ports)
    for service in services:
        if service.metadata.namespace != pod.metadata.namespace:
            continue
        if not service.spec.selects(pod.metadata.labels):
            continue
        for each in service.spec.ports:
            number = named_port(containers, each.port if each.target_port is None else each.target_port)
            if number is not None:
                ports.add(Port(each.protocol.upper(), number))
    return frozenset(ports)
