"""What proxies tell the flow server of requests and answers: messages on a unix socket (SOCK_SEQPACKET), each
an `L7Report` in JSON.

Proxies know addresses only. Who has them, and which policies sent the connection to a proxy, the flow server
finds by the connection's own entry in the flow table.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

#: The socket, in the agent's directory.
SOCKET = "l7.sock"
#: The longest text of any field, in characters; the rest is cut.
LONGEST = 2048
#: How many events a report has at most, and how many values one of their lists.
MOST = 64


class HTTPEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """``code`` 0: there was no answer. On its way the sender takes secrets out of ``url`` and ``headers``."""

    method: str
    url: str
    protocol: str  # HTTP/1.1, HTTP/2
    code: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    grpc_status: int | None = None


class DNSEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    query: str  # with its trailing dot
    qtypes: tuple[str, ...] = ()
    rcode: int = 0
    ips: tuple[str, ...] = ()
    ttl: int = 0  # seconds
    cnames: tuple[str, ...] = ()
    rrtypes: tuple[str, ...] = ()


class KafkaEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    api_key: str
    api_version: int
    correlation_id: int
    topic: str = ""
    error_code: int = 0
    client_id: str = ""


class L7Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """``source`` is the client's end of the connection as the proxy took it; ``destination`` is called."""

    time: Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]  # wall clock, ns
    direction: str  # ingress, egress: of the policy that sent it to the proxy
    protocol: str  # TCP, UDP
    source: str
    source_port: int
    destination: str
    destination_port: int
    type: str  # REQUEST, RESPONSE
    verdict: str  # FORWARDED, DROPPED, AUDIT, ERROR
    reason: str = ""  # of what did not pass, in words
    latency_ns: Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)] = 0
    server_name: str = ""  # of TLS
    http: HTTPEvent | None = None
    dns: DNSEvent | None = None
    kafka: KafkaEvent | None = None


class L7Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """``lost``: events of this sender since its last report that could not be delivered."""

    events: tuple[L7Event, ...]
    lost: int = 0
