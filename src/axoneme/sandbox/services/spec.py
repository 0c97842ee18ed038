"""A Service as JSON has it: what its type means, and where its addresses and ports stand.

Services are handled as documents here, because what is taken in is written back with all of its fields.
"""

from __future__ import annotations

from typing import Any, Final, NoReturn

import msgspec

from axoneme.model.paths import ManifestError, show

#: An object as JSON has it.
Document = dict[str, Any]

#: Namespace and name.
Owner = tuple[str, str]

HEADLESS: Final = "None"


class _Shape(msgspec.Struct, frozen=True, rename="camel"):
    """The types of the fields that are read and written here."""

    type: str | None = None
    selector: dict[str, str] | None = None
    ports: list[dict[str, Any]] | None = None
    external_ips: list[str] | None = msgspec.field(default=None, name="externalIPs")
    cluster_ip: str | None = msgspec.field(default=None, name="clusterIP")
    cluster_ips: list[str] | None = msgspec.field(default=None, name="clusterIPs")
    ip_families: list[str] | None = None
    ip_family_policy: str | None = None
    allocate_load_balancer_node_ports: bool | None = None
    external_traffic_policy: str | None = None
    health_check_node_port: int | None = None
    session_affinity_config: dict[str, dict[str, Any] | None] | None = None


def check_shape(service: Document) -> None:
    """ManifestError when a field is of another type than it should be."""
    try:
        msgspec.convert(service.get("spec") or {}, _Shape)
    except msgspec.ValidationError as failure:
        raise ManifestError("spec", "something else", str(failure)) from None


def owner_of(service: Document) -> Owner:
    metadata = service.get("metadata") or {}
    return metadata.get("namespace") or "", metadata.get("name") or ""


def spec_of(service: Document) -> Document:
    return service.get("spec") or {}


def type_of(spec: Document) -> str:
    return str(spec.get("type") or "ClusterIP")


def headless(spec: Document) -> bool:
    return spec.get("clusterIP") == HEADLESS


def addressed(spec: Document) -> bool:
    """Whether it has addresses, or says that it has none; the type ExternalName does neither."""
    return type_of(spec) != "ExternalName"


def on_nodes(spec: Document) -> bool:
    """Whether it may have node ports."""
    return type_of(spec) in ("NodePort", "LoadBalancer")


def needs_node_ports(spec: Document) -> bool:
    if type_of(spec) == "LoadBalancer":
        return spec.get("allocateLoadBalancerNodePorts") is not False
    return type_of(spec) == "NodePort"


def needs_health_port(spec: Document) -> bool:
    return type_of(spec) == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def reached_from_outside(spec: Document) -> bool:
    return on_nodes(spec) or (addressed(spec) and bool(spec.get("externalIPs")))


def ports_of(spec: Document) -> list[Document]:
    return spec.get("ports") or []


def node_port(port: Document) -> int:
    """0 for none."""
    return port.get("nodePort") or 0


def health_port(spec: Document) -> int:
    return spec.get("healthCheckNodePort") or 0


def protocol(port: Document) -> str:
    return str(port.get("protocol") or "TCP")


def cluster_ips(spec: Document) -> list[str]:
    """The addresses that it has got; none of a headless service."""
    several = spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else [])
    return [each for each in several if each not in ("", HEADLESS)]


def refuse(path: str, found: object, right: str) -> NoReturn:
    """`found` None: nothing stands there."""
    raise ManifestError(path, "nothing" if found is None else show(found), right)
