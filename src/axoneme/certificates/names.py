"""Names in certificates. Pure."""

from __future__ import annotations

import re

#: Of Hubble's servers, as its clients ask for them.
HUBBLE = "hubble-grpc.cilium.io"
#: Of nodes when they prove that they may speak for an identity.
NODES = "node.axoneme.io"
#: Cilium's default.
TRUST_DOMAIN = "spiffe.cilium"

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
