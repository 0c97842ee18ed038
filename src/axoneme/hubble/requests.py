"""Requests, as Hubble's messages have them."""

from __future__ import annotations

from typing import Any

from axoneme.flows.flow import Layer7
from axoneme.flows.requests import summary
from axoneme.hubble.schema import enum, message


def trace_id(request: Layer7) -> str:
    """From the header ``traceparent`` (W3C Trace Context); empty where there is none."""
    for header in request.http.headers if request.http else ():
        if header.key.lower() == "traceparent":
            parts = header.value.split("-")
            return parts[1] if len(parts) >= 4 else ""
    return ""


def flow_of(request: Layer7) -> Any:
    """A ``flow.Flow`` with what there is to say of the request alone."""
    layer7: dict[str, Any] = {
        "type": enum("flow.L7FlowType").get(request.type, 0),
        "latency_ns": request.latency_ns,
    }
    details: dict[str, Any] = {"server_name": request.server_name, "reason": request.reason}
    if dns := request.dns:
        layer7["dns"] = {name: getattr(dns, name) for name in dns.__struct_fields__}
    elif http := request.http:
        layer7["http"] = {
            "code": http.code,
            "method": http.method,
            "url": http.url,
            "protocol": http.protocol,
            "headers": [{"key": header.key, "value": header.value} for header in http.headers],
        }
        details["grpc_status"] = http.grpc_status
    elif kafka := request.kafka:
        layer7["kafka"] = {
            "error_code": kafka.error_code,
            "api_version": kafka.api_version,
            "api_key": kafka.api_key,
            "correlation_id": kafka.correlation_id,
            "topic": kafka.topic,
        }
        details["kafka_client_id"] = kafka.client_id
    flow = message("flow.Flow")(l7=layer7, Summary=summary(request))
    told = message("axoneme.Request")(**details)
    if told.ByteSize():
        flow.details.request.CopyFrom(told)
    if trace := trace_id(request):
        flow.trace_context.parent.trace_id = trace
    return flow
