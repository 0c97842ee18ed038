"""Services and EndpointSlices as they stand in the store, read in a tenth of the time that `parse_service`
and `parse_endpoint_slice` take: a node that starts reads ten thousand of each before it can balance.

What is seldom, or not in order, is left to those: so the complaints are theirs, and what both understand
they understand alike (a test holds that). Only of names, labels and hints, which the API has seen to when
the object was written, no more is checked here than that they are texts.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from socket import AF_INET, AF_INET6, inet_pton
from sys import intern
from typing import Annotated, Any, Literal

import msgspec

from axoneme.model.addresses import FAMILIES, Address, special
from axoneme.model.endpointslices import (
    SERVICE_NAME,
    WEIGHT,
    Endpoint,
    EndpointPort,
    EndpointSlice,
    parse_endpoint_slice,
)
from axoneme.model.metadata import DEFAULT_NAMESPACE, Metadata
from axoneme.model.serviceannotations import PREFIX
from axoneme.model.services import Service, ServicePort, parse_service

Object = dict[str, Any]

_SOCKET = {4: AF_INET, 6: AF_INET6}


def read_service(value: bytes) -> Service:
    """Raises `ManifestError`, and msgspec.DecodeError or UnicodeDecodeError for what is no object in JSON."""
    try:
        return _service(msgspec.json.decode(value, type=_Service))
    except (msgspec.ValidationError, ValueError):
        return parse_service(msgspec.json.decode(value, type=Object))


def read_endpoint_slice(value: bytes) -> EndpointSlice:
    """The same for a slice."""
    try:
        return _slice(msgspec.json.decode(value, type=_Slice))
    except (msgspec.ValidationError, ValueError):
        return parse_endpoint_slice(msgspec.json.decode(value, type=Object))


def _address(text: str, version: int) -> Address:
    try:  # it takes a third of the time that `ipaddress` takes for texts
        number = int.from_bytes(inet_pton(_SOCKET[version], text))
    except OSError:
        raise ValueError from None
    found = IPv4Address(number) if version == 4 else IPv6Address(number)
    if special(found) or (version == 6 and number >> 32 == 0xFFFF):
        raise ValueError
    return found


# ---- their parts, as the API calls them --------------------------------------------------------

_Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
_PortName = Annotated[str, msgspec.Meta(pattern=r"^[a-z]([a-z0-9]|-[a-z0-9])*\Z", max_length=15)]
_Protocol = Literal["TCP", "UDP", "SCTP"]


class _View(msgspec.Struct, rename="camel", gc=False):
    pass


class _Metadata(_View):
    name: Annotated[str, msgspec.Meta(min_length=1)]
    namespace: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    uid: str | None = None
    creation_timestamp: str | None = None

    def made(self) -> Metadata:
        return Metadata(
            self.name,
            self.namespace or DEFAULT_NAMESPACE,
            self.labels or {},
            self.annotations or {},
            self.uid or "",
            self.creation_timestamp or "",
        )


class _ServicePort(_View):
    port: _Port
    name: str | None = None
    protocol: _Protocol | None = None
    target_port: _Port | _PortName | None = None
    node_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] | None = None
    app_protocol: str | None = None

    def made(self) -> ServicePort:
        return ServicePort(
            self.port,
            self.target_port or self.port,
            self.name or "",
            self.protocol or "TCP",
            self.node_port or 0,
            self.app_protocol or "",
        )


class _Empty(_View, forbid_unknown_fields=True):
    """What has no fields in the usual case."""


class _Status(_View):
    load_balancer: _Empty | None = None


class _ServiceSpec(_View, forbid_unknown_fields=True):
    """Of a Service within its cluster, without session affinity."""

    ports: list[_ServicePort]
    type: Literal["ClusterIP", "NodePort"] = "ClusterIP"
    selector: dict[str, str] | None = None
    cluster_ip: str | None = msgspec.field(default=None, name="clusterIP")
    cluster_ips: list[str] | None = msgspec.field(default=None, name="clusterIPs")
    ip_families: list[Literal["IPv4", "IPv6"]] | None = None
    ip_family_policy: Literal["SingleStack", "PreferDualStack", "RequireDualStack"] | None = None
    session_affinity: Literal["None"] | None = None
    internal_traffic_policy: Literal["Cluster", "Local"] | None = None
    external_traffic_policy: Literal["Cluster", "Local"] | None = None


class _Service(_View):
    metadata: _Metadata
    spec: _ServiceSpec
    status: _Status | None = None


def _service(view: _Service) -> Service:
    spec, metadata = view.spec, view.metadata.made()
    if any(name.startswith(PREFIX) for name in metadata.annotations):
        raise ValueError
    ports = tuple(port.made() for port in spec.ports)
    names, numbers = {port.name for port in ports}, {(port.port, port.protocol) for port in ports}
    if not ports or len(names) < len(ports) or len(numbers) < len(ports) or (len(ports) > 1 and "" in names):
        raise ValueError
    families = tuple(FAMILIES[name] for name in spec.ip_families or ())
    if len(set(families)) < len(families):
        raise ValueError
    texts = spec.cluster_ips or ([spec.cluster_ip] if spec.cluster_ip else [])
    return Service(
        metadata,
        spec.type,
        spec.selector or {},
        ports,
        tuple(_address(text, 6 if ":" in text else 4) for text in texts),
        internal_policy=spec.internal_traffic_policy or "Cluster",
        external_policy=spec.external_traffic_policy or "Cluster",
        families=families,
        family_policy=spec.ip_family_policy or "",
    )


class _Named(_View):
    name: Annotated[str, msgspec.Meta(min_length=1)]


class _Hints(_View):
    for_zones: list[_Named] | None = None
    for_nodes: list[_Named] | None = None


class _Reference(_View):
    kind: str | None = None
    name: str | None = None


class _Conditions(_View):
    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class _Endpoint(_View):
    addresses: Annotated[list[str], msgspec.Meta(min_length=1, max_length=100)]
    conditions: _Conditions | None = None
    node_name: str | None = None
    zone: str | None = None
    hints: _Hints | None = None
    target_ref: _Reference | None = None
    hostname: str | None = None


class _EndpointPort(_View):
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] | None = None
    name: str | None = None
    protocol: _Protocol | None = None
    app_protocol: str | None = None


class _Slice(_View):
    metadata: _Metadata
    address_type: Literal["IPv4", "IPv6"]
    endpoints: Annotated[list[_Endpoint], msgspec.Meta(max_length=1000)] | None = None
    ports: Annotated[list[_EndpointPort], msgspec.Meta(max_length=100)] | None = None


_USUAL = _Conditions()
_NO_HINTS: frozenset[str] = frozenset()


def _slice(view: _Slice) -> EndpointSlice:
    metadata, version = view.metadata.made(), FAMILIES[view.address_type]
    if WEIGHT in metadata.annotations:
        raise ValueError
    ports = tuple(
        EndpointPort(port.port or 0, port.name or "", port.protocol or "TCP", port.app_protocol or "")
        for port in view.ports or ()
    )
    if len({(port.name, port.protocol) for port in ports}) < len(ports):
        raise ValueError
    endpoints = tuple(_endpoint(endpoint, version) for endpoint in view.endpoints or ())
    return EndpointSlice(metadata, metadata.labels.get(SERVICE_NAME, ""), version, endpoints, ports)


def _endpoint(view: _Endpoint, version: int) -> Endpoint:
    conditions, hints, target = view.conditions or _USUAL, view.hints, view.target_ref
    return Endpoint(
        tuple(_address(text, version) for text in view.addresses),
        conditions.ready is not False,
        conditions.serving is not False,
        conditions.terminating is True,
        intern(view.node_name or ""),  # there are few of them
        intern(view.zone or ""),
        frozenset(zone.name for zone in hints.for_zones or ()) if hints else _NO_HINTS,
        frozenset(node.name for node in hints.for_nodes or ()) if hints else _NO_HINTS,
        (target.name or "") if target and target.kind == "Pod" else "",
        view.hostname or "",
    )
