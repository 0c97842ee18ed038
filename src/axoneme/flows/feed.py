"""What the shared state says about ends of flows, told to `Names`."""

from __future__ import annotations

from collections.abc import Iterable

from axoneme.flows.names import End, Names
from axoneme.identity.prefixes import address_bytes
from axoneme.model.state import (
    ENDPOINTS,
    IDENTITIES,
    NODES,
    EndpointState,
    IdentityState,
    NodeState,
    decode,
    identity_of,
)

#: What is worth following.
PREFIXES = (NODES, IDENTITIES, ENDPOINTS)


def apply(names: Names, node: str, key: str, value: bytes | None) -> None:
    """Takes one change in; None: deleted. ``node`` is the name of the own node.

    Raises ValueError for a value that is none of ours; the key then keeps what it meant.
    """
    if key.startswith(IDENTITIES):
        number = identity_of(key)
        if value is None:
            names.forget_identity(number)
        else:
            names.put_identity(number, decode(value, IdentityState, key).labels)
    elif value is None:
        names.forget(key)
    elif key.startswith(NODES):
        names.put(key, *_node(decode(value, NodeState, key), node))
    elif key.startswith(ENDPOINTS):
        names.put(key, *_pod(decode(value, EndpointState, key)))


def _node(state: NodeState, own: str) -> tuple[list[bytes], End]:
    label = "reserved:host" if state.name == own else "reserved:remote-node"
    addresses = dict.fromkeys((*state.addresses, *state.internal_addresses))
    return _packed(addresses), End(labels=(label,), node=state.name)


def _pod(state: EndpointState) -> tuple[list[bytes], End]:
    return _packed(state.addresses), End(
        labels=tuple(state.labels),
        namespace=state.namespace,
        pod=state.pod,
        workload_kind=state.workload_kind,
        workload=state.workload,
        node=state.node,
    )


def _packed(addresses: Iterable[str]) -> list[bytes]:
    return [address_bytes(address) for address in addresses]
