"""What of a policy is only tried, as its object says by an annotation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from axoneme.model.metadata import Metadata
from axoneme.model.paths import Place
from axoneme.model.policy import Policy, Rule

#: An annotation.
AUDIT = "axoneme.io/audit"


def audited(metadata: Metadata, policies: Iterable[Policy]) -> tuple[Policy, ...]:
    """The object's policies as its annotation wants them: in force, or only tried as a whole, or some of
    their rules, by their places: ``ingressDeny[0], egress[1].toPorts[0]``. Raises `ManifestError`.
    """
    policies = tuple(policies)
    value = metadata.annotations.get(AUDIT, "false")
    if value in ("true", "false"):
        return tuple(replace(policy, audit=value == "true") for policy in policies)
    place = Place(value, f'metadata.annotations["{AUDIT}"]')
    wanted = {part if part.startswith("spec") else f"spec.{part}" for part in value.replace(",", " ").split()}
    rules = [rule for policy in policies for rule in policy.rules]
    for path in sorted(wanted):
        meant = [rule for rule in rules if _is_at(rule, path)]
        if not meant:
            place.refuse(f'"true", "false" or places of its rules belong here, such as {rules[0].path}', path)
        if not all(rule.deny or rule.l7 for rule in meant):
            place.refuse(
                "a rule that allows, without a part above L4, denies nothing that could be tried", path
            )
    return tuple(
        replace(
            policy,
            rules=tuple(
                replace(rule, audit=any(_is_at(rule, path) for path in wanted)) for rule in policy.rules
            ),
        )
        for policy in policies
    )


def _is_at(rule: Rule, path: str) -> bool:
    return rule.path == path or rule.path.startswith(f"{path}.")
