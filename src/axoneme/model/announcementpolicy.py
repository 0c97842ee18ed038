"""CiliumL2AnnouncementPolicy (cilium.io/v2alpha1): which services' addresses are answered for on links, by
which nodes and on which of their devices."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from axoneme.model import selectors
from axoneme.model.labels import EVERYTHING, Selector
from axoneme.model.metadata import Metadata, naming, parse_metadata
from axoneme.model.paths import Fields, Place

KIND = "CiliumL2AnnouncementPolicy"


@dataclass(frozen=True, slots=True)
class AnnouncementPolicy:
    """``interfaces``: any of these expressions is found in a device's name; without any, all devices."""

    metadata: Metadata
    services: Selector = EVERYTHING
    nodes: Selector = EVERYTHING
    interfaces: tuple[re.Pattern[str], ...] = ()
    external_ips: bool = False
    load_balancer_ips: bool = False

    def on(self, device: str) -> bool:
        return not self.interfaces or any(pattern.search(device) for pattern in self.interfaces)


def parse_announcement_policy(object: Mapping[str, object]) -> AnnouncementPolicy:
    """Raises `ManifestError`."""
    with naming(object) as fields:
        fields.only(("apiVersion", "kind", "metadata", "spec", "status"))
        metadata = parse_metadata(fields, namespaced=False, strict=True)
        spec = fields.need("spec").fields(
            ("serviceSelector", "nodeSelector", "interfaces", "externalIPs", "loadBalancerIPs")
        )
        return AnnouncementPolicy(
            metadata,
            _selector(spec, "serviceSelector"),
            _selector(spec, "nodeSelector"),
            tuple(_pattern(item) for item in spec.items("interfaces")),
            spec.flag("externalIPs"),
            spec.flag("loadBalancerIPs"),
        )


def _selector(spec: Fields, name: str) -> Selector:
    place = spec.get(name)
    return Selector(selectors.kubernetes(place)) if place else EVERYTHING


def _pattern(place: Place) -> re.Pattern[str]:
    try:
        return re.compile(place.text())
    except re.error as error:
        place.refuse(f"a regular expression belongs here ({error})")
