"""Which packets are wanted: those of the flows that a filter has chosen, by time and by their ends.

A flow server tells of a connection when it begins and when it ends, of a drop packet by packet, and of
requests one by one. Of each this keeps for how long it lasts; a packet belongs to a drop that happened to it,
else to the connection, or the request, at whose time it passed.
"""

from __future__ import annotations

import ipaddress
from bisect import insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Final

from axoneme.capture.packets import ICMP, ICMPV6, SCTP, TCP, UDP, Key, Packet, key
from axoneme.flows.flow import Flow

#: Nanoseconds: between a packet's passing a device and the program that drops it; how far the clocks of the
#: two may be apart; how long a connection's last words may come behind its end.
_AT_ONCE: Final = 5_000_000
_BEFORE: Final = 20_000_000
_AFTER: Final = 2_000_000_000
_REQUEST: Final = 250_000_000
_FOR_EVER: Final = 1 << 63


@dataclass(slots=True)
class Span:
    """While a flow lasts."""

    flow: Flow
    begin: int
    end: int
    drop: bool = False


@dataclass(slots=True)
class Chosen:
    """Of one node. Times in nanoseconds since 1970."""

    _spans: dict[Key, list[Span]] = field(default_factory=dict)

    def add(self, flow: Flow, time: int) -> None:
        for each in keys(flow):
            self._add(self._spans.setdefault(each, []), flow, time)

    def _add(self, spans: list[Span], flow: Flow, time: int) -> None:
        match flow.event:
            case "new":
                insort(spans, Span(flow, time - _BEFORE, _FOR_EVER), key=attrgetter("begin"))
            case "end":
                for span in reversed(spans):
                    if span.end == _FOR_EVER and span.begin <= time:
                        span.end = time + _AFTER
                        return
                begin = time - flow.duration_ns - _BEFORE
                insort(spans, Span(flow, begin, time + _AFTER), key=attrgetter("begin"))
            case "drop":
                span = Span(flow, time - _AT_ONCE, time + _AT_ONCE, True)
                insort(spans, span, key=attrgetter("begin"))
            case _:
                latency = flow.l7.latency_ns if flow.l7 else 0
                span = Span(flow, time - latency - _REQUEST, time + _REQUEST)
                insort(spans, span, key=attrgetter("begin"))

    def find(self, packet: Packet, time: int) -> Flow | None:
        """The flow of a packet that passed then; the newest where there are several."""
        found: Flow | None = None
        for span in reversed(self._spans.get(packet.key, ())):
            if not span.begin <= time <= span.end:
                continue
            if span.drop:
                if _address(span.flow.IP.source) == packet.source[0]:
                    return span.flow
            elif found is None:
                found = span.flow
        return found

    def forget(self, before: int) -> None:
        """What was over by then."""
        for each, spans in list(self._spans.items()):
            left = [span for span in spans if span.end >= before]
            if left:
                self._spans[each] = left
            else:
                del self._spans[each]

    def __len__(self) -> int:
        return len(self._spans)


def keys(flow: Flow) -> Iterator[Key]:
    """The pairs of ends by which packets of a flow may be seen on a node's devices: as policy knows them, to
    the service that was called, and as masqueraded."""
    source, destination = _address(flow.IP.source), _address(flow.IP.destination)
    if not source or not destination:
        return
    protocol, ports = _layer4(flow)
    from_, to = (source, ports[0]), (destination, ports[1])
    yield key(protocol, from_, to)
    if called := _address(flow.IP.frontend):
        yield key(protocol, from_, (called, flow.IP.frontend_port))
    if shown := _address(flow.IP.source_xlated):
        yield key(protocol, (shown, flow.IP.source_port_xlated), to)


def _layer4(flow: Flow) -> tuple[int, tuple[int, int]]:
    layer4 = flow.l4
    for protocol, ports in ((TCP, layer4.TCP), (UDP, layer4.UDP), (SCTP, layer4.SCTP)):
        if ports is not None:
            return protocol, (ports.source_port, ports.destination_port)
    if layer4.ICMPv4 is not None or layer4.ICMPv6 is not None:
        return ICMP if layer4.ICMPv4 else ICMPV6, (0, 0)
    return flow.IP.protocol, (0, 0)


def names(flow: Flow) -> Iterator[tuple[bytes, str]]:
    """What the addresses of a flow are called: ``web-1.shop``, or the node's name."""
    for text, end in ((flow.IP.source, flow.source), (flow.IP.destination, flow.destination)):
        name = f"{end.pod_name}.{end.namespace}" if end.pod_name else end.node_name
        if name and (address := _address(text)):
            yield address, name
    if (service := flow.destination_service) and (called := _address(flow.IP.frontend)):
        yield called, f"{service.name}.{service.namespace}.svc" if service.namespace else service.name


def _address(text: str) -> bytes:
    return ipaddress.ip_address(text).packed if text else b""
