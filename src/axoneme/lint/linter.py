"""All traps in a set of policies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from axoneme.lint import above, matching, relations, shapes
from axoneme.lint.findings import REFUSED, TWICE, Finding, Trap
from axoneme.lint.statements import Statement, statements, subjects
from axoneme.lint.surroundings import Surroundings
from axoneme.model.manifests import CIDR_GROUP, Manifest, validate
from axoneme.model.paths import ManifestError
from axoneme.model.policies import POLICY_KINDS


def lint(manifests: Iterable[Manifest], known: Surroundings) -> list[Finding]:
    """The findings in the policies (and CIDR groups) among the manifests, each once, in their order."""
    policies = [each for each in manifests if each.supported and each.kind in (*POLICY_KINDS, CIDR_GROUP)]
    valid = {(each.kind, each.namespace, each.name): each for each in policies}
    every = {id(each): list(statements(each)) for each in policies if each.kind != CIDR_GROUP}
    in_force = [found for each in valid.values() for found in every.get(id(each), ())]
    findings: list[Finding] = []
    for manifest in policies:
        later = valid[manifest.kind, manifest.namespace, manifest.name]
        found = list(
            _look_at(manifest, every.get(id(manifest), ()), in_force if later is manifest else (), known)
        )
        if later is not manifest:
            found.append((TWICE, "metadata.name", f"{manifest.name}, again in {later.origin}"))
        for trap, path, what in dict.fromkeys(found):
            findings.append(
                Finding(trap, manifest.kind, manifest.namespace, manifest.name, manifest.origin, path, what)
            )
    return findings


def _look_at(
    manifest: Manifest, own: Sequence[Statement], in_force: Sequence[Statement], known: Surroundings
) -> Iterator[tuple[Trap, str, str]]:
    try:
        validate(manifest)
    except ManifestError as error:
        yield REFUSED, error.path, f"{error.found}; {error.right}"
    if manifest.kind == CIDR_GROUP:
        return
    yield from shapes.look_at(manifest)
    for selector, path in subjects(manifest):
        yield from matching.subject(selector, path, known)
    for statement in own:
        yield from matching.peers(statement, known)
        yield from matching.ports(statement, known)
        yield from above.look_at(statement)
        yield from relations.look_at(statement, in_force)
