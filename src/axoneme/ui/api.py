"""The values that go to the browser: docs/ui-api.md says what they mean."""

from __future__ import annotations

from typing import Any, Literal

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


# ---- policies ----------------------------------------------------------------------------------------


class Ref(Struct, frozen=True):
    kind: str
    namespace: str
    name: str


class Workload(Struct, frozen=True):
    id: str
    namespace: str
    kind: str
    name: str
    pods: int
    labels: list[str]
    closed: list[str]


class PolicyLine(Ref, frozen=True):
    directions: list[str]
    closes: list[str]
    audit: bool
    selects: list[str]
    problem: str


class PolicyText(Ref, frozen=True):
    yaml: str
    revision: str


class TextProblem(Struct, frozen=True):
    message: str
    line: int
    column: int
    path: str
    found: str
    remedy: str


class Finding(Struct, frozen=True):
    code: str
    severity: str
    title: str
    what: str
    why: str
    remedy: str
    object: Ref
    path: str
    line: int
    column: int


class Validation(Struct, frozen=True):
    valid: bool
    objects: list[Ref]
    problems: list[TextProblem]
    findings: list[Finding]


class Half(Struct, frozen=True):
    verdict: str
    by_default: bool
    policies: list[PolicyName]


class Judgement(Struct, frozen=True):
    verdict: str
    egress: Half | Missing = msgspec.UNSET
    ingress: Half | Missing = msgspec.UNSET


class Party(Struct, frozen=True):
    text: str
    namespace: str
    workload: str
    address: str
    labels: list[str]
    card: str


class Change(Struct, frozen=True):
    source: Party
    destination: Party
    service: str
    request: str
    passed: int
    refused: int
    last: str
    before: Judgement
    after: Judgement


class Preview(Struct, frozen=True):
    breaks: list[Change]
    opens: list[Change]
    depends: list[Change]
    unchanged: int
    stale: int
    lost: int
    absent: list[Absent]


class Suggestion(Struct, frozen=True):
    yaml: str
    policies: list[Ref]
    idle: list[str]
    unsaid: list[str]
    lost: int
    absent: list[Absent]


class ToValidate(Struct, frozen=True, forbid_unknown_fields=True):
    yaml: str


class ToPreview(Struct, frozen=True, forbid_unknown_fields=True):
    yaml: str = ""
    delete: list[Ref] = []
    since: float = 3600.0


class ToSuggest(Struct, frozen=True, forbid_unknown_fields=True):
    namespace: str
    card: str = ""
    since: float = 3600.0
    kind: Literal["auto", "cilium"] = "auto"


# ---- nodes -------------------------------------------------------------------------------------------


class Agent(Struct, frozen=True):
    phase: str
    waits_for: str
    version: str
    kernel: str
    started: str
    endpoints: int
    identities: int
    policies: int
    policy_entries: int


class FlowServer(Struct, frozen=True):
    attached: bool
    rate: float
    seen: int
    lost: int
    kept: int
    capacity: int
    connections: int


class Node(Struct, frozen=True):
    name: str
    addresses: list[str]
    agent: Agent | None
    flows: FlowServer | None
    problems: list[str]
    lacks: list[str]


class Way(Struct, frozen=True):
    source: str
    destination: str
    path: str
    protocol: str
    address: str
    state: str
    reason: str
    latency: float | Missing = msgspec.UNSET
    measured: str | Missing = msgspec.UNSET


class Nodes(Struct, frozen=True):
    nodes: list[Node]
    ways: list[Way]
