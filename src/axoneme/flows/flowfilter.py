"""Which flows somebody wants to see, as a value that goes over the wire.

In a `FlowFilter` the values of one field are alternatives, and all fields that are given must hold.
Several filters are alternatives again, and ``not`` filters take away from what the others let
through. A field without prefix is about either end; ``from_`` is the source, ``to_`` the destination.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec


class FlowFilter(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Pods are ``name``, ``namespace/name`` (the start of a name is enough) or ``namespace/``;
    services the same; workloads ``name`` or ``kind/name``; labels selectors as kubectl takes them; addresses
    one address or a prefix; identities numbers or reserved names; times ns of the wall clock. Of requests:
    statuses ``404`` or ``5+`` (which begin with 5), paths, URLs, queries and topics regular expressions that
    match somewhere, headers ``name: value``. Of ends of TCP connections: ``handshake`` and ``rtt`` how
    long they took at least, in ns; ``retransmissions`` how many there were at least, both ways together."""

    verdict: tuple[str, ...] = ()
    pod: tuple[str, ...] = ()
    from_pod: tuple[str, ...] = ()
    to_pod: tuple[str, ...] = ()
    namespace: tuple[str, ...] = ()
    from_namespace: tuple[str, ...] = ()
    to_namespace: tuple[str, ...] = ()
    workload: tuple[str, ...] = ()
    from_workload: tuple[str, ...] = ()
    to_workload: tuple[str, ...] = ()
    label: tuple[str, ...] = ()
    from_label: tuple[str, ...] = ()
    to_label: tuple[str, ...] = ()
    identity: tuple[int | str, ...] = ()
    from_identity: tuple[int | str, ...] = ()
    to_identity: tuple[int | str, ...] = ()
    service: tuple[str, ...] = ()
    from_service: tuple[str, ...] = ()
    to_service: tuple[str, ...] = ()
    ip: tuple[str, ...] = ()
    from_ip: tuple[str, ...] = ()
    to_ip: tuple[str, ...] = ()
    port: tuple[int, ...] = ()
    from_port: tuple[int, ...] = ()
    to_port: tuple[int, ...] = ()
    protocol: tuple[int | str, ...] = ()
    node: tuple[str, ...] = ()
    reason: tuple[int | str, ...] = ()
    direction: tuple[str, ...] = ()
    event: tuple[str, ...] = ()
    type: tuple[str, ...] = ()
    http_status: tuple[str, ...] = ()
    http_method: tuple[str, ...] = ()
    http_path: tuple[str, ...] = ()
    http_url: tuple[str, ...] = ()
    http_header: tuple[str, ...] = ()
    dns_query: tuple[str, ...] = ()
    kafka_topic: tuple[str, ...] = ()
    handshake: tuple[int, ...] = ()
    rtt: tuple[int, ...] = ()
    retransmissions: tuple[int, ...] = ()
    since: int | None = None
    until: int | None = None


class FilterError(ValueError):
    """A value in a filter that means nothing; says which field, and what would be right."""

    def __init__(self, field: str, value: object, right: str) -> None:
        super().__init__(f"filter {field}: {value!r} is not {right}")


class Field(NamedTuple):
    """One field of `FlowFilter` as people read of it; ``sided`` ones are also there for the source and the
    destination."""

    name: str
    help: str
    sided: bool = False


FIELDS = (
    Field("verdict", "FORWARDED, DROPPED and others."),
    Field("pod", "POD, NAMESPACE/POD (the start of the name is enough) or NAMESPACE/.", True),
    Field("namespace", "The pod's namespace.", True),
    Field("workload", "The pod's workload: NAME or KIND/NAME.", True),
    Field("service", "A service that was called: NAME (its start), NAMESPACE/NAME or NAMESPACE/.", True),
    Field("label", "A selector of labels: app=web,tier!=db.", True),
    Field("identity", "A number, or a reserved name as world or host.", True),
    Field("ip", "An address or a range.", True),
    Field("port", "A port.", True),
    Field("protocol", "tcp, udp, sctp, icmp, icmpv4, icmpv6, a number; http, dns, kafka."),
    Field("node", "The node that saw it."),
    Field("reason", "The reason of a drop, such as POLICY_DENIED."),
    Field("direction", "ingress or egress, as the node's pod sees it."),
    Field("event", "new, end, drop, request or response."),
    Field("type", "l7, drop, policy-verdict or trace."),
    Field("http_status", "The status of an answer: 404, or 5+ for all that begin with 5."),
    Field("http_method", "GET, POST and others."),
    Field("http_path", "A regular expression for the path."),
    Field("http_url", "A regular expression for the URL."),
    Field("http_header", "NAME: VALUE, of the headers that are kept."),
    Field("dns_query", "A regular expression for the name that was asked for."),
    Field("kafka_topic", "A regular expression for the topic."),
    Field("handshake", "TCP connections, at their end: the handshake took 200ms or longer."),
    Field("rtt", "The same of the round trip time."),
    Field("retransmissions", "The same: so many segments or more were sent again."),
)


def fields() -> Iterator[tuple[str, Field]]:
    """The names of `FlowFilter`'s fields that people use, with what each belongs to."""
    for each in FIELDS:
        yield each.name, each
        if each.sided:
            yield f"from_{each.name}", each
            yield f"to_{each.name}", each
