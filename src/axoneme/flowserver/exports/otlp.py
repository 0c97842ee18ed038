"""Flows to a collector of OpenTelemetry, over HTTP: each a log record, and all of them counted as metrics.

A record's attributes are the flow's fields by their paths, as in field masks: ``source.pod_name``.
A request that carries a trace context (``traceparent``) belongs to that trace.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExportResult
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

import axoneme
from axoneme.flows import render
from axoneme.flows.flow import Flow, LostEvents
from axoneme.flowserver.exports.config import OtlpConfig
from axoneme.flowserver.exports.masks import FieldMask

_SCOPE: Final = InstrumentationScope("axoneme.flows", axoneme.__version__)
_TROUBLE: Final = ("DROPPED", "ERROR")


class Collector:
    def __init__(self, config: OtlpConfig, mask: FieldMask, node: str) -> None:
        self._mask = mask
        self._endpoint = config.endpoint.rstrip("/")
        self._resource = Resource.create({"service.name": "axoneme", "k8s.node.name": node})
        access: dict[str, Any] = {
            "certificate_file": config.ca or None,
            "client_certificate_file": config.certificate or None,
            "client_key_file": config.key or None,
            "headers": config.headers,
            "timeout": config.timeout,
        }
        self._logs = OTLPLogExporter(f"{self._endpoint}/v1/logs", **access) if config.logs else None
        self._metrics: _Metrics | None = None
        if config.metrics:
            exporter = OTLPMetricExporter(f"{self._endpoint}/v1/metrics", **access)
            self._metrics = _Metrics(exporter, self._resource, config.interval)
        # What goes wrong is said once, by the export.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)

    def put(self, flows: Sequence[Flow], lost: Sequence[LostEvents], node: str, time: str) -> None:
        if self._metrics is not None:
            self._metrics.count(flows, lost)
        if self._logs is None or not (flows or lost):
            return
        records = [self._lost(each, node, time) for each in lost]
        records += [self._record(flow) for flow in flows]
        if self._logs.export(records) is not LogRecordExportResult.SUCCESS:
            raise OSError(0, "the collector does not take flows", f"{self._endpoint}/v1/logs")

    def close(self) -> None:
        if self._logs is not None:
            self._logs.shutdown()  # type: ignore[no-untyped-call]
        if self._metrics is not None:
            self._metrics.close()

    def _record(self, flow: Flow) -> ReadableLogRecord:
        trouble = flow.verdict in _TROUBLE
        return self._readable(
            LogRecord(
                timestamp=_nanoseconds(flow.time),
                observed_timestamp=_nanoseconds(flow.time),
                context=_trace(flow),
                severity_text="WARN" if trouble else "INFO",
                severity_number=SeverityNumber.WARN if trouble else SeverityNumber.INFO,
                body=f"{render.source(flow)} -> {render.destination(flow)} {flow.Summary} {flow.verdict}",
                attributes=dict(_attributes(msgspec.to_builtins(self._mask.of(flow)))),
                event_name="axoneme.flow",
            )
        )

    def _lost(self, lost: LostEvents, node: str, time: str) -> ReadableLogRecord:
        return self._readable(
            LogRecord(
                timestamp=_nanoseconds(time),
                observed_timestamp=_nanoseconds(time),
                severity_text="WARN",
                severity_number=SeverityNumber.WARN,
                body=render.lost(lost, node),
                attributes={"lost_events.source": lost.source, "lost_events.num": lost.num_events_lost},
                event_name="axoneme.lost_events",
            )
        )

    def _readable(self, record: LogRecord) -> ReadableLogRecord:
        return ReadableLogRecord(record, self._resource, _SCOPE)


class _Metrics:
    """Sent by a thread of their own; a collector that is away gets the sums when it is back."""

    def __init__(self, exporter: OTLPMetricExporter, resource: Resource, interval: float) -> None:
        reader = PeriodicExportingMetricReader(exporter, interval * 1000)
        self._provider = MeterProvider([reader], resource, shutdown_on_exit=False)
        meter = self._provider.get_meter("axoneme.flows", axoneme.__version__)
        self._flows = meter.create_counter("axoneme.flows", "{flow}", "Flows that were exported.")
        self._octets = meter.create_counter("axoneme.flow.bytes", "By", "What ended connections have moved.")
        self._lost = meter.create_counter("axoneme.flows.lost", "{flow}", "Flows that got lost before.")

    def count(self, flows: Sequence[Flow], lost: Sequence[LostEvents]) -> None:
        kinds = Counter(
            (each.verdict, each.event, each.traffic_direction, each.drop_reason_desc) for each in flows
        )
        for (verdict, event, direction, reason), number in kinds.items():
            labels = {"verdict": verdict, "event": event, "direction": direction}
            self._flows.add(number, labels | ({"drop_reason": reason} if reason else {}))
        ended = [each for each in flows if each.event == "end"]
        for direction, number in (
            ("sent", sum(each.bytes for each in ended)),
            ("received", sum(each.reply_bytes for each in ended)),
        ):
            if number:
                self._octets.add(number, {"direction": direction})
        for each in lost:
            self._lost.add(each.num_events_lost, {"source": each.source})

    def close(self) -> None:
        self._provider.shutdown(timeout_millis=2000)


def _nanoseconds(time: str) -> int:
    return int(np.datetime64(time.removesuffix("Z"), "ns").astype(np.int64))


def _trace(flow: Flow) -> Any:
    """The trace that a request belongs to (W3C Trace Context); None for others."""
    for header in flow.l7.http.headers if flow.l7 and flow.l7.http else ():
        if header.key.lower() == "traceparent":
            parts = header.value.split("-")
            try:
                trace, span = int(parts[1], 16), int(parts[2], 16)
            except (IndexError, ValueError):
                return None
            context = SpanContext(trace, span, is_remote=True, trace_flags=TraceFlags(0))
            return set_span_in_context(NonRecordingSpan(context))
    return None


def _attributes(value: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves, by their paths. Lists of objects have their members' fields as lists."""
    for name, inner in value.items():
        where = f"{path}{name}"
        if isinstance(inner, Mapping):
            yield from _attributes(inner, f"{where}.")
        elif isinstance(inner, list | tuple) and inner and isinstance(inner[0], Mapping):
            for field in dict.fromkeys(field for each in inner for field in each):
                yield f"{where}.{field}", [str(each.get(field, "")) for each in inner]
        elif inner not in (None, "", [], ()):
            yield where, inner
