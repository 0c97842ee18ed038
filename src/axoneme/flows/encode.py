"""From flow records to the values that leave the server.

Only flows that passed a filter come here, so this may cost microseconds where the rest of the path
costs tens of nanoseconds; still, columns become Python lists in one go, and what repeats (ends, TCP
flags, policies) is built once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from axoneme.flows.events import L7, AddressTexts, Records, TrafficDirection, Verdict, Vocabulary
from axoneme.flows.flow import (
    ICMP,
    IP,
    TCP,
    Endpoint,
    EventType,
    Flow,
    Interface,
    Layer4,
    Layer7,
    PolicyName,
    Ports,
    Service,
    TCPFlags,
    TCPHealth,
    Workload,
)
from axoneme.flows.names import End, Names
from axoneme.flows.requests import Requests, summary
from axoneme.flows.servicenames import ServiceNames, ServicePort
from axoneme.model.policy import PolicyRef

#: From a rule's number to the places in policies that make it; None when nobody knows it (yet).
Rules = Callable[[int], Sequence[PolicyRef] | None]

_ICMP, _TCP, _UDP, _ICMPV6, _SCTP = 1, 6, 17, 58, 132
_ICMP_NAMES = {
    (_ICMP, 0): "EchoReply",
    (_ICMP, 3): "DestinationUnreachable",
    (_ICMP, 8): "EchoRequest",
    (_ICMP, 11): "TimeExceeded",
    (_ICMPV6, 1): "DestinationUnreachable",
    (_ICMPV6, 2): "PacketTooBig",
    (_ICMPV6, 3): "TimeExceeded",
    (_ICMPV6, 128): "EchoRequest",
    (_ICMPV6, 129): "EchoReply",
}
_FLAGS = tuple(TCPFlags.of(bits) for bits in range(256))
_FLAG_NAMES = tuple(", ".join(flags.names()) for flags in _FLAGS)
_VERDICTS = {int(verdict): verdict.name for verdict in Verdict}
_DIRECTIONS = {int(direction): direction.name for direction in TrafficDirection}

# Hubble's message types.
_DROP, _TRACE, _POLICY_VERDICT = 1, 4, 5

_REMEMBERED = 65536


class _Row(NamedTuple):
    """A record's columns as Python values."""

    time: str
    verdict: int
    direction: int
    source: str
    destination: str
    source_port: int
    destination_port: int
    protocol: int
    kind: int
    reason: int
    flags: int
    tcp_flags: int
    icmp_type: int
    icmp_code: int
    hook: int
    egress_rule: int
    ingress_rule: int
    source_row: int
    source_identity: int
    source_endpoint: int
    destination_row: int
    destination_identity: int
    destination_endpoint: int
    nat_port: int
    nat_address: str
    service: int
    frontend: str
    frontend_port: int
    packets: int
    reply_packets: int
    bytes: int
    reply_bytes: int
    age: int
    handshake: int
    rtt: int
    min_rtt: int
    retransmissions: int
    reply_retransmissions: int
    zone: int
    request: int


class Encoder:
    """Makes `Flow` values of one node's records; remembers what repeats, within bounds."""

    def __init__(
        self,
        names: Names,
        rules: Rules,
        services: ServiceNames,
        requests: Requests,
        node: str,
        vocabulary: Vocabulary,
    ) -> None:
        self._names = names
        self._requests = requests
        self._rules = rules
        self._service_names = services
        self._node = node
        self._vocabulary = vocabulary
        self._texts = AddressTexts()
        self._endpoints: dict[tuple[int, int, int], tuple[End, Endpoint]] = {}
        self._policies: dict[int, tuple[PolicyName, ...]] = {}
        self._services: dict[int, tuple[ServicePort | None, Service]] = {}

    def flows(self, records: Records) -> list[Flow]:
        """One flow a record, in the same order."""
        packets, octets, again = records["packets"], records["bytes"], records["retransmissions"]
        derived = {
            "time": np.datetime_as_string(records["wall"].astype("datetime64[ns]")).tolist(),
            "verdict": self._vocabulary.verdicts(records).tolist(),
            "direction": self._vocabulary.directions(records).tolist(),
            "source": self._texts.of(records, "source"),
            "destination": self._texts.of(records, "destination"),
            "nat_address": self._texts.of(records, "nat_address"),
            "frontend": self._texts.of(records, "frontend"),
            "packets": packets[:, 0].tolist(),
            "reply_packets": packets[:, 1].tolist(),
            "bytes": octets[:, 0].tolist(),
            "reply_bytes": octets[:, 1].tolist(),
            "retransmissions": again[:, 0].tolist(),
            "reply_retransmissions": again[:, 1].tolist(),
            "age": (records["time"] - records["started"]).tolist(),
        }
        columns = (derived[name] if name in derived else records[name].tolist() for name in _Row._fields)
        return [self._flow(_Row._make(row)) for row in zip(*columns, strict=True)]

    def _flow(self, row: _Row) -> Flow:
        vocabulary = self._vocabulary
        drop, end, l7 = row.kind == vocabulary.drop, row.kind == vocabulary.end, row.kind == L7
        ingress = row.direction == TrafficDirection.INGRESS
        denied = (drop and row.reason in (vocabulary.policy_default, vocabulary.policy_deny)) or (
            l7 and row.verdict == Verdict.DROPPED
        )
        egress_denied = (denied and not ingress) or row.flags & vocabulary.audited_egress
        ingress_denied = (denied and ingress) or row.flags & vocabulary.audited_ingress
        egress_by = self._policy(row.egress_rule)
        ingress_by = self._policy(row.ingress_rule)
        service = self._service(row.service) if row.flags & vocabulary.served else None
        reply = bool(row.flags & vocabulary.reply)
        to_proxy = row.flags & vocabulary.proxied and row.zone == vocabulary.zone_client
        authenticated = row.flags & vocabulary.authenticated or (
            drop and row.reason == vocabulary.unauthenticated
        )
        layer4, text = _layer4(row)
        request = (self._requests.get(row.request) or _unknown(reply)) if l7 else None
        return Flow(
            time=row.time + "Z",
            verdict=_VERDICTS.get(row.verdict, Verdict.VERDICT_UNKNOWN.name),
            drop_reason_desc=vocabulary.reasons.get(row.reason, f"REASON_{row.reason}") if drop else "",
            IP=self._ip(row),
            l4=layer4,
            source=self._endpoint(row.source_row, row.source_identity, row.source_endpoint),
            destination=self._endpoint(
                row.destination_row, row.destination_identity, row.destination_endpoint
            ),
            Type="L7" if l7 else "L3_L4",
            node_name=self._node,
            l7=request,
            event_type=self._event_type(row),
            source_service=service if reply else None,
            destination_service=None if reply else service,
            traffic_direction=_DIRECTIONS[row.direction],
            is_reply=reply,
            interface=Interface(row.hook & vocabulary.hook_interface) if row.hook else None,
            proxy_port=row.nat_port if to_proxy else 0,
            auth_type="SPIRE" if authenticated else "",
            egress_allowed_by=() if egress_denied else egress_by,
            ingress_allowed_by=() if ingress_denied else ingress_by,
            egress_denied_by=egress_by if egress_denied else (),
            ingress_denied_by=ingress_by if ingress_denied else (),
            Summary=summary(request) if request else text,
            event=request.type.lower() if request else "drop" if drop else "end" if end else "new",
            duration_ns=row.age if end else 0,
            packets=row.packets if drop or end else 0,
            bytes=row.bytes if drop or end else 0,
            reply_packets=row.reply_packets if end else 0,
            reply_bytes=row.reply_bytes if end else 0,
            tcp_health=_health(row) if end else None,
        )

    def _event_type(self, row: _Row) -> EventType:
        if row.kind == L7:
            return EventType(L7)
        if row.kind == self._vocabulary.drop:
            return EventType(_DROP, row.reason)
        if row.kind == self._vocabulary.end or not (row.egress_rule or row.ingress_rule):
            return EventType(_TRACE)
        return EventType(_POLICY_VERDICT, row.direction)

    def _ip(self, row: _Row) -> IP:
        version = "IPv6" if ":" in row.source else "IPv4"
        protocol = 0 if row.protocol in (_ICMP, _TCP, _UDP, _ICMPV6, _SCTP) else row.protocol
        masqueraded = row.flags & self._vocabulary.masqueraded
        # What was refused went to the service's own address.
        elsewhere = row.flags & self._vocabulary.served and (
            (row.frontend, row.frontend_port) != (row.destination, row.destination_port)
        )
        return IP(
            row.source,
            row.destination,
            version,
            source_xlated=row.nat_address if masqueraded else "",
            source_port_xlated=row.nat_port if masqueraded else 0,
            protocol=protocol,
            frontend=row.frontend if elsewhere else "",
            frontend_port=row.frontend_port if elsewhere else 0,
        )

    def _service(self, number: int) -> Service:
        known, found = self._services.get(number), self._service_names.get(number)
        if known is not None and known[0] is found:
            return known[1]
        if len(self._services) >= _REMEMBERED:
            self._services.clear()
        if found is None:
            made = Service(f"service {number}")
        else:
            namespace, name = found.split
            made = Service(name, namespace, found.port)
        self._services[number] = found, made
        return made

    def _endpoint(self, row: int, identity: int, endpoint: int) -> Endpoint:
        key, end = (row, identity, endpoint), self._names[row]
        known = self._endpoints.get(key)
        if known is not None and known[0] is end:
            return known[1]
        if len(self._endpoints) >= _REMEMBERED:
            self._endpoints.clear()
        made = Endpoint(
            ID=endpoint,
            identity=identity,
            namespace=end.namespace,
            labels=end.labels,
            pod_name=end.pod,
            workloads=(Workload(end.workload, end.workload_kind),) if end.workload else (),
            node_name=end.node,
        )
        self._endpoints[key] = end, made
        return made

    def _policy(self, rule: int) -> tuple[PolicyName, ...]:
        if not rule:
            return ()
        known = self._policies.get(rule)
        if known is not None:
            return known
        refs = self._rules(rule)
        if refs is None:
            return (PolicyName(name=f"rule {rule}"),)
        if len(self._policies) >= _REMEMBERED:
            self._policies.clear()
        names = tuple(PolicyName(ref.name, ref.namespace, ref.kind, ref.rule) for ref in refs)
        self._policies[rule] = names
        return names


def _health(row: _Row) -> TCPHealth | None:
    again = row.retransmissions, row.reply_retransmissions
    if not (row.handshake or row.rtt or any(again)):
        return None
    return TCPHealth(row.handshake * 1000, row.rtt * 1000, row.min_rtt * 1000, *again)


def _unknown(answer: bool) -> Layer7:
    """Of a request whose text had to go."""
    return Layer7("RESPONSE" if answer else "REQUEST")


def icmp_name(protocol: int, kind: int, code: int) -> str:
    """Of a message of ICMP (protocol 1) or ICMPv6 (58), as Hubble calls it where it has a name for it."""
    return _ICMP_NAMES.get((protocol, kind), f"type {kind} code {code}")


def _layer4(row: _Row) -> tuple[Layer4, str]:
    """The ports or types, and one line that sums them up."""
    protocol = row.protocol
    text = layer4_text(protocol, row.tcp_flags, row.icmp_type, row.icmp_code)
    if protocol == _TCP:
        header = TCP(row.source_port, row.destination_port, _FLAGS[row.tcp_flags])
        return Layer4(TCP=header), text
    if protocol == _UDP:
        return Layer4(UDP=Ports(row.source_port, row.destination_port)), text
    if protocol == _SCTP:
        return Layer4(SCTP=Ports(row.source_port, row.destination_port)), text
    if protocol == _ICMP:
        return Layer4(ICMPv4=ICMP(row.icmp_type, row.icmp_code)), text
    if protocol == _ICMPV6:
        return Layer4(ICMPv6=ICMP(row.icmp_type, row.icmp_code)), text
    return Layer4(), text


def layer4_text(protocol: int, tcp_flags: int, icmp_type: int, icmp_code: int) -> str:
    """Hubble's one-line summary."""
    if protocol == _TCP:
        names = _FLAG_NAMES[tcp_flags]
        return f"TCP Flags: {names}" if names else "TCP"
    if protocol in (_ICMP, _ICMPV6):
        return f"{'ICMPv4' if protocol == _ICMP else 'ICMPv6'} {icmp_name(protocol, icmp_type, icmp_code)}"
    return {_UDP: "UDP", _SCTP: "SCTP"}.get(protocol, f"protocol {protocol}")
