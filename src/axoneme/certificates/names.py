"""Names in certificates. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

#: Of Hubble's servers, as its clients ask for them.
HUBBLE = "hubble-grpc.cilium.io"
#: Of nodes when they prove that they may speak for an identity.
NODES = "node.axoneme.io"
#: Cilium's default.
TRUST_DOMAIN = "spiffe.cilium"

_NODE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9._]{0,251}[A-Za-z0-9])?")
_SPIFFE = re.compile(r"spiffe://([a-z0-9._-]{1,255})/identity/([1-9][0-9]{0,7})\Z")


def _label(name: str) -> str:
    """One DNS label in place of a name that may have dots, as Cilium does it."""
    return name.replace(".", "-").lower()


def hubble_name(node: str, cluster: str) -> str:
    """By which a node's Hubble server is known in TLS: ``node1.default.hubble-grpc.cilium.io``."""
    return f"{_label(node)}.{_label(cluster)}.{HUBBLE}"


def node_name(node: str, cluster: str) -> str:
    """By which a node itself is known."""
    return f"{_label(node)}.{_label(cluster)}.{NODES}"


def check_node(node: str, others: Iterable[str]) -> None:
    """ValueError for a name that in certificates would stand for other nodes too: for many, or for one of
    ``others``."""
    if not _NODE.fullmatch(node):
        raise ValueError(f"node {node!r}: its name is no DNS name, so no certificate can have it")
    if node.lower().endswith((HUBBLE, NODES)):
        raise ValueError(
            f"node {node}: names below {HUBBLE} and {NODES} are given to nodes, and are not theirs"
        )
    for other in others:
        if other != node and _label(other) == _label(node):
            raise ValueError(
                f"node {node}: in certificates it would be called as node {other} is, {_label(node)}: "
                f"give it another name, or, if that one is gone for good, `axo ca forget {other}`"
            )


def spiffe_id(trust_domain: str, identity: int) -> str:
    """Of an identity's workloads, as Cilium writes it (SPIFFE-ID, section 2)."""
    return f"spiffe://{trust_domain}/identity/{identity}"


def parse_spiffe_id(text: str) -> tuple[str, int]:
    """The trust domain and the identity. ValueError for an id of another kind."""
    found = _SPIFFE.match(text)
    if not found:
        raise ValueError(f"{text!r} is not spiffe://TRUST-DOMAIN/identity/NUMBER")
    return found[1], int(found[2])


def check_trust_domain(text: str) -> str:
    """ValueError when it is none (SPIFFE-ID, section 2.1)."""
    if not re.fullmatch(r"[a-z0-9._-]{1,255}", text):
        raise ValueError(f"trust domain {text!r}: expected letters a-z, digits, '.', '_' and '-'")
    return text
