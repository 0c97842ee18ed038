"""A flow as it leaves the flow server: JSON in the field names of Hubble's flow.proto.

Where the meaning is the same, names, numbers and texts are Hubble's (`jq` filters written for it
work); what Hubble has no field for stands at the end of each struct. Fields at their default value
are left out. (``gc=False``: none of these can be part of a cycle, and thousands a second would keep the
garbage collector busy.) `ObserveRequest` and `Item` are the two sides of the stream ``flows.observe``.
"""

from __future__ import annotations

import msgspec

from axoneme.flows.flowfilter import FlowFilter


class TCPFlags(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    FIN: bool = False
    SYN: bool = False
    RST: bool = False
    PSH: bool = False
    ACK: bool = False
    URG: bool = False
    ECE: bool = False
    CWR: bool = False

    @classmethod
    def of(cls, bits: int) -> TCPFlags:
        """From the flags byte of a TCP header."""
        return cls(*(bool(bits >> bit & 1) for bit in range(8)))

    def names(self) -> list[str]:
        return [name for name in self.__struct_fields__ if getattr(self, name)]


class TCP(msgspec.Struct, frozen=True, gc=False):
    source_port: int
    destination_port: int
    flags: TCPFlags = TCPFlags()


class Ports(msgspec.Struct, frozen=True, gc=False):
    """UDP and SCTP."""

    source_port: int
    destination_port: int


class ICMP(msgspec.Struct, frozen=True, gc=False):
    type: int
    code: int


class Layer4(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """At most one is set; none for protocols without a place here (then `IP.protocol` says which)."""

    TCP: TCP | None = None
    UDP: Ports | None = None
    SCTP: Ports | None = None
    ICMPv4: ICMP | None = None
    ICMPv6: ICMP | None = None


class IP(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    source: str = ""
    destination: str = ""
    ipVersion: str = ""
    source_xlated: str = ""  # what the outside sees of a masqueraded connection
    source_port_xlated: int = 0
    protocol: int = 0
    frontend: str = ""  # of the service that was called, where that is not the destination itself
    frontend_port: int = 0


class Workload(msgspec.Struct, frozen=True, gc=False):
    name: str
    kind: str


class Endpoint(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    ID: int = 0  # on this node; 0 for ends elsewhere
    identity: int = 0
    namespace: str = ""
    labels: tuple[str, ...] = ()
    pod_name: str = ""
    workloads: tuple[Workload, ...] = ()
    node_name: str = ""


class Service(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The service that a connection called; ``port`` is one of its ports: a name, or ``80/TCP``."""

    name: str
    namespace: str = ""
    port: str = ""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class PolicyName(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    name: str
    namespace: str = ""
    kind: str = ""
    rule: str = ""  # where in the object: spec.ingress[0]

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


class HTTPHeader(msgspec.Struct, frozen=True, gc=False):
    key: str
    value: str


class HTTP(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    code: int = 0
    method: str = ""
    url: str = ""
    protocol: str = ""
    headers: tuple[HTTPHeader, ...] = ()
    grpc_status: int | None = None


class DNS(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    query: str = ""
    ips: tuple[str, ...] = ()
    ttl: int = 0
    cnames: tuple[str, ...] = ()
    observation_source: str = ""
    rcode: int = 0
    qtypes: tuple[str, ...] = ()
    rrtypes: tuple[str, ...] = ()


class Kafka(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    error_code: int = 0
    api_version: int = 0
    api_key: str = ""
    correlation_id: int = 0
    topic: str = ""
    client_id: str = ""


class Layer7(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """At most one of ``dns``, ``http`` and ``kafka`` is set; none for TLS that is passed on unread."""

    type: str  # REQUEST, RESPONSE
    latency_ns: int = 0
    dns: DNS | None = None
    http: HTTP | None = None
    kafka: Kafka | None = None
    server_name: str = ""  # of TLS
    reason: str = ""  # why it did not pass, in words


class TCPHealth(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What the sockets of this node measured; a value of 0 was not. ``rtt_ns`` is smoothed, and the
    initiator's if its socket is here, else that of the end that answers. ``retransmissions``: segments that
    the initiator sent again, ``reply_…`` the other end; each node counts those of its own sockets."""

    handshake_ns: int = 0
    rtt_ns: int = 0
    min_rtt_ns: int = 0
    retransmissions: int = 0
    reply_retransmissions: int = 0


class EventType(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Hubble's message types: 1 drop (sub_type: reason), 4 trace, 5 policy verdict, 129 L7."""

    type: int
    sub_type: int = 0


class Interface(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    index: int


class Flow(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    time: str  # RFC 3339, UTC, ns
    verdict: str
    drop_reason_desc: str = ""
    IP: IP = IP()
    l4: Layer4 = Layer4()
    source: Endpoint = Endpoint()
    destination: Endpoint = Endpoint()
    Type: str = ""
    node_name: str = ""
    l7: Layer7 | None = None
    event_type: EventType | None = None
    source_service: Service | None = None  # of a reply
    destination_service: Service | None = None
    traffic_direction: str = ""
    is_reply: bool | None = None
    interface: Interface | None = None
    proxy_port: int = 0
    auth_type: str = ""  # SPIRE, Hubble's name: both ends had to prove who they are
    egress_allowed_by: tuple[PolicyName, ...] = ()
    ingress_allowed_by: tuple[PolicyName, ...] = ()
    egress_denied_by: tuple[PolicyName, ...] = ()
    ingress_denied_by: tuple[PolicyName, ...] = ()
    Summary: str = ""
    event: str = ""  # new, end, drop, request or response
    duration_ns: int = 0  # at the end of a connection
    packets: int = 0  # from the initiator; the four counts: at the end of a connection, and of a drop
    bytes: int = 0
    reply_packets: int = 0
    reply_bytes: int = 0
    tcp_health: TCPHealth | None = None  # at the end of a connection


class LostEvents(msgspec.Struct, frozen=True, gc=False):
    """Events that a follower does not get, with Hubble's name for where they were lost.

    PERF_EVENT_RING_BUFFER: the kernel found its ring buffer full. HUBBLE_RING_BUFFER: this follower
    read so slowly that newer events took their places. OBSERVER_EVENTS_QUEUE: proxies could not deliver them.
    ``ring`` is ``flows`` or ``drops``, of the last ``requests``.
    """

    source: str
    ring: str
    num_events_lost: int


class Item(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One item of the stream: a flow, or the news that some are missing from here."""

    flow: Flow | None = None
    lost_events: LostEvents | None = None
    node_name: str = ""


class ObserveRequest(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Parameters of ``flows.observe``. Flows that one of the filters accepts (or all, without any) and
    none of the ``not_filters``, in order of time.

    Without ``last`` and ``since`` it begins with the oldest flow that is kept or, to ``follow``, with the
    present. Times are ns of the wall clock.
    """

    filters: list[FlowFilter] = []
    not_filters: list[FlowFilter] = []
    last: int | None = None
    follow: bool = False
    since: int | None = None
    until: int | None = None
