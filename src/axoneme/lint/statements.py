"""What each rule of a policy says, one by one. A policy that is refused says nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from axoneme.lint.surroundings import CLUSTER_NAME
from axoneme.model.adminpolicy import ADMIN, BASELINE
from axoneme.model.labels import Selector
from axoneme.model.manifests import Manifest
from axoneme.model.networkpolicy import KIND as NETWORK_POLICY
from axoneme.model.paths import ManifestError
from axoneme.model.policies import parse_policy
from axoneme.model.policy import NamePeer, Rank, Rule, Tier


@dataclass(frozen=True, slots=True)
class Statement:
    """A rule, whom it is about, and where it stands. ``tier`` and ``rank`` are its place among others."""

    manifest: Manifest
    subject: Selector
    rule: Rule
    tier: Tier = Tier.NORMAL
    rank: Rank = (0, "", 0)

    @property
    def path(self) -> str:
        return self.rule.path

    @property
    def above(self) -> str:
        """Which kind of rules above L4 it has: http, kafka, dns or tls; empty: none."""
        return self.rule.l7.kind.value if self.rule.l7 else ""

    @property
    def names(self) -> bool:
        """Whether its peers are DNS names."""
        return any(isinstance(peer, NamePeer) for peer in self.rule.peers)


def statements(manifest: Manifest) -> Iterator[Statement]:
    """The statements of one policy, in order."""
    try:
        policies = parse_policy(manifest.object, CLUSTER_NAME)
    except ManifestError:
        return
    for policy in policies:
        for rule in policy.rules:
            if not (policy.audit or rule.audit):
                yield Statement(manifest, policy.subject, rule, policy.tier, policy.rank(rule))


def subjects(manifest: Manifest) -> Iterator[tuple[Selector, str]]:
    """Whom a policy selects, and the field that says so: for each spec, whatever its rules are."""
    if manifest.kind == NETWORK_POLICY:
        bare = [
            ({"podSelector": spec.get("podSelector", {})}, f"{path}.podSelector")
            for spec, path in specs(manifest)
        ]
    elif manifest.kind in (ADMIN, BASELINE):
        bare = [
            ({key: value for key, value in spec.items() if key in ("subject", "priority")}, f"{path}.subject")
            for spec, path in specs(manifest)
        ]
    else:
        bare = [
            ({"endpointSelector": spec.get("endpointSelector"), "ingress": [{}]}, f"{path}.endpointSelector")
            for spec, path in specs(manifest)
        ]
    for spec, path in bare:
        alone = {key: value for key, value in manifest.object.items() if key != "specs"}
        try:
            policies = parse_policy({**alone, "spec": spec}, CLUSTER_NAME)
        except ManifestError:
            continue
        yield policies[0].subject, path


def specs(manifest: Manifest) -> Iterator[tuple[Mapping[str, object], str]]:
    """The specs of an object as they are written, and their paths."""
    spec = manifest.object.get("spec")
    if isinstance(spec, Mapping):
        yield spec, "spec"
    for index, each in enumerate(items(manifest.object.get("specs"))):
        if isinstance(each, Mapping):
            yield each, f"specs[{index}]"


def items(value: object) -> list[object]:
    return value if isinstance(value, list) else []
