"""The values that go to the browser: docs/ui-api.md says what they mean."""

from __future__ import annotations

from typing import Any

import msgspec


class Struct(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A value of the API. Fields that may be missing are `msgspec.UNSET`."""


Missing = msgspec.UnsetType


class PolicyName(Struct, frozen=True):
    kind: str = ""
    namespace: str = ""
    name: str = ""
    rule: str = ""


class Absent(Struct, frozen=True):
    node: str
    why: str


# ---- service map -------------------------------------------------------------------------------------


class Count(Struct, frozen=True):
    count: int
    rate: float
    last: str


class Edge(Struct, frozen=True):
    id: str
    source: str
    destination: str
    port: int
    protocol: str
    service: str
    kinds: list[str]
    verdicts: dict[str, Count]
    reasons: dict[str, int]
    denied_by: list[PolicyName]
    bytes: int
    reply_bytes: int


class Call(Struct, frozen=True):
    kind: str
    what: str
    count: int
    rate: float
    dropped: int
    failed: int
    latency: float | Missing = msgspec.UNSET


class CardPort(Struct, frozen=True):
    port: int
    protocol: str
    calls: list[Call]
    calls_not_shown: int


class Card(Struct, frozen=True):
    id: str
    kind: str
    namespace: str
    name: str
    workload_kind: str
    labels: list[str]
    pods: list[str]
    ports: list[CardPort]


class NotShown(Struct, frozen=True):
    cards: int = 0
    edges: int = 0


class MapState(Struct, frozen=True):
    revision: int
    time: str
    window: float
    rate_over: float
    cards: list[Card]
    edges: list[Edge]
    not_shown: NotShown
    absent: list[Absent]
    lost: int


class MapDelta(Struct, frozen=True):
    revision: int
    time: str
    cards: list[Card]
    edges: list[Edge]
    gone_cards: list[str]
    gone_edges: list[str]
    not_shown: NotShown
    absent: list[Absent]
    lost: int


# ---- flows -------------------------------------------------------------------------------------------


class Row(Struct, frozen=True):
    id: str
    flow: Any  # axoneme.flows.flow.Flow


class FlowList(Struct, frozen=True):
    flows: list[Row]
    more: bool
    lost: int
    absent: list[Absent]


class Busy(Struct, frozen=True):
    source: str
    destination: str
    source_text: str
    destination_text: str
    port: int
    protocol: str
    verdict: str
    rate: float


class FlowBatch(Struct, frozen=True):
    flows: list[Row]
    not_shown: int
    rate: float
    verdicts: dict[str, float]
    lost: int
    absent: list[Absent]
    busiest: list[Busy] | Missing = msgspec.UNSET


class Span(Struct, frozen=True):
    since: str
    until: str


class Timeline(Struct, frozen=True):
    since: str
    until: str
    seconds: float
    verdicts: dict[str, list[int]]
    recorded: Span | None


# ---- session and names -------------------------------------------------------------------------------


class Features(Struct, frozen=True):
    policies: bool
    nodes: bool
    history: bool


class Session(Struct, frozen=True):
    authenticated: bool
    login: str
    user: str
    read_only: bool
    place: str
    version: str
    features: Features


class Filter(Struct, frozen=True):
    name: str
    sided: bool
    help: str
    values: list[str] | Missing = msgspec.UNSET


class Meta(Struct, frozen=True):
    namespaces: list[str]
    nodes: list[str]
    filters: list[Filter]


class Completion(Struct, frozen=True):
    values: list[str]


class Problem(Struct, frozen=True):
    """RFC 9457."""

    title: str
    status: int
    detail: str
    field: str | Missing = msgspec.UNSET
    found: str | Missing = msgspec.UNSET
    remedy: str | Missing = msgspec.UNSET


class Login(Struct, frozen=True, forbid_unknown_fields=True):
    token: str
