"""What of a Service concerns the addresses by which the outside reaches it: what it asks for, and has."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from axoneme.model.addresses import Address
from axoneme.model.conditions import Condition
from axoneme.model.labels import K8S, Label, Labels
from axoneme.model.metadata import Metadata, naming
from axoneme.model.paths import Place
from axoneme.model.services import Service, parse_service

#: Selectors of pools and announcements may ask for these as if they were labels.
NAMESPACE_LABEL, NAME_LABEL = "io.kubernetes.service.namespace", "io.kubernetes.service.name"

L2_CLASS, BGP_CLASS = "io.cilium/l2-announcer", "io.cilium/bgp-control-plane"

#: Annotations, each with the name that it had before.
ADDRESSES = ("lbipam.cilium.io/ips", "io.cilium/lb-ipam-ips")
SHARING_KEY = ("lbipam.cilium.io/sharing-key", "io.cilium/lb-ipam-sharing-key")
SHARING_NAMESPACES = (
    "lbipam.cilium.io/sharing-cross-namespace",
    "io.cilium/lb-ipam-sharing-cross-namespace",
)


@dataclass(frozen=True, slots=True)
class ExposedService:
    """``requested`` addresses, and ``unreadable`` texts that should be some; ``created`` orders by age.

    ``sharing_namespaces``: with whose services it shares an address; ``*`` is all.
    """

    service: Service
    labels: Labels
    requested: tuple[Address, ...] = ()
    unreadable: tuple[str, ...] = ()
    sharing_key: str = ""
    sharing_namespaces: frozenset[str] = frozenset()
    conditions: tuple[Condition, ...] = ()
    created: str = ""
    generation: int = 0

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return self.service.metadata.namespace, self.service.metadata.name

    @property
    def held(self) -> tuple[Address, ...]:
        """The addresses that its status says it has."""
        found = (each.address for each in self.service.ingress)
        return tuple(dict.fromkeys(each for each in found if each is not None))


def parse_exposure(object: Mapping[str, object]) -> ExposedService:
    """Raises `ManifestError`."""
    service = parse_service(object)
    with naming(object) as fields:
        annotations = service.metadata.annotations
        texts = _listed(_annotation(annotations, ADDRESSES))
        one = (service.load_balancer_ip,) if service.load_balancer_ip else ()
        metadata = fields.need("metadata").fields()
        return ExposedService(
            service,
            labels_of(service.metadata),
            tuple(dict.fromkeys((*one, *_addresses(texts)))),
            tuple(text for text in texts if not list(_addresses([text]))),
            _annotation(annotations, SHARING_KEY),
            frozenset(_listed(_annotation(annotations, SHARING_NAMESPACES))),
            parse_conditions(fields.get("status")),
            metadata.text("creationTimestamp"),
            metadata.number("generation", 0, 0, 1 << 62),
        )


def parse_conditions(status: Place | None) -> tuple[Condition, ...]:
    """``status.conditions``; what is none is passed over."""
    found = []
    for place in status.fields().items("conditions") if status else ():
        with suppress(msgspec.ValidationError):
            found.append(msgspec.convert(place.value, Condition))
    return tuple(found)


def labels_of(service: Metadata) -> Labels:
    """Those by which pools and announcement policies select a service."""
    special = {NAMESPACE_LABEL: service.namespace, NAME_LABEL: service.name}
    return Labels(Label(K8S, *pair) for pair in (dict(service.labels) | special).items())


def _annotation(annotations: Mapping[str, str], names: Iterable[str]) -> str:
    return next((annotations[name] for name in names if annotations.get(name)), "")


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _addresses(texts: Iterable[str]) -> Iterator[Address]:
    for text in texts:
        with suppress(ValueError):
            yield ipaddress.ip_address(text)
