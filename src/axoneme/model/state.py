"""What nodes tell each other through the shared state, and the keys under which it stands.

Values are JSON so that a person can read them with any tool. Unknown fields are ignored when they are
read, so that nodes of neighbouring versions can share a store.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

import msgspec

NODES = "state/nodes/"
ENDPOINTS = "state/endpoints/"
POD_RANGES = "state/podranges/"
IDENTITIES = "state/identities/by-number/"


#: Of pods, of this cluster or another: see `axoneme.identity.numbers`.
IdentityNumber = Annotated[int, msgspec.Meta(ge=1, lt=1 << 24)]


class NamedPortState(msgspec.Struct, frozen=True):
    """A container port that has a name."""

    name: str
    protocol: Literal["TCP", "UDP", "SCTP"]
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)]


class NodeState(msgspec.Struct, frozen=True, omit_defaults=True):
    """A node, as it describes itself."""

    name: str
    #: Every address of the node, for recognising it as a peer.
    addresses: list[str] = []
    #: The underlay's: how other nodes reach it; at most one of each family.
    internal_addresses: list[str] = []
    pod_cidrs: list[str] = []
    #: Of its health endpoint, in its pod ranges; at most one of each family.
    health_addresses: list[str] = []
    labels: dict[str, str] = {}
    #: What other subsystems publish about the node, such as encryption keys.
    public: dict[str, str] = {}


class EndpointState(msgspec.Struct, frozen=True, omit_defaults=True):
    """A pod with an address and an identity, as its node describes it."""

    id: int
    node: str
    identity: IdentityNumber
    addresses: list[str] = []
    namespace: str = ""
    pod: str = ""
    uid: str = ""
    workload_kind: str = ""
    workload: str = ""
    #: The identity's labels in text form, `source:key=value`.
    labels: list[str] = []
    named_ports: list[NamedPortState] = []
    host_interface: str = ""
    state: str = "ready"
    #: What annotations ask for (`axoneme.model.wishes`); watches in text form.
    audit: bool = False
    visibility: list[str] = []


class IdentityState(msgspec.Struct, frozen=True):
    """What an identity's number stands for: labels in canonical text form."""

    labels: list[str]


def node_key(name: str) -> str:
    return NODES + name


def endpoint_key(node: str, endpoint: int) -> str:
    return f"{ENDPOINTS}{node}/{endpoint}"


def identity_key(number: int) -> str:
    return f"{IDENTITIES}{number}"


S = TypeVar("S", bound=msgspec.Struct)


def identity_of(key: str) -> int:
    """The number in an identity's key; ValueError for what is none of a cluster."""
    text = key.removeprefix(IDENTITIES)
    if not (text.isascii() and text.isdecimal() and len(text) <= 8 and 0 < int(text) < 1 << 24):
        raise ValueError(f"{key}: expected a number from 1 to {(1 << 24) - 1} at its end")
    return int(text)


def encode(state: msgspec.Struct) -> bytes:
    return msgspec.json.encode(state)


def decode(value: bytes, kind: type[S], key: str) -> S:
    """The ``kind`` in ``value``; ValueError that names ``key`` and the field when it is none."""
    try:
        return msgspec.json.decode(value, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{key}: not a {kind.__name__}: {error}") from error
