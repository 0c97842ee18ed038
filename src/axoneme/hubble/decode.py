"""From Hubble's messages back to the values that the rest of the program knows.

Of a server that is not ours the details are missing, and what only they say is empty.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import Any

from axoneme.flows import flow as values
from axoneme.hubble.schema import enum


def item(response: Any) -> values.Item | None:
    """An ``observer.GetFlowsResponse``; None for one that tells of nodes."""
    kind = response.WhichOneof("response_types")
    node = response.node_name.rpartition("/")[2]
    if kind == "flow":
        return values.Item(flow=flow(response.flow), node_name=node)
    if kind == "lost_events":
        lost = response.lost_events
        source = _names("flow.LostEventSource").get(lost.source, str(lost.source))
        told = values.LostEvents(source, "", lost.num_events_lost)
        return values.Item(lost_events=told, node_name=node)
    return None


def flow(message: Any) -> values.Flow:
    """A ``flow.Flow``; the node's name without that of its cluster."""
    details = message.details
    reason = message.drop_reason_desc
    interface = message.interface.index if message.HasField("interface") else 0
    return values.Flow(
        time=_time(message.time.seconds, message.time.nanos),
        verdict=_names("flow.Verdict").get(message.verdict, str(message.verdict)),
        drop_reason_desc=_names("flow.DropReason").get(reason, f"REASON_{reason}") if reason else "",
        IP=_ip(message.IP, details),
        l4=_layer4(message.l4),
        source=_endpoint(message.source, details.source_node),
        destination=_endpoint(message.destination, details.destination_node),
        Type=_names("flow.FlowType").get(message.Type, ""),
        node_name=message.node_name.rpartition("/")[2],
        l7=_layer7(message.l7, details.request) if message.HasField("l7") else None,
        event_type=values.EventType(message.event_type.type, message.event_type.sub_type),
        source_service=_service(message, "source_service"),
        destination_service=_service(message, "destination_service"),
        traffic_direction=_names("flow.TrafficDirection").get(message.traffic_direction, ""),
        is_reply=message.is_reply.value if message.HasField("is_reply") else None,
        interface=values.Interface(interface) if interface else None,
        proxy_port=message.proxy_port,
        egress_allowed_by=_policies(message.egress_allowed_by, details.egress_rules),
        ingress_allowed_by=_policies(message.ingress_allowed_by, details.ingress_rules),
        egress_denied_by=_policies(message.egress_denied_by, details.egress_rules),
        ingress_denied_by=_policies(message.ingress_denied_by, details.ingress_rules),
        Summary=message.Summary,
        event=details.event or _event(message),
        duration_ns=details.duration_ns,
        packets=details.packets,
        bytes=details.bytes,
        reply_packets=details.reply_packets,
        reply_bytes=details.reply_bytes,
        tcp_health=_tcp_health(details.tcp_health) if details.HasField("tcp_health") else None,
    )


def _event(message: Any) -> str:
    """As far as Hubble's own fields tell it."""
    if message.HasField("l7"):
        return _names("flow.L7FlowType").get(message.l7.type, "").lower()
    return "drop" if message.drop_reason_desc else "new"


def _ip(message: Any, details: Any) -> values.IP:
    version = _names("flow.IPVersion").get(message.ipVersion, "")
    return values.IP(
        message.source,
        message.destination,
        "" if version == "IP_NOT_USED" else version,
        source_xlated=message.source_xlated,
        source_port_xlated=details.source_port_xlated,
        protocol=details.protocol,
        frontend=details.frontend,
        frontend_port=details.frontend_port,
    )


def _layer4(message: Any) -> values.Layer4:
    kind = message.WhichOneof("protocol")
    if kind == "TCP":
        header, flags = message.TCP, message.TCP.flags
        set_ = values.TCPFlags(*(getattr(flags, name) for name in values.TCPFlags.__struct_fields__))
        return values.Layer4(TCP=values.TCP(header.source_port, header.destination_port, set_))
    if kind in ("UDP", "SCTP"):
        header = getattr(message, kind)
        ports: Any = {kind: values.Ports(header.source_port, header.destination_port)}
        return values.Layer4(**ports)
    if kind in ("ICMPv4", "ICMPv6"):
        header = getattr(message, kind)
        types: Any = {kind: values.ICMP(header.type, header.code)}
        return values.Layer4(**types)
    return values.Layer4()


def _endpoint(message: Any, node: str) -> values.Endpoint:
    return values.Endpoint(
        ID=message.ID,
        identity=message.identity,
        namespace=message.namespace,
        labels=tuple(message.labels),
        pod_name=message.pod_name,
        workloads=tuple(values.Workload(each.name, each.kind) for each in message.workloads),
        node_name=node,
    )


def _service(message: Any, field: str) -> values.Service | None:
    if not message.HasField(field):
        return None
    found = getattr(message, field)
    return values.Service(found.name, found.namespace, message.details.service_port)


def _policies(messages: Any, rules: Any) -> tuple[values.PolicyName, ...]:
    """The rules are those of the policies that allowed, or of those that denied: of which there are some."""
    places = [*rules, *[""] * (len(messages) - len(rules))]
    return tuple(
        values.PolicyName(each.name, each.namespace, each.kind, place)
        for each, place in zip(messages, places, strict=False)
    )


def _layer7(message: Any, request: Any) -> values.Layer7:
    kind = message.WhichOneof("record")
    record: Any = getattr(message, kind) if kind else None
    made: dict[str, Any] = {}
    if kind == "http":
        made["http"] = values.HTTP(
            record.code,
            record.method,
            record.url,
            record.protocol,
            tuple(values.HTTPHeader(each.key, each.value) for each in record.headers),
            request.grpc_status if request.HasField("grpc_status") else None,
        )
    elif kind == "dns":
        made["dns"] = values.DNS(
            record.query,
            tuple(record.ips),
            record.ttl,
            tuple(record.cnames),
            record.observation_source,
            record.rcode,
            tuple(record.qtypes),
            tuple(record.rrtypes),
        )
    elif kind == "kafka":
        made["kafka"] = values.Kafka(
            record.error_code,
            record.api_version,
            record.api_key,
            record.correlation_id,
            record.topic,
            request.kafka_client_id,
        )
    return values.Layer7(
        _names("flow.L7FlowType").get(message.type, ""),
        message.latency_ns,
        server_name=request.server_name,
        reason=request.reason,
        **made,
    )


def _tcp_health(message: Any) -> values.TCPHealth:
    return values.TCPHealth(**{name: getattr(message, name) for name in values.TCPHealth.__struct_fields__})


@cache
def _names(kind: str) -> dict[int, str]:
    return {number: name for name, number in enum(kind).items()}


@lru_cache(64)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _time(seconds: int, nanos: int) -> str:
    return f"{_second(seconds)}.{nanos:09}Z"
