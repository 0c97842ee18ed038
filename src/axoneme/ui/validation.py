"""Whether a text of policies could be applied, and what is wrong where; traps in what can."""

from __future__ import annotations

from collections.abc import Iterable

from axoneme.lint.findings import REFUSED
from axoneme.lint.linter import lint
from axoneme.lint.surroundings import of_cluster
from axoneme.model.manifests import CIDR_GROUP, Manifest, load, validate
from axoneme.model.paths import ManifestError
from axoneme.model.policies import POLICY_KINDS
from axoneme.model.state import EndpointState, NodeState
from axoneme.ui import api
from axoneme.ui.positions import Positions
from axoneme.ui.shared import Stored

_ORIGIN = "text"
#: Kinds that can be tried and proposed.
PROPOSED = (*POLICY_KINDS, CIDR_GROUP)
#: Kinds of objects that findings depend on.
AROUND = (*PROPOSED, "Service")


def read(text: str) -> list[Manifest]:
    """The policies and groups of ranges in a text. `ManifestError` for the first thing that is wrong."""
    found = load(text, _ORIGIN)
    for manifest in found:
        _check(manifest)
    return found


def validation(
    text: str, around: Iterable[Stored], endpoints: Iterable[EndpointState], nodes: Iterable[NodeState]
) -> api.Validation:
    """``around``: the objects that there are, of the kinds `AROUND`."""
    try:
        manifests = load(text, _ORIGIN)
    except ManifestError as error:
        return api.Validation(
            valid=False, objects=[], problems=[_problem(error, Positions(text))], findings=[]
        )
    positions = Positions(text)
    problems = []
    for manifest in manifests:
        try:
            _check(manifest)
        except ManifestError as error:
            problems.append(_problem(error, positions))
    existing = list(_readable(around))
    known = of_cluster([*existing, *manifests], endpoints, nodes)
    findings = [
        api.Finding(
            code=each.trap.code,
            severity=each.trap.severity.value,
            title=each.trap.title,
            what=each.what,
            why=each.trap.why,
            remedy=each.trap.remedy,
            object=api.Ref(kind=each.kind, namespace=each.namespace, name=each.name),
            path=each.path,
            line=line,
            column=column,
        )
        for each in lint([*existing, *manifests], known)
        if each.origin.startswith(f"{_ORIGIN}:") and each.trap is not REFUSED
        for line, column in [positions.of(each.origin, each.path)]
    ]
    return api.Validation(
        valid=not problems,
        objects=[api.Ref(kind=each.kind, namespace=each.namespace, name=each.name) for each in manifests],
        problems=problems,
        findings=findings,
    )


def _check(manifest: Manifest) -> None:
    if manifest.kind not in PROPOSED:
        raise ManifestError(
            "kind",
            manifest.kind,
            f"policies belong here: {', '.join(PROPOSED)}",
            object=str(manifest),
            origin=manifest.origin,
        )
    validate(manifest)


def _problem(error: ManifestError, positions: Positions) -> api.TextProblem:
    line, column = positions.of(error.origin, error.path)
    return api.TextProblem(
        message=str(error), line=line, column=column, path=error.path, found=error.found, remedy=error.right
    )


def _readable(around: Iterable[Stored]) -> Iterable[Manifest]:
    for stored in around:
        try:
            yield from load(stored.value.decode(), stored.key)
        except (ManifestError, UnicodeDecodeError):
            continue  # the agents say what is wrong with it
