"""What proxies tell, joined with what the datapath knows of the same connection.

A proxy knows two addresses. Who has them, which policies sent the connection there, and which service was
called stand in the flow table's entry. Where that is gone already, the identities are those that the
addresses have now.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from axoneme.flows.events import L7, Events, Mask, Verdict, Vocabulary
from axoneme.flows.expiry import FlowTable
from axoneme.identity.prefixes import address_bytes
from axoneme.model.l7event import L7Event

_PROTOCOLS: Final = {"TCP": 6, "UDP": 17}
_SWAPPED: Final = ("", "_port", "_identity", "_endpoint")
#: How old news may be, in ns.
_OLDEST: Final = 60_000_000_000


class Connections(Protocol):
    """As much of `axoneme.flows.kernel.Kernel` as is asked here."""

    flow_key: np.dtype[np.void]

    def connections(self, keys: npt.NDArray[np.void]) -> tuple[Mask, npt.NDArray[np.void]]:
        """Which of the keys stand in the flow table, and their entries."""

    def identities(self, addresses: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
        """Of addresses, of shape (n, 16); 0 for those that nobody knows."""


@dataclass(frozen=True, slots=True)
class Joined:
    """In order of time, one event for each that was told; ``malformed``: those that name no two ends."""

    told: list[L7Event]
    events: Events
    malformed: int


def join(
    told: Sequence[L7Event],
    known: Connections,
    meaning: FlowTable,
    vocabulary: Vocabulary,
    now: int,
    offset: int,
) -> Joined:
    """``now``: CLOCK_MONOTONIC; ``offset``: wall clock minus that; in ns."""
    good: list[L7Event] = []
    ends: list[bytes] = []
    for each in sorted(told, key=lambda event: event.time):
        try:
            ends.append(address_bytes(each.source) + address_bytes(each.destination))
        except ValueError:
            continue
        good.append(each)
    calls = np.zeros(len(good), vocabulary.event)
    if not good:
        return Joined(good, calls, len(told))
    addresses = np.frombuffer(b"".join(ends), np.uint8).reshape(-1, 2, 16)
    calls["source"], calls["destination"] = addresses[:, 0], addresses[:, 1]
    calls["source_port"] = [each.source_port & 0xFFFF for each in good]
    calls["destination_port"] = [each.destination_port & 0xFFFF for each in good]
    calls["protocol"] = [_PROTOCOLS.get(each.protocol, 0) for each in good]
    keys = meaning.tuples(calls, known.flow_key)
    found, flows = known.connections(keys)
    events = calls
    events[found] = meaning.described(keys[found], flows[found], vocabulary)
    for side in ("source", "destination"):
        events[f"{side}_identity"][~found] = known.identities(events[side][~found])
    events["kind"] = L7
    events["time"] = np.clip([each.time - offset for each in good], max(0, now - _OLDEST), now)
    events["reason"] = [Verdict.__members__.get(each.verdict, 0) for each in good]
    ingress = np.array([each.direction == "ingress" for each in good])
    audited = events["reason"] == Verdict.AUDIT
    # What came over a connection that policies would have denied, these would not have let pass either.
    tried = vocabulary.audited_egress | vocabulary.audited_ingress
    passed = events["reason"] == Verdict.FORWARDED
    events["reason"][passed & (events["flags"] & tried != 0)] = Verdict.AUDIT
    own = vocabulary.proxied | vocabulary.served | tried
    events["flags"] = (
        (events["flags"] & own)
        | np.where(ingress, vocabulary.ingress, 0)
        | np.where(audited & ingress, vocabulary.audited_ingress, 0)
        | np.where(audited & ~ingress, vocabulary.audited_egress, 0)
    )
    return Joined(good, _answers_from_who_answers(events, good, vocabulary), len(told) - len(good))


def _answers_from_who_answers(events: Events, told: Sequence[L7Event], vocabulary: Vocabulary) -> Events:
    """Of an answer, the source is the end that was called."""
    answers = np.array([each.type == "RESPONSE" for each in told])
    turned = events[answers]
    for name in _SWAPPED:
        source, destination = turned[f"source{name}"].copy(), turned[f"destination{name}"].copy()
        turned[f"source{name}"], turned[f"destination{name}"] = destination, source
    turned["flags"] |= vocabulary.reply
    events[answers] = turned
    return events
