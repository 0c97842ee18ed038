"""Some flow records at once, with the columns that metrics have in common, each made when somebody asks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from axoneme.flows.events import L7, Mask, Records, TrafficDirection, Verdict, Vocabulary, words
from axoneme.metrics.parties import Ids, Parties
from axoneme.model.l7event import L7Event

#: What `FlowBatch.protocols` has numbers for, by Hubble's names.
PROTOCOLS: Final = (
    *("Unknown L4", "TCP", "UDP", "ICMPv4", "ICMPv6", "SCTP"),
    *("Unknown L7", "DNS", "HTTP", "Kafka"),
)
TCP, UDP, ICMPV4, ICMPV6, SCTP, UNKNOWN_L7 = range(1, 7)
#: By protocol number of IP.
_OF_IP: Final = np.zeros(256, np.uint8)
_OF_IP[[6, 17, 1, 58, 132]] = TCP, UDP, ICMPV4, ICMPV6, SCTP
#: 10 zero bytes, then two of ones (RFC 4291, section 2.5.5.2), as words.
_MAPPED: Final = np.frombuffer(bytes(10) + b"\xff\xff" + bytes(4), np.uint64)[1]
_MAPPED_MASK: Final = np.frombuffer(bytes(8) + b"\xff" * 4 + bytes(4), np.uint64)[1]


class FlowBatch:
    """``told``: of each record, where these are of requests; else empty. ``now``: seconds, by a clock that
    does not step back."""

    def __init__(
        self, records: Records, vocabulary: Vocabulary, now: float, told: Sequence[L7Event] = ()
    ) -> None:
        self.now = now
        self.records = records
        self.vocabulary = vocabulary
        self.told = told
        self._ids: dict[tuple[int, str], Ids] = {}

    def __len__(self) -> int:
        return len(self.records)

    def ids(self, parties: Parties, field: str) -> Ids:
        key = id(parties), field
        found = self._ids.get(key)
        if found is None:
            found = self._ids[key] = parties.ids(self.records, field, self.ingress)
        return found

    def kind(self, kind: int) -> Mask:
        return np.asarray(self.records["kind"] == kind)

    @cached_property
    def verdicts(self) -> npt.NDArray[np.uint8]:
        return self.vocabulary.verdicts(self.records)

    @cached_property
    def passed(self) -> Mask:
        return np.isin(self.verdicts, (Verdict.FORWARDED, Verdict.REDIRECTED))

    @cached_property
    def ingress(self) -> Mask:
        return np.asarray(self.vocabulary.directions(self.records) == TrafficDirection.INGRESS)

    @cached_property
    def reply(self) -> Mask:
        return np.asarray(self.records["flags"] & self.vocabulary.reply != 0)

    @cached_property
    def protocols(self) -> npt.NDArray[np.uint8]:
        """Places in `PROTOCOLS`."""
        if self.told:
            return np.array([protocol_of(each) for each in self.told], np.uint8)
        found: npt.NDArray[np.uint8] = _OF_IP[self.records["protocol"]]
        return found

    @cached_property
    def reasons(self) -> npt.NDArray[np.uint8]:
        """Of drops; of requests that were refused there is none."""
        found: npt.NDArray[np.uint8] = np.where(self.kind(L7), 0, self.records["reason"]).astype(np.uint8)
        return found

    @cached_property
    def ipv6(self) -> Mask:
        address = words(self.records, "source")
        return np.asarray((address[:, 0] != 0) | (address[:, 1] & _MAPPED_MASK != _MAPPED))

    @cached_property
    def answered(self) -> Mask:
        """Of ends of connections: whether there was a packet from the other side."""
        return np.asarray(self.records["packets"][:, 1] > 0)

    def column(self, name: str) -> npt.NDArray[Any]:
        """In native order of bytes."""
        return self.records[name].astype(np.uint32)


def protocol_of(event: L7Event) -> int:
    """Its place in `PROTOCOLS`."""
    kinds = (event.dns, event.http, event.kafka)
    return next((UNKNOWN_L7 + 1 + place for place, kind in enumerate(kinds) if kind), UNKNOWN_L7)
