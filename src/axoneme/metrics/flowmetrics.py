"""Hubble's metrics, made from flow records as they come in: a batch at a time, and column by column.

    metrics = FlowMetrics(settings(DEFAULT), log, "hubble")
    metrics.add(records)            # as often as there are some
    exposition([*metrics.families()])

A connection is one record when it begins and one when it ends, where Hubble has an event now and then. So
what counts connections here counts each once: ports and ways to the world when they begin, TCP's flags and
ICMP when they end, as then it is known whether there was an answer.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from axoneme.flows.events import Records, Vocabulary, join
from axoneme.flows.names import Names
from axoneme.metrics.contexts import Side
from axoneme.metrics.dnsnames import DnsNames
from axoneme.metrics.families import Counter, Family
from axoneme.metrics.flowbatch import FlowBatch
from axoneme.metrics.flowkinds import FlowMetric, Kit
from axoneme.metrics.flowoptions import Setting
from axoneme.metrics.parties import Parties, Pod
from axoneme.metrics.requestkinds import KINDS
from axoneme.model.l7event import L7Event

log = logging.getLogger(__name__)

#: Records that may wait: so many at once cost least.
_WAITING: Final = 4096
#: Seconds that they wait at most, and between two looks for pods that are gone.
_EVERY: Final = 0.5
_LOOK_EVERY: Final = 10.0
#: Ends that have a number, for each series that a metric may have: metrics share them.
_PARTIES: Final = 4
#: Seconds for which the series of a pod stay when it is gone: for a scraper that is late.
GRACE: Final = 60.0


class FlowMetrics:
    """``most``: series of a metric (histograms count once). ``alive``: whether there is such a pod."""

    def __init__(
        self,
        settings: Sequence[Setting],
        names: Names,
        vocabulary: Vocabulary,
        alive: Callable[[Pod], bool],
        prefix: str = "hubble",
        most: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._vocabulary = vocabulary
        self._alive = alive
        self._clock = clock
        self._prefix = prefix
        self._dns = DnsNames()
        self._parties: dict[Side, Parties] = {}

        def parties(side: Side) -> Parties:
            if side not in self._parties:
                self._parties[side] = Parties(side, names, self._dns.of, _PARTIES * most)
            return self._parties[side]

        kit = Kit(prefix, parties, vocabulary, most)
        self._metrics: list[FlowMetric] = [KINDS[each.name](each, kit) for each in settings]
        self._records: list[Records] = []
        self._requests: list[Records] = []
        self._told: list[L7Event] = []
        self._since = self._looked = clock()

    def add(self, records: Records, told: Sequence[L7Event] = ()) -> None:
        """``told``: of each record, where these are of requests. They are counted soon."""
        if told:
            self._requests.append(records)
            self._told.extend(told)
        else:
            self._records.append(records)
        waiting = sum(map(len, self._records)) + len(self._told)
        if waiting >= _WAITING or self._clock() - self._since >= _EVERY:
            self.count()

    def count(self) -> None:
        """Before rows of names are given to others, and before anybody looks."""
        self._since = self._clock()
        records, self._records = self._records, []
        requests, self._requests = self._requests, []
        told, self._told = self._told, []
        for each in told:
            self._dns.learn(each)
        if records:
            self._count(FlowBatch(join(*records), self._vocabulary, self._since))
        if requests:
            self._count(FlowBatch(join(*requests), self._vocabulary, self._since, told))

    def _count(self, batch: FlowBatch) -> None:
        for metric in self._metrics:
            metric.count(batch)

    def tidy(self) -> None:
        """Now and then: counts what waits; takes away the series of pods that are gone."""
        self.count()
        now = self._clock()
        if now - self._looked < _LOOK_EVERY:
            return
        self._looked = now
        for parties in self._parties.values():
            gone = parties.gone(self._alive, now, GRACE)
            if parties.crowded:
                used = {number for each in self._metrics for number in each.used(parties)}
                gone.extend(parties.unused(used))
            if gone := sorted(set(gone)):
                for metric in self._metrics:
                    metric.forget(parties, gone)
                parties.forget(gone)
        for metric in self._metrics:
            metric.tidy()

    def families(self) -> Iterator[Family]:
        self.count()
        overflow = Counter(
            "axoneme_flow_metrics_overflow_total",
            "Series for which there was no room, and which were counted in those of overflow",
            ("metric",),
        )
        evicted = Counter(
            "axoneme_flow_metrics_evicted_total",
            "Series that were given up after a long silence, to make room for others",
            ("metric",),
        )
        for metric in self._metrics:
            for family in metric.families:
                yield family
                overflow.add(family.name, by=family.overflowed)
                evicted.add(family.name, by=family.evicted)
        yield overflow
        yield evicted
