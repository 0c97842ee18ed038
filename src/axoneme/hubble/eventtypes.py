"""What Hubble calls the kind of an event: its message type, and what that has inside."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from axoneme.flows.events import L7, Records, Vocabulary

DROP: Final = 1
TRACE: Final = 4
POLICY_VERDICT: Final = 5

#: Where a connection that no policy decided goes: sub types of `TRACE`.
TO_ENDPOINT, TO_PROXY, TO_HOST, TO_NETWORK = 0, 1, 2, 11
#: flow.TraceObservationPoint has another number for the first.
OBSERVATION_POINTS: Final = {TO_ENDPOINT: 101}

_HOST: Final = 1

Numbers = npt.NDArray[Any]


def event_types(vocabulary: Vocabulary, records: Records) -> tuple[Numbers, Numbers]:
    """Type and sub type of each: a drop's reason, a policy verdict's direction, a trace's point."""
    kind, flags = records["kind"], records["flags"]
    decided = (kind == vocabulary.new) & ((records["egress_rule"] != 0) | (records["ingress_rule"] != 0))
    types = np.where(decided, np.uint8(POLICY_VERDICT), np.uint8(TRACE))
    types[kind == vocabulary.drop] = DROP
    types[kind == L7] = L7
    to_proxy = (flags & vocabulary.proxied != 0) & (records["zone"] == vocabulary.zone_client)
    host = records["destination_identity"] == _HOST
    points = np.where(host, np.uint8(TO_HOST), np.uint8(TO_NETWORK))
    points[records["destination_endpoint"] != 0] = TO_ENDPOINT
    points[to_proxy] = TO_PROXY
    subs = np.where(types == TRACE, points, np.uint8(0))
    subs[decided] = vocabulary.directions(records)[decided]
    dropped = types == DROP
    subs[dropped] = records["reason"][dropped]
    return types, subs
