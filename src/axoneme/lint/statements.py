"""What each rule of a policy says, one by one, also where the parsers refuse the policy.

A policy with L7 rules or toFQDNs is refused as long as they cannot be enforced. The traps in it can be
found all the same: here such fields are lifted off a rule, noted, and what is left is read by the very
parser that reads policies. A rule whose ports have different L7 rules makes one statement for each. What
is refused even so makes none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from axoneme.lint.surroundings import CLUSTER_NAME
from axoneme.model.adminpolicy import ADMIN, BASELINE
from axoneme.model.labels import Selector
from axoneme.model.manifests import Manifest
from axoneme.model.networkpolicy import KIND as NETWORK_POLICY
from axoneme.model.paths import ManifestError
from axoneme.model.policies import parse_policy
from axoneme.model.policy import Rank, Rule, Tier

_ALLOWS, _DENIES = ("ingress", "egress"), ("ingressDeny", "egressDeny")
#: Fields of an entry of ``toPorts`` that restrict it above L4.
_ABOVE_L4 = ("rules", "serverNames", "terminatingTLS", "originatingTLS", "listener")


@dataclass(frozen=True, slots=True)
class Statement:
    """A rule, whom it is about, and where it stands. ``above`` says which kind of L7 rules its ports have
    (http, dns, serverNames …), ``names`` whether its peers are DNS names (then it says the world). ``tier``
    and ``rank`` are where it stands among others."""

    manifest: Manifest
    subject: Selector
    rule: Rule
    above: str = ""
    names: bool = False
    tier: Tier = Tier.NORMAL
    rank: Rank = (0, "", 0)

    @property
    def path(self) -> str:
        return self.rule.path


def statements(manifest: Manifest) -> Iterator[Statement]:
    """The statements of one policy, in order."""
    if manifest.kind in (NETWORK_POLICY, ADMIN, BASELINE):
        yield from _parsed(manifest, manifest.object)
        return
    for spec, path in specs(manifest):
        shared = {key: value for key, value in spec.items() if key in ("endpointSelector", "nodeSelector")}
        for section in (*_ALLOWS, *_DENIES):
            for index, rule in enumerate(items(spec.get(section))):
                if not isinstance(rule, Mapping):
                    continue
                for part, above, names in _parts(rule) if section in _ALLOWS else [(rule, "", False)]:
                    alone = {**manifest.object, "spec": {**shared, section: [part]}}
                    alone.pop("specs", None)
                    for found in _parsed(manifest, alone):
                        at = replace(found.rule, path=f"{path}.{section}[{index}]")
                        yield replace(found, rule=at, above=above, names=names)


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


def _parsed(manifest: Manifest, object: Mapping[str, object]) -> Iterator[Statement]:
    try:
        policies = parse_policy(object, CLUSTER_NAME)
    except ManifestError:
        return
    for policy in policies:
        for rule in policy.rules:
            yield Statement(manifest, policy.subject, rule, tier=policy.tier, rank=policy.rank(rule))


def _parts(rule: Mapping[str, object]) -> Iterator[tuple[dict[str, object], str, bool]]:
    """The rule without what hangs on its ports: one for the plain ports, one for each entry with more."""
    left = {key: value for key, value in rule.items() if key not in ("toFQDNs", "authentication", "toPorts")}
    names = bool(items(rule.get("toFQDNs")))
    if names:
        left["toEntities"] = ["world"]
    entries = items(rule.get("toPorts"))
    plain = [entry for entry in entries if not (isinstance(entry, Mapping) and _above(entry))]
    if plain or not entries:
        ports = {"toPorts": plain} if "toPorts" in rule else {}
        yield {**left, **ports}, "", names
    for entry in entries:
        if isinstance(entry, Mapping) and (above := _above(entry)):
            bare = {key: value for key, value in entry.items() if key not in _ABOVE_L4}
            yield {**left, "toPorts": [bare]}, above, names


def _above(entry: Mapping[str, object]) -> str:
    """Which kind of L7 rules stand on the ports; empty for none. An empty list asks for none."""
    rules = entry.get("rules")
    if isinstance(rules, Mapping):
        for kind, value in rules.items():
            if value and kind != "l7proto":
                return str(kind)
    return next((name for name in _ABOVE_L4[1:] if entry.get(name)), "")
