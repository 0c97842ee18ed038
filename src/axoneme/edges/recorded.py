"""From flows to edges: what many nodes have seen of the same connections, counted once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from axoneme.edges.edge import VARIOUS, Edge, Party, Request, Seen
from axoneme.flows.flow import Endpoint, Flow, Layer7
from axoneme.model.l7 import L7Kind
from axoneme.model.labels import RESERVED, Labels
from axoneme.model.names import canonical
from axoneme.model.policy import Direction

_BY_POLICY = ("POLICY_DENIED", "POLICY_DENY")
_ICMP_QUESTIONS = {1: (8, 13, 15, 17), 58: (128,)}
_TCP, _UDP, _SCTP = 6, 17, 132


@dataclass(slots=True)
class Recorded:
    """``names``: by client and address, the names for which the client was told this address.
    ``nameless``: flows that cannot be judged, because nobody knows who one of the ends is."""

    edges: dict[Edge, Seen] = field(default_factory=dict)
    names: dict[tuple[Party, str], set[str]] = field(default_factory=lambda: defaultdict(set))
    nameless: int = 0


@dataclass(slots=True)
class _Count:
    """Of one edge, by what nodes say of it and as what: the same connection is told of on both sides, and at
    a proxy twice."""

    passed: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    refused: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    ended: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    last: str = ""
    by: set[Direction] = field(default_factory=set)
    asked: Request | None = None  # as far as all that were told are alike


class Recorder:
    """Takes flows one after the other, and keeps edges alone."""

    def __init__(self) -> None:
        self._found = Recorded()
        self._counts: dict[Edge, _Count] = defaultdict(_Count)

    def recorded(self) -> Recorded:
        """Of all that was taken; for once."""
        for edge, count in self._counts.items():
            self._found.edges[replace(edge, request=count.asked)] = Seen(
                # A connection that began before is known by its end.
                max(count.passed.values(), default=0) or max(count.ended.values(), default=0),
                max(count.refused.values(), default=0),
                count.last,
                frozenset(count.by),
            )
        return self._found

    def take(self, flow: Flow) -> None:
        answer = flow.l7 is not None and flow.l7.type == "RESPONSE"
        if flow.is_reply and not answer:
            return
        refused = flow.verdict == "DROPPED"
        if refused and not flow.l7 and flow.drop_reason_desc not in _BY_POLICY:
            return
        ports = served(flow)
        if ports is None:
            return
        protocol, source_port, destination_port = ports
        ends = (
            _party(flow.source, flow.IP.source),
            _party(flow.destination, flow.IP.destination),
        )
        source, destination = reversed(ends) if answer else ends
        port = source_port if answer else destination_port
        if source is None or destination is None:
            self._found.nameless += 1
            return
        request = request_of(flow.l7) if flow.l7 else None
        if flow.l7 and request is None:
            return
        count = self._counts[Edge(source, destination, protocol, port, request)]
        told_by = (flow.node_name, flow.event if flow.l7 else flow.verdict)
        if refused:
            count.refused[told_by] += 1
        elif flow.event == "end":
            count.ended[told_by] += 1
        else:
            count.passed[told_by] += 1
        count.last = max(count.last, flow.time)
        if flow.l7 and request:
            count.asked = _common(count.asked or request, request)
            count.by.add(Direction[flow.traffic_direction])
            if answer and flow.l7.dns:
                for address in flow.l7.dns.ips:
                    self._found.names[source, address].add(canonical(flow.l7.dns.query))


def record(flows: Iterable[Flow]) -> Recorded:
    recorder = Recorder()
    for flow in flows:
        recorder.take(flow)
    return recorder.recorded()


def _common(first: Request, second: Request) -> Request:
    """Of two requests that are one edge; where they differ, nothing is known."""
    return replace(
        first,
        host=first.host if first.host == second.host else "",
        headers=tuple(header for header in first.headers if header in second.headers),
        api_version=first.api_version if first.api_version == second.api_version else VARIOUS,
    )


def served(flow: Flow) -> tuple[int, int, int] | None:
    """Protocol and ports; None for what belongs to another packet, as an ICMP error does."""
    l4 = flow.l4
    for protocol, header in ((_TCP, l4.TCP), (_UDP, l4.UDP), (_SCTP, l4.SCTP)):
        if header:
            return protocol, header.source_port, header.destination_port
    for protocol, message in ((1, l4.ICMPv4), (58, l4.ICMPv6)):
        if message:
            asks = message.type in _ICMP_QUESTIONS[protocol]
            return (protocol, 0, message.type) if asks else None
    return flow.IP.protocol, 0, 0


def _party(end: Endpoint, address: str) -> Party | None:
    if not end.labels:
        return None
    labels = Labels.parse(end.labels)
    workload = end.workloads[0] if end.workloads else None
    name = f"{workload.kind.lower()}/{workload.name}" if workload else end.pod_name
    if any(labels.values(RESERVED, world) for world in ("world", "world-ipv4", "world-ipv6")):
        return Party((), address)
    return Party(tuple(labels.texts()), "", name)


def request_of(told: Layer7) -> Request | None:
    """What was asked for; None where the flow does not tell it."""
    if http := told.http:
        _, found, rest = http.url.partition("://")
        host, slash, path = rest.partition("/") if found else ("", "/", http.url.removeprefix("/"))
        path, mark, _ = path.partition("#")[0].partition("?")
        headers = tuple((each.key.lower(), each.value) for each in http.headers)
        return Request(
            L7Kind.HTTP, http.method, (slash or "/") + path, bool(mark), host=host, headers=headers
        )
    if dns := told.dns:
        return Request(L7Kind.DNS, name=canonical(dns.query))
    if kafka := told.kafka:
        return Request(
            L7Kind.KAFKA,
            api_key=kafka.api_key,
            topic=kafka.topic,
            api_version=kafka.api_version,
            client_id=kafka.client_id,
        )
    return Request(L7Kind.TLS, name=canonical(told.server_name)) if told.server_name else None
