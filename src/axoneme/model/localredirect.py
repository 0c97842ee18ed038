"""CiliumLocalRedirectPolicy (cilium.io/v2): what is called goes to pods of the caller's own node.

Unknown fields are refused: behind a misspelt one traffic would go elsewhere than somebody thinks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from axoneme.model import checks, selectors
from axoneme.model.addresses import Address, routable
from axoneme.model.labels import Selector
from axoneme.model.metadata import Metadata, naming, parse_metadata
from axoneme.model.paths import Fields, Place

KIND = "CiliumLocalRedirectPolicy"

_PROTOCOLS = ("TCP", "UDP")


@dataclass(frozen=True, slots=True)
class RedirectPort:
    """``name`` in lower case."""

    port: int
    protocol: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class LocalRedirectPolicy:
    """Calls of ``address``, or of the cluster addresses of the service ``service`` of its namespace, at these
    ``ports`` (none: every port of the service) go to ``backend_ports`` of the pods on the caller's node that
    ``backends`` selects.

    Where there are several ports on either side, a name says which belong together.
    """

    metadata: Metadata
    backends: Selector
    backend_ports: tuple[RedirectPort, ...]
    address: Address | None = None
    service: str = ""
    ports: tuple[RedirectPort, ...] = ()


def parse_local_redirect(object: Mapping[str, object]) -> LocalRedirectPolicy:
    """Raises `ManifestError`."""
    with naming(object) as fields:
        fields.only(("apiVersion", "kind", "metadata", "spec", "status"))
        metadata = parse_metadata(fields, strict=True)
        spec = fields.need("spec").fields(
            ("redirectFrontend", "redirectBackend", "skipRedirectFromBackend", "description")
        )
        skip = spec.get("skipRedirectFromBackend")
        if skip is not None and skip.flag():
            skip.refuse(
                "it can only be false: what the selected pods themselves send is redirected like all other "
                "traffic, so let them call what they stand for by another address"
            )
        spec.text("description")
        address, service, ports = _frontend(spec.need("redirectFrontend"), metadata.namespace)
        backend = spec.need("redirectBackend").fields(("localEndpointSelector", "toPorts"))
        backend_ports = _ports(backend.need("toPorts"), named=len(ports) > 1)
        if not backend_ports:
            backend.place("toPorts").refuse("at least one port of the pods belongs here")
        if len(ports) == 1 and backend_ports[0].protocol != ports[0].protocol:
            backend.place("toPorts").refuse(
                f"the pods' protocol must be the one that is called, {ports[0].protocol}",
                backend_ports[0].protocol,
            )
        return LocalRedirectPolicy(
            metadata,
            Selector(selectors.kubernetes(backend.need("localEndpointSelector"))),
            backend_ports,
            address,
            service,
            ports,
        )


def _frontend(place: Place, namespace: str) -> tuple[Address | None, str, tuple[RedirectPort, ...]]:
    fields = place.fields(("addressMatcher", "serviceMatcher"))
    by_address, by_service = fields.get("addressMatcher"), fields.get("serviceMatcher")
    if by_address is not None and by_service is None:
        matcher = by_address.fields(("ip", "toPorts"))
        ports = _ports(matcher.need("toPorts"), named=False)
        if not ports:
            matcher.place("toPorts").refuse("at least one port belongs here")
        return routable(matcher.need("ip")), "", ports
    if by_service is not None and by_address is None:
        matcher = by_service.fields(("serviceName", "namespace", "toPorts"))
        of = matcher.need("namespace")
        if of.name() != namespace:
            of.refuse(f"a policy redirects services of its own namespace only, which is {namespace}")
        ports = _ports(matcher.place("toPorts"), named=False) if "toPorts" in matcher else ()
        return None, checks.dns_1035_label(matcher.need("serviceName")), ports
    return place.refuse("either addressMatcher or serviceMatcher belongs here")


def _ports(place: Place, *, named: bool) -> tuple[RedirectPort, ...]:
    items = place.items()
    named = named or len(items) > 1
    found: list[RedirectPort] = []
    for item in items:
        fields = item.fields(("port", "protocol", "name"))
        port = _port(fields, named)
        if port.name and any(each.name == port.name for each in found):
            fields.place("name").refuse("each port has a name of its own")
        if any((each.port, each.protocol) == (port.port, port.protocol) for each in found):
            fields.place("port").refuse(f"this port is here for {port.protocol} already")
        found.append(port)
    return tuple(found)


def _port(fields: Fields, named: bool) -> RedirectPort:
    number = fields.need("port")
    text = number.text()
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and 0 < int(text) <= checks.LAST_PORT):
        number.refuse('the number of a port in quotes, such as "53", belongs here')
    name = fields.place("name")
    if named and name.value in (None, ""):
        name.refuse("where there are several ports, each needs a name", "nothing")
    if name.value not in (None, "") and not checks.is_port_name(name.text()):
        name.refuse("a port's name has at most 15 letters, digits and single '-', at least one a letter")
    protocol = fields.need("protocol").one_of(_PROTOCOLS)
    return RedirectPort(int(text), protocol, fields.text("name").lower())
