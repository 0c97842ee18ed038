"""The way in: a batch of the kernel's events becomes named records in the store."""

from __future__ import annotations

import numpy as np

from axoneme.flows.columns import Ring
from axoneme.flows.events import Events, Records, Vocabulary, stamp
from axoneme.flows.names import Names
from axoneme.flows.rules import RuleJournal
from axoneme.flows.store import FlowStore
from axoneme.flows.traffic import Tally
from axoneme.model.policy import Direction


class Ingest:
    def __init__(self, store: FlowStore, names: Names, rules: RuleJournal, vocabulary: Vocabulary) -> None:
        self._store = store
        self._names = names
        self._rules = rules
        self._vocabulary = vocabulary
        #: Of the connections to services that have ended.
        self.ended = Tally()

    def flows(self, events: Events, offset: int) -> None:
        """New and ended connections; ``offset``: wall clock minus CLOCK_MONOTONIC, ns."""
        self._append(self._store.flows, events, offset)
        self.ended.add(events, (events["kind"] == self._vocabulary.end) & (events["service"] != 0))

    def drops(self, events: Events, offset: int) -> None:
        self._append(self._store.drops, events, offset)

    def tidy(self) -> None:
        """Now and then: takes up what the journal says, and gives up names that nothing refers to."""
        self._read_journal()
        if self._names.crowded:
            rings = (self._store.flows, self._store.drops)
            self._names.collect(
                ring.column(f"{side}_row") for ring in rings for side in ("source", "destination")
            )

    def _append(self, ring: Ring, events: Events, offset: int) -> None:
        if not len(events):
            return
        records = stamp(events, self._store.dtype, offset, ring.newest)
        if self._names.knows_not(records) or self._rules.services.knows_not(records):
            self._read_journal()
        self._names.resolve(records)
        self._attribute(records)
        ring.append(records)

    def _read_journal(self) -> None:
        self._rules.catch_up()
        for number, labels in self._rules.take_identities().items():
            self._names.put_identity(number, labels)

    def _attribute(self, records: Records) -> None:
        """Gives the drops for which no rule was found the policies on whose account that denies.

        The subject is the end whose policy was asked: the sender for egress, the receiver for ingress;
        of a reply the other way round, for policy is about the connection.
        """
        vocabulary = self._vocabulary
        by_default = (records["kind"] == vocabulary.drop) & (records["reason"] == vocabulary.policy_default)
        if not by_default.any():
            return
        ingress = (records["flags"] & vocabulary.ingress) != 0
        reply = (records["flags"] & vocabulary.reply) != 0
        subjects = np.where(ingress == reply, records["source_identity"], records["destination_identity"])
        self._rules.catch_up()
        for direction, column, wanted in (
            (Direction.INGRESS, "ingress_rule", ingress),
            (Direction.EGRESS, "egress_rule", ~ingress),
        ):
            places = np.flatnonzero(by_default & wanted & (records[column] == 0))
            numbers, inverse = np.unique(subjects[places], return_inverse=True)
            rules = [self._rules.default_of(number, direction) for number in numbers.tolist()]
            records[column][places] = np.array(rules, np.uint32)[inverse]
