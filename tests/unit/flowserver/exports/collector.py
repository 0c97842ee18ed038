"""Stands in for a collector of OpenTelemetry: takes OTLP over HTTP, and decodes it."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

_KINDS = {"/v1/logs": ExportLogsServiceRequest, "/v1/metrics": ExportMetricsServiceRequest}


class Collector:
    """``status``: what it answers; 200 takes what comes."""

    def __init__(self) -> None:
        self.status = 200
        self.requests: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.endpoint = ""

    def logs(self) -> list[Any]:
        return [
            record
            for request in self.requests
            if isinstance(request, ExportLogsServiceRequest)
            for resource in request.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]

    def resources(self) -> list[dict[str, str]]:
        return [
            {each.key: each.value.string_value for each in resource.resource.attributes}
            for request in self.requests
            if isinstance(request, ExportLogsServiceRequest)
            for resource in request.resource_logs
        ]

    def sums(self) -> dict[str, int]:
        """Of the last metrics that came: totals by name."""
        for request in reversed(self.requests):
            if isinstance(request, ExportMetricsServiceRequest):
                return {
                    metric.name: sum(point.as_int for point in metric.sum.data_points)
                    for resource in request.resource_metrics
                    for scope in resource.scope_metrics
                    for metric in scope.metrics
                }
        return {}


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            if collector.status == 200:
                collector.headers.append({name.lower(): value for name, value in self.headers.items()})
                collector.requests.append(_KINDS[self.path].FromString(body))
            self.send_response(collector.status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def attributes(record: Any) -> dict[str, Any]:
    return {each.key: _value(each.value) for each in record.attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind)
