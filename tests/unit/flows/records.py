"""Events made by hand, in the layout and with the numbers of ``bpf/tables.h``."""

from __future__ import annotations

from typing import Any

import numpy as np

from axoneme.flows.events import Events, Records, Vocabulary, record_dtype, stamp
from axoneme.flows.names import Names
from axoneme.identity.prefixes import address_bytes

NEW, END, DROP = 1, 2, 3
REPLY, INGRESS, MASQUERADED, SERVED = 1, 2, 4, 8
PROXIED, AUDITED_EGRESS, AUDITED_INGRESS = 16, 32, 64
DEFAULT_DENY, DENY, INVALID_SOURCE = 133, 181, 132
FIRST_LOCAL = 1 << 24

EVENT = np.dtype(
    [
        ("time", "<u8"),
        ("source", "u1", (16,)),
        ("destination", "u1", (16,)),
        ("source_port", ">u2"),
        ("destination_port", ">u2"),
        ("protocol", "u1"),
        ("kind", "u1"),
        ("reason", "u1"),
        ("flags", "u1"),
        ("source_identity", "<u4"),
        ("destination_identity", "<u4"),
        ("egress_rule", "<u4"),
        ("ingress_rule", "<u4"),
        ("packets", "<u4", (2,)),
        ("bytes", "<u8", (2,)),
        ("source_endpoint", "<u2"),
        ("destination_endpoint", "<u2"),
        ("tcp_flags", "u1"),
        ("icmp_type", "u1"),
        ("icmp_code", "u1"),
        ("zone", "u1"),
        ("hook", "<u4"),
        ("nat_port", ">u2"),
        ("frontend_port", ">u2"),
        ("nat_address", "u1", (16,)),
        ("frontend", "u1", (16,)),
        ("service", "<u4"),
        ("backend", "<u4"),
        ("started", "<u8"),
        ("handshake", "<u4"),
        ("rtt", "<u4"),
        ("min_rtt", "<u4"),
        ("retransmissions", "<u2", (2,)),
    ]
)

ENUMS = {
    "event_kind": {"EVENT_NEW": NEW, "EVENT_END": END, "EVENT_DROP": DROP},
    "event_flag": {
        "EVENT_REPLY": REPLY,
        "EVENT_INGRESS": INGRESS,
        "EVENT_MASQUERADED": MASQUERADED,
        "EVENT_SERVED": SERVED,
        "EVENT_PROXIED": PROXIED,
        "EVENT_AUDITED_EGRESS": AUDITED_EGRESS,
        "EVENT_AUDITED_INGRESS": AUDITED_INGRESS,
        "EVENT_AUTHENTICATED": 128,
    },
    "zone": {"ZONE_CLIENT": 0, "ZONE_PROXY": 1},
    "shadow": {"SHADOW_EGRESS": 1, "SHADOW_INGRESS": 2, "SHADOW_AUTHENTICATED": 4},
    "drop_reason": {
        "DROP_NONE": 0,
        "DROP_INVALID_SOURCE": INVALID_SOURCE,
        "DROP_POLICY_DEFAULT": DEFAULT_DENY,
        "DROP_POLICY_DENY": DENY,
        "DROP_UNAUTHENTICATED": 189,
        "DROP_UNROUTABLE": 211,
    },
    "identity": {
        "IDENTITY_UNKNOWN": 0,
        "IDENTITY_HOST": 1,
        "IDENTITY_WORLD": 2,
        "IDENTITY_REMOTE_NODE": 6,
        "IDENTITY_FIRST_CLUSTER": 256,
        "IDENTITY_FIRST_LOCAL": FIRST_LOCAL,
    },
    "hook": {"HOOK_EGRESS": 1 << 31},
    "tick": {"TICK_SHIFT": 30},
    "flow_state": {"FLOW_SYN_SENT": 0, "FLOW_ESTABLISHED": 1, "FLOW_CLOSING": 2, "FLOW_CLOSED": 3},
    "flow_flag": {"FLOW_FROM_LOW": 1, "FLOW_MASQUERADED": 2},
}

VOCABULARY = Vocabulary.read(EVENT, ENUMS)
DTYPE = record_dtype(EVENT)


def packed(text: str) -> Any:
    return np.frombuffer(address_bytes(text), np.uint8)


def event(**fields: Any) -> Events:
    """One event, an array of length 1: a TCP connection from 10.0.0.1 to 10.0.0.2 unless told otherwise."""
    made = np.zeros(1, EVENT)
    values = {
        "time": 1,
        "kind": NEW,
        "protocol": 6,
        "source": "10.0.0.1",
        "destination": "10.0.0.2",
        "source_port": 40000,
        "destination_port": 80,
        "source_identity": 300,
        "destination_identity": 301,
    } | fields
    for name, value in values.items():
        made[name] = packed(value) if isinstance(value, str) else value
    return made


def events(*made: Events) -> Events:
    return np.concatenate([each.view(f"V{EVENT.itemsize}") for each in made]).view(EVENT)


def records(*made: Events, offset: int = 0, names: Names | None = None) -> Records:
    """Stamped, and named if there are names."""
    found = stamp(events(*made), DTYPE, offset)
    if names is not None:
        names.resolve(found)
    return found


def some_names() -> Names:
    return Names(VOCABULARY.reserved, FIRST_LOCAL)
