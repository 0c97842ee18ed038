"""What a flow server says of itself."""

from __future__ import annotations

import msgspec


class Status(msgspec.Struct, frozen=True):
    """As in Hubble's ServerStatusResponse, and more."""

    node_name: str
    num_flows: int
    max_flows: int
    seen_flows: int
    uptime_ns: int
    flows_rate: float  # a second, over the last ten
    attached: bool  # whether the datapath's maps are there
    num_drops: int
    max_drops: int
    seen_drops: int
    lost_flows: int  # in the kernel, whose ring was full
    lost_drops: int
    lost_requests: int  # that proxies could not deliver, or that named no two ends
    readers: int
    connections: int  # entries in the flow table
    half_open: int  # begun by one side, or without room among those
    expired: int  # entries taken out of it since the start
    names: int
