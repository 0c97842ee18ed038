"""What the API server of a real cluster adds to an object when it takes it in."""

from __future__ import annotations

import msgspec

from axoneme.model import documents
from axoneme.sandbox.objects import Metadata, ObjectKey
from axoneme.sandbox.statuses import NamespaceStatus, PodStatus
from axoneme.sandbox.workloads.changes import NewObject, Surroundings
from axoneme.sandbox.workloads.podtemplate import complete_spec

#: The label that every namespace carries.
NAMESPACE_NAME = "kubernetes.io/metadata.name"


def admitted(key: ObjectKey, metadata: Metadata) -> bool:
    """Whether the object has been through `complete`; nothing acts upon it before."""
    named = key.kind != "Namespace" or metadata.labels.get(NAMESPACE_NAME) == key.name
    return bool(metadata.uid) and bool(metadata.creation_timestamp) and named


def complete(key: ObjectKey, document: bytes, surroundings: Surroundings) -> bytes:
    """The object with its identity, and the defaults that others read."""
    wanted: list[tuple[tuple[str, ...], object]] = [
        (("metadata", "name"), key.name),
        (("metadata", "uid"), surroundings.uid()),
        (("metadata", "creationTimestamp"), surroundings.now),
    ]
    if key.namespace:
        wanted.append((("metadata", "namespace"), key.namespace))
    if key.kind == "Namespace":
        wanted.append((("status",), NamespaceStatus(phase="Active")))
    if key.kind == "Pod":
        wanted.append((("status",), PodStatus(phase="Pending")))
    for path, value in wanted:
        if documents.field(document, path) in {None, b'""', b"{}"}:
            document = documents.with_field(document, path, value)
    if key.kind == "Pod":
        spec = complete_spec(documents.field(document, ("spec",)) or b"{}")
        document = documents.with_field(document, ("spec",), msgspec.Raw(spec))
    if key.kind == "Namespace":
        document = documents.with_field(document, ("metadata", "labels", NAMESPACE_NAME), key.name)
    return document


def namespace(name: str, surroundings: Surroundings) -> NewObject:
    """A namespace that some object is in and nobody has made."""
    key = ObjectKey("Namespace", "", name)
    document = msgspec.json.encode({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return NewObject(key, complete(key, document, surroundings))
