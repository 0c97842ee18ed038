"""The parts of serialized flows that repeat: each made once, with its part of a field mask applied.

A part is a pair: its piece of ``flow.Flow``, and its piece of what stands in ``axoneme.Details``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, NamedTuple, TypeVar

from axoneme.flows.encode import layer4_text
from axoneme.flows.events import L7
from axoneme.flows.flow import TCPFlags
from axoneme.flows.flowlog import FlowLog
from axoneme.flows.names import End
from axoneme.hubble import wire
from axoneme.hubble.eventtypes import DROP, OBSERVATION_POINTS, TRACE
from axoneme.hubble.fieldmask import Mask
from axoneme.hubble.interfaces import name_of
from axoneme.hubble.schema import message, serialized
from axoneme.identity.prefixes import address_text
from axoneme.model.policy import PolicyRef

K = TypeVar("K")
V = TypeVar("V")

#: Of each kind of part; about a kilobyte for each of the largest.
_REMEMBERED: Final = 8192

_ICMP, _TCP, _UDP, _ICMPV6, _SCTP = 1, 6, 17, 58, 132
#: Protocols with ports, by the number that their message has in ``flow.Layer4``.
_PORTS: Final = {_TCP: 1, _UDP: 2, _SCTP: 5}
_ICMPS: Final = {_ICMP: "ICMPv4", _ICMPV6: "ICMPv6"}
#: Bytes that two ports take: each a tag and a varint of three bytes.
_PORTS_SIZE: Final = 8

_BY: Final = {False: "allowed_by", True: "denied_by"}
_NEW, _ESTABLISHED = 1, 2  # flow.TraceReason
_LAYER4, _LAYER7 = 1, 2  # flow.FlowType


class Part(NamedTuple):
    flow: bytes = b""
    details: bytes = b""


class Layer4Part(NamedTuple):
    """The ports come between; ``after`` is None where there are none."""

    before: bytes
    after: bytes | None


class Remembered(dict[K, V], Generic[K, V]):
    """Makes what is missing; forgets everything when it is too much."""

    def __init__(self, make: Callable[[K], V]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: K) -> V:
        if len(self) >= _REMEMBERED:
            self.clear()
        made = self[key] = self._make(key)
        return made


@dataclass(frozen=True, slots=True)
class Site:
    """The node whose flows these are; ``name`` as Hubble writes it."""

    name: str
    cluster: str
    labels: Sequence[str] = field(default=())
    version: str = ""


class Parts:
    def __init__(self, log: FlowLog, site: Callable[[], Site], mask: Mask) -> None:
        self._log = log
        self._site_of = site
        self._site = site()
        self._mask = mask
        self._seen = (-1, -1)
        self._unsure: set[tuple[int, int, bool, bool]] = set()
        self.heads = Remembered(self._head)
        self.sources = Remembered(self._source)
        self.destinations = Remembered(self._destination)
        self.layer4 = Remembered(self._layer4)
        self.services = Remembered(self._service)
        self.policies = Remembered(self._policies)
        self.places = Remembered(self._place)
        self.source_addresses = Remembered(self._source_address)
        self.destination_addresses = Remembered(self._destination_address)
        self.versions = Remembered(self._version)

    def refresh(self) -> None:
        """Before each page: forgets what means something else by now."""
        site = self._site_of()
        if site is not self._site:
            self._site = site
            self.heads.clear()
            self.sources.clear()
            self.destinations.clear()
        names, services = self._seen
        if names != self._log.names.version:
            self.sources.clear()
            self.destinations.clear()
        if services != self._log.services.version:
            self.services.clear()
        self._seen = self._log.names.version, self._log.services.version
        for key in self._unsure:
            self.policies.pop(key, None)
        self._unsure.clear()

    def _trimmed(self, **fields: Any) -> bytes:
        return serialized(self._mask.trim(message("flow.Flow")(**fields)))

    # ---- what it is ----------------------------------------------------------------------------

    def _head(self, key: tuple[int, int, int, int, int, int]) -> Part:
        kind, verdict, direction, type_, sub_type, reply = key
        drop, end = kind == self._log.vocabulary.drop, kind == self._log.vocabulary.end
        event = "drop" if drop else "end" if end else "new"
        if kind == L7:
            event = "response" if reply else "request"
        flow = self._trimmed(
            emitter={"name": "Axoneme", "version": self._site.version},
            verdict=verdict,
            drop_reason=sub_type if drop else 0,
            drop_reason_desc=sub_type if type_ == DROP else 0,
            Type=_LAYER7 if kind == L7 else _LAYER4,
            node_name=self._site.name,
            node_labels=self._site.labels,
            event_type={"type": type_, "sub_type": sub_type},
            traffic_direction=direction,
            trace_observation_point=OBSERVATION_POINTS.get(sub_type, sub_type) if type_ == TRACE else 0,
            trace_reason=(_ESTABLISHED if end else _NEW) if type_ == TRACE else 0,
            is_reply={"value": bool(reply)},
            reply=bool(reply),
        )
        return Part(flow, wire.text(1, event))

    def _place(self, key: tuple[int, int]) -> bytes:
        index, proxy_port = key
        interface = {"index": index, "name": name_of(index)} if index else None
        return self._trimmed(interface=interface, proxy_port=proxy_port)

    # ---- from where to where -------------------------------------------------------------------

    def _source_address(self, address: bytes) -> bytes:
        return wire.text(1, address_text(address)) if self._mask.wants_inside("IP", "source") else b""

    def _destination_address(self, address: bytes) -> bytes:
        return wire.text(2, address_text(address)) if self._mask.wants_inside("IP", "destination") else b""

    def _version(self, key: tuple[bool, bytes]) -> bytes:
        """What else a ``flow.IP`` has: its version, and the address behind masquerading."""
        ipv4, masqueraded = key
        made = wire.number(3, 1 if ipv4 else 2) if self._mask.wants_inside("IP", "ipVersion") else b""
        if any(masqueraded) and self._mask.wants_inside("IP", "source_xlated"):
            made += wire.text(5, address_text(masqueraded))
        return made

    def _layer4(self, key: tuple[int, int, int, int, int]) -> Layer4Part:
        protocol, tcp_flags, icmp_type, icmp_code, kind = key
        text = "" if kind == L7 else layer4_text(protocol, tcp_flags, icmp_type, icmp_code)
        summary = self._trimmed(Summary=text)
        if not self._mask.wants("l4"):
            return Layer4Part(summary, None)
        if (number := _PORTS.get(protocol)) is not None:
            flags = b""
            if protocol == _TCP and tcp_flags:
                names = dict.fromkeys(TCPFlags.of(tcp_flags).names(), True)
                flags = wire.block(3, message("flow.TCPFlags")(**names).SerializeToString())
            header = wire.block(number, bytes(_PORTS_SIZE) + flags)
            before = wire.block(6, header)[: -_PORTS_SIZE - len(flags)]
            return Layer4Part(before, flags + summary)
        layer4 = {}
        if (name := _ICMPS.get(protocol)) is not None:
            layer4 = {"l4": {name: {"type": icmp_type, "code": icmp_code}}}
        return Layer4Part(self._trimmed(**layer4) + summary, None)

    def _source(self, key: tuple[int, int, int]) -> Part:
        return self._end("source", 12, *key)

    def _destination(self, key: tuple[int, int, int]) -> Part:
        return self._end("destination", 13, *key)

    def _end(self, side: str, node: int, row: int, identity: int, endpoint: int) -> Part:
        """``node``: the field of the details that it stands in."""
        end = self._log.names[row]
        inside = is_inside(end)
        made = {
            "ID": endpoint,
            "identity": identity,
            "cluster_name": self._site.cluster if inside else "",
            "namespace": end.namespace,
            "labels": end.labels,
            "pod_name": end.pod,
            "workloads": [{"name": end.workload, "kind": end.workload_kind}] if end.workload else [],
        }
        return Part(self._trimmed(**{side: made}), wire.text(node, end.node))

    # ---- what was called, and who let it ---------------------------------------------------------

    def _service(self, key: tuple[int, int]) -> Part:
        number, reply = key
        if not number:
            return Part()
        known = self._log.services.get(number)
        namespace, name = known.split if known else ("", f"service {number}")
        side = "source_service" if reply else "destination_service"
        flow = self._trimmed(**{side: {"name": name, "namespace": namespace}})
        return Part(flow, wire.text(11, known.port) if known else b"")

    def _policies(self, key: tuple[int, int, bool, bool]) -> Part:
        egress_rule, ingress_rule, egress_denied, ingress_denied = key
        egress, ingress = self._refs(egress_rule, key), self._refs(ingress_rule, key)
        flow = self._trimmed(
            **{
                f"egress_{_BY[egress_denied]}": [_policy(ref) for ref in egress],
                f"ingress_{_BY[ingress_denied]}": [_policy(ref) for ref in ingress],
            }
        )
        details = message("axoneme.Details")(
            egress_rules=[ref.rule for ref in egress], ingress_rules=[ref.rule for ref in ingress]
        )
        return Part(flow, details.SerializeToString())

    def _refs(self, rule: int, key: tuple[int, int, bool, bool]) -> Sequence[PolicyRef]:
        if not rule:
            return ()
        found = self._log.rules(rule)
        if found is None:  # nobody has told of it yet
            self._unsure.add(key)
            return (PolicyRef("", "", f"rule {rule}"),)
        return found


def policy_labels(kind: str, namespace: str, name: str) -> Sequence[str]:
    """Those that Cilium gives to a policy's rules."""
    said = {"derived-from": kind, "name": name, "namespace": namespace}
    return [f"k8s:io.cilium.k8s.policy.{key}={value}" for key, value in said.items() if value]


def _policy(ref: PolicyRef) -> dict[str, Any]:
    labels = policy_labels(ref.kind, ref.namespace, ref.name) if ref.kind else ()
    return {"name": ref.name, "namespace": ref.namespace, "kind": ref.kind, "labels": labels}


def is_inside(end: End) -> bool:
    """Whether it belongs to the cluster: a pod, or a node."""
    return bool(end.namespace or end.node)
