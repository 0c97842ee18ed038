"""Which node a pod goes to: the one with the fewest pods of the same kind, then with the fewest at all."""

from __future__ import annotations

from collections.abc import Sequence

from axoneme.sandbox.objects import Node, Pod, PodSpec


class Unschedulable(Exception):
    """No node admits the pod; says why, in the words of a pod's condition."""


def admits(spec: PodSpec, node: Node) -> bool:
    """Whether the node's labels are what the pod's node selector asks for."""
    return spec.node_selector.items() <= node.metadata.labels.items()


def choose(pod: Pod, nodes: Sequence[Node], placed: Sequence[Pod]) -> str:
    """The name of the pod's node; `placed` are the pods that have theirs. Raises `Unschedulable`."""
    fitting = [node.metadata.name for node in nodes if admits(pod.spec, node)]
    if not fitting:
        wanted = ", ".join(f"{key}={value}" for key, value in pod.spec.node_selector.items())
        raise Unschedulable(f"0/{len(nodes)} nodes match the node selector {wanted}")
    if ports := host_ports(pod.spec):
        taken = {other.spec.node_name for other in placed if ports & host_ports(other.spec)}
        fitting = [node for node in fitting if node not in taken]
        if not fitting:
            shown = ", ".join(f"{number}/{protocol}" for protocol, number in sorted(ports))
            raise Unschedulable(f"0/{len(nodes)} nodes have the host ports {shown} free")
    owner = pod.metadata.controller
    alike = dict.fromkeys(fitting, 0)
    every = dict.fromkeys(fitting, 0)
    for other in placed:
        node = other.spec.node_name
        if node in every:
            every[node] += 1
            alike[node] += owner is not None and other.metadata.controller == owner
    return min(fitting, key=lambda node: (alike[node], every[node], fitting.index(node)))


def host_ports(spec: PodSpec) -> frozenset[tuple[str, int]]:
    """Protocols and numbers of the ports of its node that a pod needs for itself."""
    return frozenset(
        (port.protocol, number)
        for container in spec.containers
        for port in container.ports
        if (number := port.host_port or (port.container_port if spec.host_network else 0))
    )
