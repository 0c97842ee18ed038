"""What a flow server counts for its node's agent, whose metrics tell it (``figures`` on ``flows.sock``)."""

from __future__ import annotations

import msgspec

#: By place in `Walked`: family and protocol, as Cilium's metrics say them.
KINDS = (("ipv4", "TCP"), ("ipv4", "non-TCP"), ("ipv6", "TCP"), ("ipv6", "non-TCP"))


class Walked(msgspec.Struct, frozen=True):
    """Walks through the flow table. ``alive``: entries that the last one left, by `KINDS`; ``deleted``: that
    it took out; ``seconds``: what it took, rests not counted."""

    walks: int = 0
    alive: tuple[int, ...] = (0, 0, 0, 0)
    deleted: tuple[int, ...] = (0, 0, 0, 0)
    seconds: float = 0.0
    settled: int = 0  # entries of `flows`
    half_open: int = 0


class Counted(msgspec.Struct, frozen=True):
    """A series: of a counter the value, of a histogram also how many fell into each bucket."""

    labels: tuple[str, ...]
    value: float
    buckets: tuple[int, ...] = ()


class Figures(msgspec.Struct, frozen=True):
    """``requests`` by what became of them and which proxy told; ``replies``: seconds by error, protocol and
    scope, with the default buckets."""

    walked: Walked
    requests: list[Counted]
    replies: list[Counted]
