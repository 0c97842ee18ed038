"""CiliumCIDRGroup (cilium.io/v2): address ranges under a name, which policies refer to by name or label."""

from __future__ import annotations

from collections.abc import Mapping

from axoneme.model import checks
from axoneme.model.metadata import naming, parse_metadata
from axoneme.model.policy import CIDRGroup


def parse_cidr_group(object: Mapping[str, object]) -> CIDRGroup:
    """Raises `ManifestError`."""
    with naming(object) as fields:
        fields.only(("apiVersion", "kind", "metadata", "spec", "status"))
        metadata = parse_metadata(fields, namespaced=False, strict=True)
        ranges = fields.need("spec").fields(("externalCIDRs",)).need("externalCIDRs")
        return CIDRGroup(
            metadata.name,
            tuple(dict.fromkeys(checks.network(item, bare=True) for item in ranges.items())),
            tuple(sorted(metadata.labels.items())),
        )
