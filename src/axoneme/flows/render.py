"""Flows as text: one line each, a block each, or a table.

The functions take `Flow` values; `item` makes them of what came over the wire. Times are shown in
``zone``, by default the local one.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo

import msgspec

from axoneme.flows.flow import Endpoint, Flow, Item, LostEvents, PolicyName, Service

_RESERVED = "reserved:"
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def item(value: object) -> Item:
    """An item of the stream ``flows.observe``, from what the JSON decoder made of it."""
    return msgspec.convert(value, Item)


def json(flow: Flow) -> str:
    return msgspec.json.encode(flow).decode()


def compact(flow: Flow, zone: tzinfo | None = None) -> str:
    """``time node: source -> destination what VERDICT reason (by policy)``, at an end the counts.

    A service that was called stands between the two, as the packets go: ``-> shop/web:80 (service) ->``.
    """
    ends = [source(flow), "->", destination(flow)]
    if flow.l7 and flow.l7.type == "RESPONSE":
        ends = [destination(flow), "<-", source(flow)]  # as of the request: the client in front
    words = [
        f"{_time(flow.time, zone)} {flow.node_name}:",
        *ends,
        *_what(flow),
        flow.verdict,
        *([flow.drop_reason_desc] if flow.drop_reason_desc else []),
        *([f"({decision})"] if (decision := "; ".join(decisions(flow))) else []),
        *([counts(flow)] if flow.event == "end" else []),
        *([f"({measured})"] if (measured := health(flow)) else []),
    ]
    return _harmless(" ".join(words))


def block(flow: Flow) -> str:
    """What ``-o dict`` shows: a name and a value a line, longest name first in width."""
    lines = [
        ("TIMESTAMP", flow.time),
        ("NODE", flow.node_name),
        ("SOURCE", source(flow)),
        ("SOURCE LABELS", ", ".join(flow.source.labels)),
        ("DESTINATION", destination(flow)),
        ("DESTINATION LABELS", ", ".join(flow.destination.labels)),
        ("SERVICE", _service(flow)),
        ("TYPE", " ".join(_what(flow))),
        ("DIRECTION", flow.traffic_direction.lower()),
        ("VERDICT", flow.verdict),
        ("REASON", flow.drop_reason_desc),
        ("POLICIES", "; ".join(decisions(flow))),
        ("MASQUERADED AS", _masqueraded(flow)),
        ("SUMMARY", flow.Summary),
        ("COUNTS", counts(flow)),
        ("TCP", health(flow)),
    ]
    return "\n".join(f"{name:>18}: {_harmless(value)}" for name, value in lines if value)


def lost(events: LostEvents, node: str) -> str:
    """The sentence that stands where flows are missing."""
    if events.source == "OBSERVER_EVENTS_QUEUE":
        return f"{node}: {events.num_events_lost} requests not seen: proxies could not tell of them in time"
    what = "drops" if events.ring == "drops" else "connection events"
    if events.source == "PERF_EVENT_RING_BUFFER":
        return f"{node}: {events.num_events_lost} {what} lost: the kernel's ring buffer was full"
    return f"{node}: {events.num_events_lost} {what} missed: this reader is too slow for them"


class Table:
    """Lines of a table whose columns grow with what they have had to hold."""

    _HEADERS = ("TIMESTAMP", "NODE", "SOURCE", "DESTINATION", "TYPE", "VERDICT", "POLICY", "SUMMARY")

    def __init__(self, zone: tzinfo | None = None) -> None:
        self._zone = zone
        self._widths = [12, 8, 30, 30, 4, 9, 20, 0]
        self._widths = [max(w, len(name)) for w, name in zip(self._widths, self._HEADERS, strict=True)]

    def header(self) -> str:
        return self._line(self._HEADERS)

    def line(self, flow: Flow) -> str:
        reason = f" {flow.drop_reason_desc}" if flow.drop_reason_desc else ""
        return self._line(
            (
                _time(flow.time, self._zone),
                flow.node_name,
                source(flow),
                destination(flow),
                flow.event,
                flow.verdict + reason,
                "; ".join(decisions(flow)),
                "; ".join(filter(None, (counts(flow), health(flow))))
                if flow.event == "end"
                else flow.Summary,
            )
        )

    def _line(self, cells: tuple[str, ...]) -> str:
        cells = tuple(map(_harmless, cells))
        self._widths = [max(width, len(cell)) for width, cell in zip(self._widths, cells, strict=True)]
        return "  ".join(f"{cell:<{w}}" for cell, w in zip(cells, self._widths, strict=True)).rstrip()


def _harmless(text: str) -> str:
    """Requests have in them what clients like, and a terminal does what it is told."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


# ---- parts of a line -----------------------------------------------------------------------------


def source(flow: Flow) -> str:
    end = _end(flow.source, flow.IP.source, _ports(flow)[0])
    if flow.source_service is None:
        return end
    return f"{end} -> {_called(flow.source_service, flow.IP.frontend_port)}"


def destination(flow: Flow) -> str:
    port = _ports(flow)[1]
    end = _end(flow.destination, flow.IP.destination, port)
    if flow.destination_service is None:
        return end
    if not flow.IP.frontend:  # it has got no further than this
        return _called(flow.destination_service, port)
    return f"{_called(flow.destination_service, flow.IP.frontend_port)} -> {end}"


def decisions(flow: Flow) -> list[str]:
    """What decided the flow, a phrase a direction: ``ingress denied by NetworkPolicy shop/web``."""
    return list(_decisions(flow))


def counts(flow: Flow) -> str:
    if flow.event != "end":
        return f"{size(flow.bytes)}" if flow.bytes else ""
    return (
        f"sent {flow.packets} packets {size(flow.bytes)},"
        f" received {flow.reply_packets} packets {size(flow.reply_bytes)}"
        f" in {flow.duration_ns / 1e9:.3f} s"
    )


def health(flow: Flow) -> str:
    """``handshake 0.4 ms, rtt 0.3 ms (least 0.2 ms), sent again 2, by the other end 1``."""
    found = flow.tcp_health
    if found is None:
        return ""
    words = []
    if found.handshake_ns:
        words.append(f"handshake {milliseconds(found.handshake_ns)}")
    if found.rtt_ns:
        least = f" (least {milliseconds(found.min_rtt_ns)})" if found.min_rtt_ns else ""
        words.append(f"rtt {milliseconds(found.rtt_ns)}{least}")
    if found.retransmissions:
        words.append(f"sent again {found.retransmissions}")
    if found.reply_retransmissions:
        words.append(f"by the other end {found.reply_retransmissions}")
    return ", ".join(words)


def milliseconds(ns: int) -> str:
    """``0.04 ms``, ``12 ms``: two digits that say something, below a second."""
    value = ns / 1e6
    digits = 0 if value >= 10 else 1 if value >= 1 else 2 if value >= 0.1 else 3
    return f"{value:.{digits}f} ms"


def _decisions(flow: Flow) -> Iterator[str]:
    for direction, allowed, denied in (
        ("egress", flow.egress_allowed_by, flow.egress_denied_by),
        ("ingress", flow.ingress_allowed_by, flow.ingress_denied_by),
    ):
        for verb, policies in (("allowed", allowed), ("denied", denied)):
            if policies:
                yield f"{direction} {verb} by {_names(policies)}"
    if flow.drop_reason_desc == "POLICY_DENIED" and not (flow.egress_denied_by or flow.ingress_denied_by):
        yield f"no rule allows the {flow.traffic_direction.lower()}"


def _names(policies: tuple[PolicyName, ...]) -> str:
    return ", ".join(dict.fromkeys(map(str, policies)))


def _end(end: Endpoint, address: str, port: int) -> str:
    """Who, where and with which identity: ``shop/web-1:80 (ID:1234)``, ``192.0.2.1:53 (world)``."""
    if end.pod_name:
        who = f"{end.namespace}/{end.pod_name}"
    elif end.node_name:
        who = end.node_name
    else:
        who = f"[{address}]" if port and ":" in address else address
    reserved = [label.removeprefix(_RESERVED) for label in end.labels if label.startswith(_RESERVED)]
    identity = ",".join(reserved) if reserved and not end.pod_name else f"ID:{end.identity}"
    where = f"{who}:{port}" if port else who
    # A packet that got no further than a service was not asked who its sender is.
    return f"{where} ({identity})" if reserved or end.identity else where


def _called(service: Service, port: int) -> str:
    return f"{service}:{port} (service)" if port else f"{service} (service)"


def _service(flow: Flow) -> str:
    """``shop/web, port http, called as 10.96.0.7:80``."""
    service = flow.destination_service or flow.source_service
    if service is None:
        return ""
    address, port = flow.IP.frontend, flow.IP.frontend_port
    if not address:
        address, port = flow.IP.destination, _ports(flow)[1]
    named = f"{service}, port {service.port}" if service.port else str(service)
    return f"{named}, called as {f'[{address}]' if ':' in address else address}:{port}"


def _ports(flow: Flow) -> tuple[int, int]:
    header = flow.l4.TCP or flow.l4.UDP or flow.l4.SCTP
    return (header.source_port, header.destination_port) if header else (0, 0)


def _what(flow: Flow) -> list[str]:
    if flow.l7:
        kind = next((kind for kind in ("http", "dns", "kafka") if getattr(flow.l7, kind)), "tls")
        reason = [f"[{flow.l7.reason}]"] if flow.l7.reason else []
        return [f"{kind}-{flow.l7.type.lower()}", flow.Summary, *reason]
    if flow.l4.TCP:
        flags = ",".join(flow.l4.TCP.flags.names())
        words = ["TCP", flags] if flags else ["TCP"]
    else:
        words = [flow.Summary]
    return [*words, *(["reply"] if flow.is_reply else []), *(["ended"] if flow.event == "end" else [])]


def _masqueraded(flow: Flow) -> str:
    if not flow.IP.source_xlated:
        return ""
    port = flow.IP.source_port_xlated
    return f"{flow.IP.source_xlated}:{port}" if port else flow.IP.source_xlated


def _time(text: str, zone: tzinfo | None) -> str:
    """``2026-11-24T00:40:12.123456789Z`` as ``Nov 24 00:40:12.123``."""
    at = datetime.fromisoformat(text[:26]).replace(tzinfo=UTC).astimezone(zone)
    return f"{_MONTHS[at.month - 1]} {at:%d %H:%M:%S}.{at.microsecond // 1000:03}"


def size(count: int) -> str:
    """Of bytes: ``1.5 kB``."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
