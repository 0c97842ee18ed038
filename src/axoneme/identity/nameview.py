"""What a node's agent says of DNS names to who asks (``names.list``, ``status``)."""

from __future__ import annotations

import msgspec


class NameLine(msgspec.Struct, frozen=True):
    """One address of a name. ``ttl``: seconds that it counts on at least; ``endpoints``: who was told, a pod
    or an address; ``selectors``: what of policies matches the name; ``identity``: what the address has by
    its names, 0 for none."""

    name: str
    address: str
    ttl: int
    endpoints: list[str]
    selectors: list[str]
    identity: int


class NamesSummary(msgspec.Struct, frozen=True):
    """How many of each. ``problem``: why not all addresses are in the kernel; empty when they are."""

    selectors: int
    identities: int
    names: int
    addresses: int
    problem: str = ""
