"""Which policies for a node itself are in force there, and for how long: what an agent says of them."""

from __future__ import annotations

import msgspec


class HostPolicyState(msgspec.Struct, frozen=True):
    """What `axo status` shows. ``pending``: objects that are tried; ``seconds``: for how long still;
    ``given_up``: those that nobody confirmed in time."""

    confirmed: list[str] = []
    pending: list[str] = []
    seconds: float = 0.0
    given_up: list[str] = []
