"""Whether two services may have one address: by the annotation ``lbipam.cilium.io/sharing-key``."""

from __future__ import annotations

from axoneme.model.exposure import ExposedService
from axoneme.model.services import Service


def incompatibility(one: ExposedService, other: ExposedService) -> str:
    """Why they may not, as a sentence; empty when they may. It is the same the other way round."""
    if not one.sharing_key or one.sharing_key != other.sharing_key:
        return "different sharing keys"
    if not (_permits(one, other) and _permits(other, one)):
        return "different namespaces, and not both allow the other's in their annotation"
    a, b = one.service, other.service
    ports = {(port.port, port.protocol) for port in a.ports} & {
        (port.port, port.protocol) for port in b.ports
    }
    if ports:
        port, protocol = min(ports)
        return f"both have the port {port}/{protocol}"
    if a.external_policy != b.external_policy:
        return "different external traffic policies"
    # The node that gets the packets must have backends of both.
    if a.external_policy == "Local" and (not a.selector or dict(a.selector) != dict(b.selector)):
        return "external traffic policy Local, and not the same selector"
    return ""


def _permits(one: ExposedService, other: ExposedService) -> bool:
    namespace = other.key[0]
    return namespace == one.key[0] or bool({namespace, "*"} & one.sharing_namespaces)


def _ports(service: Service) -> set[tuple[int, str]]:
    return {(port.port, port.protocol) for port in service.ports}
