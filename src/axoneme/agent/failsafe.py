"""What no policy for the node itself can close."""

from __future__ import annotations

from collections.abc import Iterable

from axoneme.model.labels import RESERVED, Selector, exists
from axoneme.model.policy import AnyPeer, Direction, Policy, PolicyRef, PortRange, Protocol, Rule, Tier

FAIL_SAFE = PolicyRef("FailSafe", "", "host")


def failsafe(ingress: Iterable[str], egress: Iterable[str]) -> Policy:
    """Rules like ``TCP:22`` that no host policy can close. ValueError for what is none."""
    rules = [
        Rule(direction, (AnyPeer(),), (_port(text),), path=f"{direction.name.lower()} {text}", order=order)
        for direction, texts in ((Direction.INGRESS, ingress), (Direction.EGRESS, egress))
        for order, text in enumerate(texts)
    ]
    nodes = Selector((exists(RESERVED, "host"),))
    return Policy(FAIL_SAFE, nodes, tuple(rules), tier=Tier.ADMIN, priority=-1, hosts=True)


def _port(text: str) -> PortRange:
    protocol, _, number = text.partition(":")
    if protocol not in ("TCP", "UDP", "SCTP") or not number.isdecimal() or not 0 < int(number) < 65536:
        raise ValueError(f"host_policy: {text!r} is no port; it is PROTOCOL:NUMBER, such as TCP:22")
    return PortRange(Protocol[protocol], int(number), int(number))
