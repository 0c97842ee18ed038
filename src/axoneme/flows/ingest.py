"""The way in: a batch of the kernel's events becomes named records in the store."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from axoneme.flows.columns import Ring
from axoneme.flows.events import Events, Records, Verdict, Vocabulary, stamp
from axoneme.flows.joining import Joined
from axoneme.flows.names import Names
from axoneme.flows.requests import Requests, layer7
from axoneme.flows.rules import RuleJournal
from axoneme.flows.store import FlowStore
from axoneme.flows.traffic import Tally
from axoneme.model.l7event import L7Event
from axoneme.model.policy import Direction


class Ingest:
    def __init__(
        self,
        store: FlowStore,
        names: Names,
        rules: RuleJournal,
        requests: Requests,
        vocabulary: Vocabulary,
    ) -> None:
        self._store = store
        self._requests = requests
        self._names = names
        self._rules = rules
        self._vocabulary = vocabulary
        #: Told of what comes, when it stands in the store: records of connections, and of requests.
        self.on_flows: Callable[[Records], None] = lambda _: None
        self.on_requests: Callable[[Records, Sequence[L7Event]], None] = lambda *_: None
        #: Told before rows of names are given to others.
        self.before_tidying: Callable[[], None] = lambda: None
        #: Of the connections to services that have ended.
        self.ended = Tally()

    def flows(self, events: Events, offset: int) -> None:
        """New and ended connections; ``offset``: wall clock minus CLOCK_MONOTONIC, ns."""
        if (records := self._append(self._store.flows, events, offset)) is not None:
            self.on_flows(records)
        self.ended.add(events, (events["kind"] == self._vocabulary.end) & (events["service"] != 0))

    def drops(self, events: Events, offset: int) -> None:
        if (records := self._append(self._store.drops, events, offset)) is not None:
            self.on_flows(records)

    def requests(self, joined: Joined, offset: int) -> None:
        """What proxies have told."""
        refused = joined.events["reason"] == Verdict.DROPPED
        numbers = np.array(
            [self._requests.put(layer7(each), each.verdict == Verdict.DROPPED.name) for each in joined.told],
            np.uint64,
        )
        for ring, which in ((self._store.flows, ~refused), (self._store.drops, refused)):
            records = self._append(ring, joined.events[which], offset, numbers[which])
            if records is not None:
                self.on_requests(records, [joined.told[place] for place in np.flatnonzero(which)])

    def tidy(self) -> None:
        """Now and then: takes up what the journal says, and gives up names that nothing refers to."""
        self.before_tidying()
        self._read_journal()
        self._store.tidy()
        if self._names.crowded:
            rings = (self._store.flows, self._store.drops)
            self._names.collect(
                ring.packed[f"{side}_row"] for ring in rings for side in ("source", "destination")
            )

    def _append(
        self, ring: Ring, events: Events, offset: int, requests: npt.NDArray[np.uint64] | None = None
    ) -> Records | None:
        """``requests``: numbers of those whose events these are, in order of time. None: no events."""
        if not len(events):
            return None
        records = stamp(events, self._store.dtype, offset, ring.newest)
        if requests is not None:
            records["request"] = requests
        if self._names.knows_not(records) or self._rules.services.knows_not(records):
            self._read_journal()
        self._names.resolve(records)
        self._attribute(records)
        ring.append(records)
        return records

    def _read_journal(self) -> None:
        self._rules.catch_up()
        for number, labels in self._rules.take_identities().items():
            self._names.put_identity(number, labels)

    def _attribute(self, records: Records) -> None:
        """Gives what no rule allows (and was dropped, or passed because that is only tried) the policies on
        whose account it is denied.

        The subject is the end whose policy was asked: the sender for egress, the receiver for ingress;
        of a reply the other way round, for policy is about the connection.
        """
        vocabulary = self._vocabulary
        flags = records["flags"]
        dropped = (records["kind"] == vocabulary.drop) & (records["reason"] == vocabulary.policy_default)
        ingress = (flags & vocabulary.ingress) != 0
        by_default = {
            Direction.INGRESS: (dropped & ingress) | ((flags & vocabulary.audited_ingress) != 0),
            Direction.EGRESS: (dropped & ~ingress) | ((flags & vocabulary.audited_egress) != 0),
        }
        if not any(mask.any() for mask in by_default.values()):
            return
        reply = (flags & vocabulary.reply) != 0
        self._rules.catch_up()
        for direction, mask in by_default.items():
            column = f"{direction.name.lower()}_rule"
            of_source = (direction is Direction.INGRESS) == reply
            subjects = np.where(of_source, records["source_identity"], records["destination_identity"])
            places = np.flatnonzero(mask & (records[column] == 0))
            numbers, inverse = np.unique(subjects[places], return_inverse=True)
            rules = [self._rules.default_of(number, direction) for number in numbers.tolist()]
            records[column][places] = np.array(rules, np.uint32)[inverse]
