"""The service map: from flows to workloads and the edges between them, at a bounded cost.

A flow costs some microseconds and is forgotten; what stays is a card for each workload and an edge for each
workload, workload and port. The least recent edges go where there are too many.

**Counted once.** Of one connection up to two nodes tell. What passed is taken from the node of the
destination, for the source's does not know yet whether the other end's policies let it in; from the node of
the source where the destination is no pod, or its node is not heard. Who drops tells it alone. Of requests
proxies at both ends tell: of the two, the one that has told most counts.

**Rates** are averages which forget: an event raises the rate by 1 / `RATE_OVER`, and it fades with that time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from math import exp

from msgspec import UNSET

from axoneme.edges.edge import Request
from axoneme.edges.recorded import request_of, served
from axoneme.flows.flow import Endpoint, Flow, Layer7, Workload
from axoneme.model.l7 import L7Kind
from axoneme.ui import api

#: Seconds.
RATE_OVER = 10.0
#: A lower rate is none.
_SILENT = 0.01
_MOST_EDGES = 20_000
_MOST_PODS = 20
_MOST_CALLS, _SHOWN_CALLS = 200, 25

PROTOCOLS = {1: "ICMPv4", 6: "TCP", 17: "UDP", 58: "ICMPv6", 132: "SCTP"}
_WORLD = ("reserved:world", "reserved:world-ipv4", "reserved:world-ipv6")
_NODES = ("host", "remote-node", "kube-apiserver", "health", "ingress")
_NO_BACKEND = ("SERVICE_BACKEND_NOT_FOUND", "DENIED_BY_LB_SRC_RANGE_CHECK")
#: The reason under which requests stand that a proxy refused.
REQUEST_DENIED = "REQUEST_DENIED"


@dataclass(slots=True)
class Tally:
    """How often, when last, and how often now."""

    count: int = 0
    last: str = ""
    _level: float = 0.0
    _at: float = 0.0

    def add(self, time: str, at: float) -> None:
        self.count += 1
        self.last = max(self.last, time)
        self._level = self._faded(at) + 1 / RATE_OVER
        self._at = at

    def rate(self, now: float) -> float:
        """Per second; 0 where it is about to be."""
        rate = self._faded(now)
        return float(f"{rate:.3g}") if rate >= _SILENT else 0.0

    def _faded(self, now: float) -> float:
        return self._level * exp(-max(0.0, now - self._at) / RATE_OVER)


_NEVER = Tally()


@dataclass(slots=True)
class Call:
    """One thing that is asked for. ``told``: by direction and REQUEST, RESPONSE, or DROPPED for refusals."""

    kind: str
    what: str
    told: dict[tuple[str, str], Tally] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    latency: float = 0.0  # sum of seconds, of so many answers
    answers: int = 0

    def most(self, of: Callable[[Tally], float]) -> float:
        """Of the ends, the one that has told most: some proxies tell of requests, some of answers, some of
        both; a request that is refused has no answer."""
        return max(
            max(of(self.tally(end, "REQUEST")), of(self.tally(end, "RESPONSE")))
            + of(self.tally(end, "DROPPED"))
            for end, _ in self.told
        )

    def tally(self, direction: str, kind: str) -> Tally:
        return self.told.get((direction, kind), _NEVER)

    def count(self) -> int:
        return int(self.most(lambda each: each.count))

    def shown(self, now: float, over: float | None) -> api.Call:
        return api.Call(
            kind=self.kind,
            what=self.what,
            count=self.count(),
            rate=self.most(lambda each: _rate(each, now, over)),
            dropped=max(tally.count if kind == "DROPPED" else 0 for (_, kind), tally in self.told.items()),
            failed=max(self.failed.values(), default=0),
            latency=self.latency / self.answers if self.answers else UNSET,
        )


@dataclass(slots=True)
class Port:
    """``edges``: how many lead here."""

    edges: int = 0
    calls: OrderedDict[tuple[str, str], Call] = field(default_factory=OrderedDict)

    def call(self, request: Request) -> Call:
        what = _what(request)
        key = (request.kind.value, what)
        if key in self.calls:
            self.calls.move_to_end(key)
            return self.calls[key]
        if len(self.calls) >= _MOST_CALLS:
            self.calls.popitem(last=False)
        made = self.calls[key] = Call(*key)
        return made


@dataclass(slots=True)
class Card:
    id: str
    kind: str
    namespace: str
    name: str
    workload_kind: str = ""
    labels: tuple[str, ...] = ()
    pods: OrderedDict[str, None] = field(default_factory=OrderedDict)
    ports: dict[tuple[str, int], Port] = field(default_factory=dict)
    edges: int = 0
    version: int = 0

    def shown(self, now: float, over: float | None) -> api.Card:
        return api.Card(
            id=self.id,
            kind=self.kind,
            namespace=self.namespace,
            name=self.name,
            workload_kind=self.workload_kind,
            labels=list(self.labels),
            pods=sorted(self.pods),
            ports=[_port(*key, port, now, over) for key, port in sorted(self.ports.items())],
        )


@dataclass(slots=True)
class Edge:
    """``seen``: when the last flow of it came, in seconds since 1970."""

    id: str
    source: Card
    destination: Card
    protocol: str
    port: int
    service: str = ""
    kinds: set[str] = field(default_factory=set)
    verdicts: dict[str, Tally] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    denied_by: tuple[api.PolicyName, ...] = ()
    bytes: int = 0
    reply_bytes: int = 0
    seen: float = 0.0
    version: int = 0

    def within(self, namespaces: Collection[str]) -> bool:
        return (
            not namespaces or self.source.namespace in namespaces or self.destination.namespace in namespaces
        )

    def silent(self, now: float) -> bool:
        return not any(each.rate(now) for each in self.verdicts.values())

    def shown(self, now: float, over: float | None) -> api.Edge:
        """``over``: seconds to which counts are related; None: the rate of now."""
        return api.Edge(
            id=self.id,
            source=self.source.id,
            destination=self.destination.id,
            port=self.port,
            protocol=self.protocol,
            service=self.service,
            kinds=sorted(self.kinds),
            verdicts={
                name: api.Count(count=each.count, rate=_rate(each, now, over), last=each.last)
                for name, each in self.verdicts.items()
            },
            reasons=dict(self.reasons),
            denied_by=list(self.denied_by),
            bytes=self.bytes,
            reply_bytes=self.reply_bytes,
        )


class ServiceMap:
    """``nodes``: those whose flows come in; None: of all."""

    def __init__(self, nodes: Collection[str] | None) -> None:
        self._nodes = None if nodes is None else frozenset(nodes)
        self.cards: dict[str, Card] = {}
        #: The least recent first.
        self.edges: OrderedDict[str, Edge] = OrderedDict()
        #: Rises with every change; cards and edges keep that of their last one.
        self.version = 0
        #: The service that was called, of edges of which nothing is counted yet.
        self._called: OrderedDict[str, str] = OrderedDict()
        #: Those whose rates fade.
        self._warm: dict[str, Edge] = {}

    def add(self, flow: Flow, at: float) -> None:
        """``at``: when it came, in seconds since 1970."""
        told = flow.l7
        answer = told is not None and told.type == "RESPONSE"
        if flow.is_reply and not answer:
            return
        ports = served(flow)
        if ports is None:
            return
        protocol, source_port, port = ports
        source, destination = flow.source, flow.destination
        service = flow.destination_service
        if answer:
            source, destination, port, service = destination, source, source_port, flow.source_service
        name = str(service) if service is not None else ""
        if service is not None and flow.drop_reason_desc in _NO_BACKEND:
            ends = whose(source), (f"service:{name}", "service", service.namespace, service.name, "")
        else:
            ends = whose(source), whose(destination)
        spoken = PROTOCOLS.get(protocol, str(protocol))
        key = f"{ends[0][0]}>{ends[1][0]}:{port}/{spoken}"
        if told is None and flow.verdict != "DROPPED" and not self._told_here(flow):
            self._remember(key, name)
            return
        self.version += 1
        edge = self._edge(
            key,
            self._of(source, *ends[0]),
            self._of(destination, *ends[1]),
            spoken,
            port,
        )
        if name or not edge.service:
            edge.service = name or self._called.get(key, "")
        edge.seen = max(edge.seen, at)
        if told is not None:
            self._ask(edge, flow, told, at)
        elif flow.event == "end":
            _end(edge, flow, at)
        else:
            edge.verdicts.setdefault(flow.verdict, Tally()).add(flow.time, at)
            if flow.verdict in ("DROPPED", "AUDIT"):
                _refused(edge, flow)
        self._touch(edge)

    def cool(self, now: float) -> None:
        """Rates have faded since they were looked at last."""
        for key, edge in list(self._warm.items()):
            self.version += 1
            edge.version = self.version
            if edge.kinds:
                edge.destination.version = self.version
            if edge.silent(now):
                del self._warm[key]

    def forget(self, before: float) -> None:
        """Edges of which nothing came since."""
        while self.edges:
            edge = next(iter(self.edges.values()))
            if edge.seen >= before:
                return
            self._remove(edge)

    def recent(self, namespaces: Collection[str], since: float) -> Iterator[Edge]:
        """The latest first."""
        for edge in reversed(self.edges.values()):
            if edge.seen < since:
                return
            if edge.within(namespaces):
                yield edge

    # ---- parts -------------------------------------------------------------------------------------

    def _told_here(self, flow: Flow) -> bool:
        """Whether it is this node's to tell of what passed."""
        for end in (flow.destination, flow.source):
            if end.pod_name and end.node_name and (self._nodes is None or end.node_name in self._nodes):
                return flow.node_name == end.node_name
        return True

    def _remember(self, key: str, service: str) -> None:
        """Which service was called is known where it was translated, maybe not at the other end."""
        edge = self.edges.get(key)
        if edge is not None:
            edge.service = service or edge.service
        elif service:
            self._called[key] = service
            self._called.move_to_end(key)
            if len(self._called) > _MOST_EDGES:
                self._called.popitem(last=False)

    def _of(self, end: Endpoint, key: str, kind: str, namespace: str, name: str, workload_kind: str) -> Card:
        card = self.cards.get(key)
        if card is None:
            card = Card(key, kind, namespace, name, workload_kind, version=self.version)
            self.cards[key] = card
        card.labels = end.labels if end.labels and kind != "service" else card.labels
        if end.pod_name and end.pod_name not in card.pods:
            if len(card.pods) >= _MOST_PODS:
                card.pods.popitem(last=False)
            card.pods[end.pod_name] = None
            card.version = self.version
        return card

    def _edge(self, key: str, source: Card, destination: Card, protocol: str, port: int) -> Edge:
        edge = self.edges.get(key)
        if edge is not None:
            self.edges.move_to_end(key)
            return edge
        while len(self.edges) >= _MOST_EDGES:
            self._remove(next(iter(self.edges.values())))
        edge = self.edges[key] = Edge(key, source, destination, protocol, port)
        for card in (source, destination):
            # It may just have lost its last edge.
            self.cards[card.id] = card
            card.edges += 1
            card.version = self.version
        destination.ports.setdefault((protocol, port), Port()).edges += 1
        return edge

    def _remove(self, edge: Edge) -> None:
        self.version += 1
        del self.edges[edge.id]
        self._warm.pop(edge.id, None)
        place = (edge.protocol, edge.port)
        port = edge.destination.ports[place]
        port.edges -= 1
        if not port.edges:
            del edge.destination.ports[place]
            edge.destination.version = self.version
        for card in (edge.source, edge.destination):
            card.edges -= 1
            if not card.edges:
                self.cards.pop(card.id, None)

    def _touch(self, edge: Edge) -> None:
        edge.version = self.version
        self._warm[edge.id] = edge

    def _ask(self, edge: Edge, flow: Flow, told: Layer7, at: float) -> None:
        request = request_of(told)
        refused = flow.verdict == "DROPPED"
        if refused:
            edge.verdicts.setdefault("DROPPED", Tally()).add(flow.time, at)
            _refused(edge, flow)
        if request is None:
            return
        direction = flow.traffic_direction
        edge.kinds.add(request.kind.value)
        call = edge.destination.ports[edge.protocol, edge.port].call(request)
        call.told.setdefault((direction, "DROPPED" if refused else told.type), Tally()).add(flow.time, at)
        if _failed(told):
            call.failed[direction] = call.failed.get(direction, 0) + 1
        if told.type == "RESPONSE" and told.latency_ns:
            call.latency += told.latency_ns / 1e9
            call.answers += 1
        edge.destination.version = self.version


def whose(end: Endpoint) -> tuple[str, str, str, str, str]:
    """The id of a card, its kind, namespace, name, and kind of workload."""
    if end.pod_name or end.workloads:
        owner = end.workloads[0] if end.workloads else Workload(end.pod_name, "Pod")
        key = card_id(end.namespace, owner.kind, owner.name)
        return key, "workload", end.namespace, owner.name, owner.kind
    if any(label in _WORLD for label in end.labels):
        return "reserved:world", "world", "", "world", ""
    for label in end.labels:
        if label.startswith("reserved:"):
            name = label.removeprefix("reserved:").partition("=")[0]
            return f"reserved:{name}", "node" if name in _NODES else "other", "", name, ""
    if end.namespace:  # of a pod that is gone only its labels are known
        name = ",".join(each for each in end.labels if ":io." not in each)
        return f"{end.namespace}//{name}", "workload", end.namespace, name, ""
    return "other:unknown", "other", "", "unknown", ""


def card_id(namespace: str, kind: str, name: str) -> str:
    """Of a workload."""
    return f"{namespace}/{kind}/{name}"


def _end(edge: Edge, flow: Flow, at: float) -> None:
    edge.bytes += flow.bytes
    edge.reply_bytes += flow.reply_bytes
    if flow.verdict not in edge.verdicts:  # it began before anybody looked
        edge.verdicts.setdefault(flow.verdict, Tally()).add(flow.time, at)


def _refused(edge: Edge, flow: Flow) -> None:
    names = flow.egress_denied_by + flow.ingress_denied_by
    edge.denied_by = tuple(
        api.PolicyName(kind=each.kind, namespace=each.namespace, name=each.name, rule=each.rule)
        for each in names
    )
    if flow.verdict == "DROPPED":
        reason = REQUEST_DENIED if flow.l7 else flow.drop_reason_desc
        edge.reasons[reason] = edge.reasons.get(reason, 0) + 1


def _failed(told: Layer7) -> bool:
    if told.http:
        return told.http.code >= 500 or bool(told.http.grpc_status)
    if told.dns:
        return told.dns.rcode != 0
    return bool(told.kafka and told.kafka.error_code)


def _what(request: Request) -> str:
    match request.kind:
        case L7Kind.HTTP:
            return f"{request.method} {request.path}"
        case L7Kind.KAFKA:
            return f"{request.api_key} {request.topic}".rstrip()
        case L7Kind.DNS | L7Kind.TLS | L7Kind.LISTENER:
            return request.name


def _rate(tally: Tally, now: float, over: float | None) -> float:
    return tally.rate(now) if over is None else round(tally.count / over, 4)


def _port(protocol: str, number: int, port: Port, now: float, over: float | None) -> api.CardPort:
    calls = sorted(port.calls.values(), key=Call.count, reverse=True)
    return api.CardPort(
        port=number,
        protocol=protocol,
        calls=[each.shown(now, over) for each in calls[:_SHOWN_CALLS]],
        calls_not_shown=max(0, len(calls) - _SHOWN_CALLS),
    )
