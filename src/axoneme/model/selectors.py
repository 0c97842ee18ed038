"""Label selectors as they are written (`matchLabels`, `matchExpressions`), made `Requirement`s.

Kubernetes' selectors are about labels of one object, and their keys are plain. The Cilium kinds' keys may
name a source (``k8s:app``, ``reserved:host``); a key without one means labels of every source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from axoneme.model import checks
from axoneme.model.labels import ANY, K8S, NAMESPACE_LABELS, RESERVED, Operator, Requirement
from axoneme.model.paths import Place

#: The sources that a key can name.
SOURCES = (ANY, K8S, RESERVED, "cidr", "cidrgroup", "fqdn", "node", "container", "unspec")

#: The labels that the system gives under the source ``reserved``.
RESERVED_LABELS = (
    "host",
    "world",
    "world-ipv4",
    "world-ipv6",
    "unmanaged",
    "health",
    "init",
    "remote-node",
    "kube-apiserver",
    "ingress",
)

#: Reads a key: its source and name.
KeyReader = Callable[[Place], tuple[str, str]]

_OPERATORS = {operator.value: operator for operator in Operator}
_FIELDS = ("matchLabels", "matchExpressions")


def kubernetes(place: Place, *, source: str = K8S, key_prefix: str = "") -> tuple[Requirement, ...]:
    """A selector over labels of one kind of object, which stand under ``source`` as prefix and key."""
    return tuple(_requirements(place, lambda key: (source, key_prefix + checks.label_key(key))))


def cilium(place: Place) -> tuple[Requirement, ...]:
    """A selector whose keys may name sources."""
    return tuple(_requirements(place, _sourced_key))


def _requirements(place: Place, read_key: KeyReader) -> Iterator[Requirement]:
    fields = place.fields(_FIELDS)
    match_labels = fields.stated("matchLabels")
    for key, value in match_labels.fields().entries() if match_labels else ():
        yield Requirement(*read_key(key), Operator.IN, (checks.label_value(value),))
    for item in fields.stated_items("matchExpressions"):
        yield _expression(item, read_key)


def _expression(place: Place, read_key: KeyReader) -> Requirement:
    fields = place.fields(("key", "operator", "values"))
    source, key = read_key(fields.need("key"))
    operator = _OPERATORS[fields.need("operator").one_of(_OPERATORS)]
    values = tuple(checks.label_value(value) for value in fields.items("values"))
    if operator in (Operator.IN, Operator.NOT_IN):
        if not values:
            fields.place("values").refuse(f"{operator.value} needs at least one value")
    elif values:
        fields.place("values").refuse(f"{operator.value} takes no values")
    return Requirement(source, key, operator, tuple(sorted(set(values))))


def _sourced_key(place: Place) -> tuple[str, str]:
    source, colon, key = place.text().partition(":")
    if not colon:
        source, key = ANY, source
    elif source not in SOURCES:
        Place(source, place.path).refuse(
            f"a key's source is one of {', '.join(SOURCES)}", f"the source {source!r}"
        )
    if source == RESERVED:
        Place(key, place.path).one_of(RESERVED_LABELS)
    elif source in (ANY, K8S) and key.startswith(NAMESPACE_LABELS):
        checks.label_key(Place(key.removeprefix(NAMESPACE_LABELS), place.path))
    elif source in (ANY, K8S):
        checks.label_key(Place(key, place.path))
    elif not key or key.split() != [key]:
        place.refuse("a key belongs behind the source")
    return source, key


def about(requirements: tuple[Requirement, ...], key: str) -> tuple[Requirement, ...]:
    """Those on the Kubernetes label ``key``."""
    return tuple(r for r in requirements if r.source in (ANY, K8S) and r.key == key)


def positive(requirement: Requirement) -> bool:
    """Whether it asks for something to be there."""
    return requirement.operator in (Operator.IN, Operator.EXISTS)
