"""What the programs count: packets and bytes that they have sent on, and that they have dropped and why.

A direction is a pod's: egress is what pods send, ingress what is given to them (or to the node itself, where
it is called as a service). What one pod sends to another of the same node is both. ``SERVICE`` is neither:
what a node only passes on that balances it to another one.
"""

from __future__ import annotations

from collections import Counter
from typing import Final, NamedTuple

import numpy as np

from axoneme.datapath.maps import Table
from axoneme.datapath.schema import Schema

INGRESS: Final = "INGRESS"
EGRESS: Final = "EGRESS"
SERVICE: Final = "SERVICE"


class Drops(NamedTuple):
    """``reason``: a number of ``enum drop_reason``."""

    reason: int
    direction: str
    packets: int
    bytes: int


class Forwards(NamedTuple):
    direction: str
    packets: int
    bytes: int


def drops(table: Table, schema: Schema) -> list[Drops]:
    """Those that there have been, since the table exists."""
    first = schema.enum("drops_index")["DROPS_INGRESS"]
    keys, counts = table.sums()
    found = []
    for place in np.flatnonzero(counts["packets"]).tolist():
        incoming, reason = divmod(int(keys[place]), first)
        one = counts[place]
        direction = INGRESS if incoming else EGRESS
        found.append(Drops(reason, direction, int(one["packets"]), int(one["bytes"])))
    return found


def forwards(table: Table, schema: Schema) -> list[Forwards]:
    """One for each direction, since the table exists."""
    seen = {number: name for name, number in schema.enum("hook_kind").items()}
    actions = {number: name for name, number in schema.enum("flow_action").items()}
    bits = schema.enum("forwards_index")["FORWARD_ACTION"]
    packets, octets = Counter({INGRESS: 0, EGRESS: 0, SERVICE: 0}), Counter[str]()
    keys, counts = table.sums()
    for place in np.flatnonzero(counts["packets"]).tolist():
        key, one = int(keys[place]), counts[place]
        for direction in _directions(seen[key & (1 << bits) - 1], actions[key >> bits]):
            packets[direction] += int(one["packets"])
            octets[direction] += int(one["bytes"])
    return [Forwards(direction, count, octets[direction]) for direction, count in packets.items()]


def _directions(seen: str, action: str) -> tuple[str, ...]:
    """Of packets seen there that were sent on so. Those that a proxy sends on for a pod were counted when
    they came from the pod, and are when they get to one."""
    if seen == "FROM_POD":
        return (EGRESS, INGRESS) if action == "ACTION_LOCAL" else (EGRESS,)
    if seen == "TO_POD":
        return () if action == "ACTION_PROXY" else (INGRESS,)
    if seen in ("FROM_UPLINK", "FROM_OVERLAY"):
        return {"ACTION_PROXY": (), "ACTION_ROUTE": (SERVICE,), "ACTION_TUNNEL": (SERVICE,)}.get(
            action, (INGRESS,)
        )
    return (EGRESS,) if action == "ACTION_PASS" else ()
