"""What an agent counts of its own work, and serves at ``metrics.listen``; what it holds tells `agent.gauges`.

Everything here costs nothing where no address is configured: nothing is measured then.
"""

from __future__ import annotations

import logging
import time
from collections import Counter as Tally
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from axoneme.agent.config import AgentConfig
from axoneme.agent.control import Control
from axoneme.agent.pods import Pods
from axoneme.certificates.files import DIRECTORY
from axoneme.flows.figures import KINDS, Figures
from axoneme.metrics.families import Collector, Counter, Family, Gauge, Histogram
from axoneme.metrics.process import process_metrics
from axoneme.metrics.serving import Exposition
from axoneme.model.state import NODES
from axoneme.rpc import RpcError
from axoneme.rpc.asyncclient import AsyncClient
from axoneme.sources.measured import MeasuredStore
from axoneme.sources.store import Change, Store

#: Seconds: of what takes milliseconds when all is well.
FINE: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
#: Seconds that the flow server is waited for at a scrape.
_PATIENCE: Final = 2.0


class Metering:
    def __init__(self, config: AgentConfig) -> None:
        """ValueError where `metrics.listen` cannot be served as it stands."""
        prefix = self.prefix = config.metrics.prefix
        self._where = config.metrics.where("listen", config.state_path / DIRECTORY)
        self._flow_server = AsyncClient(config.flows_socket_path, _PATIENCE)
        self._failures: Tally[str] = Tally()
        self.store = Histogram(
            f"{prefix}_kvstore_operations_duration_seconds",
            "Duration in seconds of operations on the shared state",
            ("scope", "kind", "action", "outcome"),
            FINE,
        )
        self.attached = Histogram(
            "axoneme_endpoint_attach_seconds",
            "Duration in seconds of attaching a pod: until it can send and receive under its policy",
            ("outcome",),
            FINE,
        )
        self.regenerations = Counter(
            f"{prefix}_endpoint_regenerations_total",
            "Pods that were given an identity and its policy: when they were attached, or changed labels",
            ("outcome",),
        )
        self.regeneration = Histogram(
            f"{prefix}_endpoint_regeneration_time_stats_seconds", "What that took", ("scope", "status"), FINE
        )
        self.policies = Histogram(
            f"{prefix}_policy_implementation_delay",
            "Time in seconds between hearing of a policy and having it in force on all endpoints",
            ("source",),
            FINE,
        )
        self.updates = Histogram(
            f"{prefix}_policy_incremental_update_duration",
            "Time in seconds to bring the tables up to date with what was heard",
            ("scope",),
            FINE,
        )
        self.changes = Counter(f"{prefix}_policy_change_total", "Policy changes by outcome", ("outcome",))
        for outcome in ("success", "fail"):
            self.changes.add(outcome, by=0)
        self.services = Counter(
            f"{prefix}_services_events_total", "Number of services events by action", ("action",)
        )
        self.runs = Counter(
            f"{prefix}_controllers_runs_total",
            "Number of times that a controller process was run",
            ("status",),
        )
        self.run_times = Histogram(
            f"{prefix}_controllers_runs_duration_seconds", "Duration in seconds of that", ("status",), FINE
        )
        self.warnings = Counter(
            f"{prefix}_errors_warnings_total",
            "Number of errors and warnings that were logged",
            ("level", "subsystem"),
        )
        self.events = Counter(
            f"{prefix}_kubernetes_events_total",
            "Number of objects' changes heard",
            ("scope", "action", "status"),
        )
        self.nodes = Counter(
            f"{prefix}_nodes_all_events_received_total",
            "Number of changes of nodes heard",
            ("event_type", "source"),
        )
        if self._where:
            logging.getLogger().addHandler(_Counting(self.warnings))

    @property
    def wanted(self) -> bool:
        return self._where is not None

    def timed(self, store: Store) -> Store:
        if not self.wanted:
            return store
        return MeasuredStore(store, self._store_told)

    def _store_told(self, key: str, action: str, failed: bool, seconds: float) -> None:
        parts = key.split("/")
        scope = "/".join(parts[: 2 if parts[0] == "objects" else 1])
        kind = {"get": "read", "list": "read"}.get(action, "write")
        self.store.observe(seconds, scope, kind, action, "error" if failed else "success")

    @contextmanager
    def attaching(self) -> Iterator[None]:
        """A pod is attached."""
        began, outcome = time.monotonic(), "fail"
        try:
            with self.becoming():
                yield
            outcome = "success"
        finally:
            self.attached.observe(time.monotonic() - began, outcome)

    @contextmanager
    def becoming(self) -> Iterator[None]:
        """A pod is given an identity and its policy."""
        began, failed = time.monotonic(), True
        try:
            yield
            failed = False
        finally:
            took = time.monotonic() - began
            self.regenerations.add("fail" if failed else "success")
            self.regeneration.observe(took, "total", "failure" if failed else "success")

    @contextmanager
    def controller(self, name: str) -> Iterator[None]:
        """One run of something that is done again and again."""
        began, status = time.monotonic(), "failure"
        try:
            yield
            status = "success"
            self._failures.pop(name, None)
        except Exception:
            self._failures[name] += 1
            raise
        finally:
            self.runs.add(status)
            self.run_times.observe(time.monotonic() - began, status)

    def watch(self, control: Control, pods: Pods) -> None:
        """Has these tell what they do."""
        control.on_implemented = self._policies_implemented
        control.on_refused = lambda: self.changes.add("fail")
        pods.attaching, pods.becoming = self.attaching, self.becoming

    @contextmanager
    def settling(self) -> Iterator[None]:
        """Tables are brought up to date."""
        began = time.monotonic()
        yield
        self.updates.observe(time.monotonic() - began, "global")

    def heard(self, changes: Iterable[Change]) -> None:
        """Objects of the shared state have changed."""
        for change in changes:
            if change.key.startswith(NODES):
                self.nodes.add("delete" if change.value is None else "update", "kvstore")
            parts = change.key.split("/", 2)
            if parts[0] == "objects" and len(parts) > 1:
                action = "delete" if change.value is None else "update"
                self.events.add(parts[1], action, "success")
                if parts[1] in ("Service", "EndpointSlice"):
                    self.services.add(action)

    def _policies_implemented(self, changes: int, seconds: float) -> None:
        self.changes.add("success", by=changes)
        self.policies.observe(seconds, "kubernetes")

    # ---- what is served -------------------------------------------------------------------------

    async def serve(self, gauges: Collector) -> None:
        """Until cancelled; returns at once where nobody wants to know."""
        if self._where:
            collectors = [gauges, self._families, process_metrics(self.prefix)]
            await Exposition(collectors, [self._from_flow_server]).serve(self._where)

    def _families(self) -> Iterator[Family]:
        yield from (self.store, self.attached, self.regenerations, self.regeneration, self.policies)
        yield from (self.updates, self.changes, self.services, self.runs, self.run_times, self.warnings)
        yield from (self.events, self.nodes)
        failing = Gauge(f"{self.prefix}_controllers_failing", "Number of failing controllers")
        failing.set(len(self._failures))
        yield failing

    async def _from_flow_server(self) -> Iterable[Family]:
        try:
            figures = await self._flow_server.call("figures", result=Figures)
        except RpcError as error:
            raise OSError(str(error)) from error
        return told_by_flow_server(self.prefix, figures)


def told_by_flow_server(prefix: str, figures: Figures) -> list[Family]:
    """Of the flow table, through which it walks, and of proxies, which tell it."""
    walked = figures.walked
    entries = Gauge(
        f"{prefix}_datapath_conntrack_gc_entries",
        "Entries of the flow table that the last walk through it left (alive), and took out (deleted)",
        ("family", "protocol", "status"),
    )
    for status, counts in (("alive", walked.alive), ("deleted", walked.deleted)):
        for kind, count in zip(KINDS, counts, strict=True):
            entries.set(count, *kind, status)
    walks = Counter(
        f"{prefix}_datapath_conntrack_gc_runs_total",
        "Walks through the flow table",
        ("family", "protocol", "status"),
    )
    walks.add("all", "all", "completed", by=walked.walks)
    took = Gauge("axoneme_flow_table_walk_seconds", "CPU time of the last walk through the flow table")
    took.set(walked.seconds)
    requests = Counter(
        f"{prefix}_policy_l7_total", "Number of total proxy requests handled", ("rule", "proxy_type")
    )
    for each in figures.requests:
        requests.add(*each.labels, by=each.value)
    replies = Histogram(
        f"{prefix}_proxy_upstream_reply_seconds",
        "Seconds waited to get a reply from an upstream server",
        ("error", "protocol_l7", "scope"),
    )
    for each in figures.replies:
        replies.put(each.labels, each.buckets, each.value)
    return [entries, walks, took, requests, replies]


class _Counting(logging.Handler):
    """Counts what is logged."""

    def __init__(self, counter: Counter) -> None:
        super().__init__(logging.WARNING)
        self._counter = counter

    def emit(self, record: logging.LogRecord) -> None:
        level = "error" if record.levelno >= logging.ERROR else "warning"
        self._counter.add(level, record.name.removeprefix("axoneme."))
