"""Endpoints, identities and nodes as the nodes themselves publish them, in the form of objects.

Field names are those of CiliumEndpoint and CiliumIdentity where the meaning is the same, so that scripts
written for them find what they look for.
"""

from __future__ import annotations

from typing import TypeVar

from axoneme.cli.failures import Failure
from axoneme.cli.objects import Document
from axoneme.model.state import ENDPOINTS, IDENTITIES, NODES, EndpointState, IdentityState, NodeState, decode
from axoneme.sources.store import Store

S = TypeVar("S", EndpointState, IdentityState, NodeState)

API_VERSION = "axoneme.io/v1"


async def endpoints(store: Store, namespace: str | None = None) -> list[EndpointState]:
    """Of a namespace, or of all for None; in the order of namespaces and pods."""
    found = await _read(store, ENDPOINTS, EndpointState)
    return sorted(
        (each for each in found.values() if namespace in {None, each.namespace}),
        key=lambda each: (each.namespace, each.pod, each.node, each.id),
    )


async def identities(store: Store) -> dict[int, IdentityState]:
    """By number."""
    found = await _read(store, IDENTITIES, IdentityState)
    return dict(sorted((int(key.removeprefix(IDENTITIES)), state) for key, state in found.items()))


async def nodes(store: Store) -> dict[str, NodeState]:
    """By name."""
    return {state.name: state for state in (await _read(store, NODES, NodeState)).values()}


def of_endpoint(state: EndpointState) -> Document:
    return {
        "apiVersion": API_VERSION,
        "kind": "Endpoint",
        "metadata": {"name": state.pod, "namespace": state.namespace, "uid": state.uid},
        "status": {
            "id": state.id,
            "identity": {"id": state.identity, "labels": state.labels},
            "networking": {
                "addressing": [
                    {"ipv6" if ":" in address else "ipv4": address} for address in state.addresses
                ],
                "node": state.node,
            },
            "named-ports": [
                {"name": port.name, "port": port.port, "protocol": port.protocol}
                for port in state.named_ports
            ],
            "workload": {"kind": state.workload_kind, "name": state.workload},
            "state": state.state,
            **({"audit": True} if state.audit else {}),
            **({"visibility": state.visibility} if state.visibility else {}),
        },
    }


def of_identity(number: int, state: IdentityState) -> Document:
    labels = (label.partition("=") for label in state.labels)
    return {
        "apiVersion": API_VERSION,
        "kind": "Identity",
        "metadata": {"name": str(number)},
        "security-labels": {key: value for key, _, value in labels},
    }


async def _read(store: Store, prefix: str, kind: type[S]) -> dict[str, S]:
    try:
        entries = (await store.list(prefix)).entries
        return {entry.key: decode(entry.value, kind, entry.key) for entry in entries}
    except ValueError as error:
        raise Failure(str(error)) from error
