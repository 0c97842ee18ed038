"""Metrics of a flow server: those made from flows, which it serves itself, and what it tells the agent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from axoneme.certificates.files import DIRECTORY
from axoneme.flows.events import Records, Vocabulary
from axoneme.flows.figures import Counted, Figures, Walked
from axoneme.flows.names import Names
from axoneme.flows.store import FlowStore
from axoneme.flowserver.config import FlowServerConfig
from axoneme.metrics.families import Counter, Family, Gauge, Histogram
from axoneme.metrics.flowmetrics import FlowMetrics
from axoneme.metrics.flowoptions import settings
from axoneme.metrics.process import process_metrics
from axoneme.metrics.serving import Exposition
from axoneme.model.l7event import L7Event


class Metering:
    """``lost_requests``: events of proxies that did not get here."""

    def __init__(
        self,
        config: FlowServerConfig,
        names: Names,
        store: FlowStore,
        vocabulary: Vocabulary,
        lost_requests: Callable[[], int],
    ) -> None:
        metrics = config.metrics
        self._where = metrics.where("flows_listen", config.state_path / DIRECTORY)
        self._prefix = metrics.flows_prefix
        self._store = store
        self._lost_requests = lost_requests
        self._flows: FlowMetrics | None = None
        if self._where:
            self._flows = FlowMetrics(
                settings(metrics.flows), names, vocabulary, names.has_pod, self._prefix, metrics.series
            )
        #: Requests that proxies have told of, for the agent's metrics, which has its own prefix for them.
        self.requests = Counter(
            "policy_l7_total", "Number of total proxy requests handled", ("rule", "proxy_type")
        )
        self.replies = Histogram(
            "proxy_upstream_reply_seconds",
            "Seconds waited to get a reply from an upstream server",
            ("error", "protocol_l7", "scope"),
        )

    def flows(self, records: Records) -> None:
        if self._flows:
            self._flows.add(records)

    def told(self, records: Records, events: Sequence[L7Event]) -> None:
        for event in events:
            self._judge(event)
        if self._flows:
            self._flows.add(records, events)

    def _judge(self, event: L7Event) -> None:
        kind = "fqdn" if event.dns else "kafka" if event.kafka else "envoy"
        self.requests.add("received", kind)
        rule = {"DROPPED": "denied", "ERROR": "parse_errors"}.get(event.verdict, "forwarded")
        self.requests.add(rule, kind)
        if event.type == "RESPONSE" and event.latency_ns:
            protocol = "dns" if event.dns else "kafka" if event.kafka else "http"
            self.replies.observe(event.latency_ns / 1e9, "", protocol, "upstream")

    def figures(self, walked: Walked) -> Figures:
        """For the agent."""
        return Figures(
            walked,
            [Counted(labels, value) for labels, value in self.requests.series()],
            [Counted(labels, total, tuple(counts)) for labels, counts, total in self.replies.series()],
        )

    def tidy(self) -> None:
        if self._flows:
            self._flows.tidy()

    async def serve(self) -> None:
        """Until cancelled; returns at once where nobody wants to know."""
        if self._where and self._flows:
            collectors = [self._flows.families, self._families, process_metrics(self._prefix)]
            await Exposition(collectors).serve(self._where)

    def _families(self) -> Iterator[Family]:
        lost = Counter(f"{self._prefix}_lost_events_total", "Number of lost events", ("source",))
        losses = self._store.kernel_losses
        lost.add("perf_event_ring_buffer", by=losses.flows + losses.drops)
        lost.add("observer_events_queue", by=self._lost_requests())
        yield lost
        kept = Gauge("axoneme_flow_store_flows", "Flows that the node's flow server keeps", ("ring",))
        room = Gauge("axoneme_flow_store_capacity", "Flows that it can keep", ("ring",))
        for ring, of in ((self._store.flows, "flows"), (self._store.drops, "drops")):
            kept.set(len(ring), of)
            room.set(ring.capacity, of)
        yield kept
        yield room
