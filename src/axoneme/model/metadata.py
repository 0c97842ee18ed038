"""Who an object is: the part that all Kubernetes objects share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from axoneme.model import checks
from axoneme.model.paths import Fields, ManifestError, Place

DEFAULT_NAMESPACE = "default"

_FIELDS = (
    "name",
    "namespace",
    "labels",
    "annotations",
    "uid",
    "generateName",
    "generation",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "finalizers",
    "managedFields",
    "ownerReferences",
    "selfLink",
)


@dataclass(frozen=True, slots=True)
class Metadata:
    """``namespace`` is empty for cluster-wide kinds."""

    name: str
    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    uid: str = ""
    #: As text that sorts by age (RFC 3339, UTC).
    created: str = ""


def parse_metadata(
    fields: Fields,
    *,
    namespaced: bool = True,
    strict: bool = False,
    name: Callable[[Place], str] = checks.dns_subdomain,
) -> Metadata:
    """The metadata of an object with ``fields``; ``name`` checks its name.

    A namespaced object without a namespace is in `DEFAULT_NAMESPACE`; the namespace of a cluster-wide one
    says nothing, and is passed over as the API server does. ``strict`` refuses unknown fields: behind a
    misspelt ``namespace`` a policy would act in another.
    """
    metadata = fields.need("metadata").fields(_FIELDS if strict else None)
    place = metadata.get("namespace") if namespaced else None
    namespace = DEFAULT_NAMESPACE if namespaced else ""
    if place is not None and place.value != "":
        namespace = checks.dns_label(place)
    return Metadata(
        name(metadata.need("name")),
        namespace,
        checks.labels(metadata.get("labels")),
        checks.texts(metadata.get("annotations")),
        metadata.text("uid"),
        metadata.text("creationTimestamp"),
    )


@contextmanager
def naming(object: object) -> Iterator[Fields]:
    """The object's fields; what is refused inside is refused in its name."""
    try:
        yield Place(object, "").fields()
    except ManifestError as error:
        raise error.of(title(object)) from None


def title(object: object) -> str:
    """Kind and name of an object, as far as it has them."""
    if not isinstance(object, Mapping):
        return ""
    metadata = object.get("metadata")
    own = metadata if isinstance(metadata, Mapping) else {}
    parts = [own.get("namespace"), own.get("name")]
    name = "/".join(part for part in parts if isinstance(part, str) and part)
    kind = object.get("kind")
    return " ".join(part for part in (kind if isinstance(kind, str) else "", name) if part)
