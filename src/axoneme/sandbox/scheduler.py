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
    owner = pod.metadata.controller
    alike = dict.fromkeys(fitting, 0)
    every = dict.fromkeys(fitting, 0)
    for other in placed:
        node = other.spec.node_name
        if node in every:
            every[node] += 1
            alike[node] += owner is not None and other.metadata.controller == owner
    return min(fitting, key=lambda node: (alike[node], every[node], fitting.index(node)))
