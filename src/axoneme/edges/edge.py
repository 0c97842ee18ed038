"""Edges: one end calls a port of another, and asks for something there."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from axoneme.model.l7 import L7Kind
from axoneme.model.labels import K8S, NAMESPACE, RESERVED, Labels
from axoneme.model.policy import Direction
from axoneme.model.redaction import HIDDEN


class Whereabouts(enum.Enum):
    POD = "pod"
    NODE = "node"  # or another that has a reserved label: health, ingress
    OUTSIDE = "outside"


@dataclass(frozen=True, slots=True)
class Party:
    """One end. ``labels`` are its identity's, in canonical text form; ``address`` counts for who is outside,
    and is empty for others. ``workload`` (``deployment/web``, or a pod's name) is for people alone."""

    labels: tuple[str, ...]
    address: str = ""
    workload: str = field(default="", compare=False)

    @property
    def whereabouts(self) -> Whereabouts:
        if self.address:
            return Whereabouts.OUTSIDE
        return Whereabouts.POD if self.namespace else Whereabouts.NODE

    @property
    def namespace(self) -> str:
        return Labels.parse(self.labels).get(K8S, NAMESPACE) or ""

    @property
    def reserved(self) -> tuple[str, ...]:
        """The names under which the system knows it."""
        return tuple(label.key for label in Labels.parse(self.labels) if label.source == RESERVED)

    def __str__(self) -> str:
        if self.address:
            return f"{self.address} (world)"
        if not self.namespace:
            return ", ".join(self.reserved) or "unknown"
        return f"{self.namespace}/{self.workload or ','.join(self.labels)}"


#: In place of an API's version: there were several.
VARIOUS = -1


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for above L4; of these fields those of its kind. Those that are not compared do not make
    another edge: where requests differ in them, they say what all have (host: none, version: `VARIOUS`).

    ``path`` is without the query, of which only ``query`` is known: whether there was one. What redaction has
    taken out of a path reads `HIDDEN`. ``headers`` are those that flows show.
    """

    kind: L7Kind
    method: str = ""
    path: str = ""
    query: bool = False
    host: str = field(default="", compare=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    name: str = ""  # DNS: canonical
    api_key: str = ""
    api_version: int = field(default=0, compare=False)
    client_id: str = field(default="", compare=False)
    topic: str = ""

    def __str__(self) -> str:
        match self.kind:
            case L7Kind.HTTP:
                return f"{self.method} {self.path}{'?…' if self.query else ''}"
            case L7Kind.DNS:
                return f"DNS {self.name}"
            case L7Kind.KAFKA:
                return f"Kafka {self.api_key} {self.topic}".rstrip()
            case L7Kind.TLS | L7Kind.LISTENER:
                return f"TLS {self.name}"

    @property
    def blurred(self) -> bool:
        """Whether a part of what was asked for is not known."""
        return self.query or HIDDEN in self.path


@dataclass(frozen=True, slots=True)
class Edge:
    """``port`` is the destination's as policy sees it, behind services; or the ICMP type of a question."""

    source: Party
    destination: Party
    protocol: int
    port: int
    request: Request | None = None

    def subject(self, direction: Direction) -> Party:
        return self.source if direction is Direction.EGRESS else self.destination

    def peer(self, direction: Direction) -> Party:
        return self.destination if direction is Direction.EGRESS else self.source

    @property
    def service(self) -> str:
        """``80/TCP``, ``8/ICMP``, ``protocol 47``."""
        name = _PROTOCOLS.get(self.protocol)
        return f"{self.port}/{name}" if name else f"protocol {self.protocol}"

    def __str__(self) -> str:
        asked = f"  {self.request}" if self.request else ""
        return f"{self.source} -> {self.destination} {self.service}{asked}"


_PROTOCOLS = {1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPV6", 132: "SCTP"}


@dataclass(slots=True)
class Seen:
    """How often an edge was there, and when last (as flows say it: RFC 3339, UTC). ``looked_at_by``: the
    direction whose policy, or watching, sent its requests through a proxy."""

    passed: int = 0
    refused: int = 0
    last: str = ""
    looked_at_by: frozenset[Direction] = frozenset()
