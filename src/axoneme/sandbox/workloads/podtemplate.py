"""A pod made from a workload's template, with what Kubernetes adds to it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from axoneme.model import documents
from axoneme.sandbox.objects import Metadata, ObjectKey, OwnerReference, PodTemplate
from axoneme.sandbox.statuses import PodStatus
from axoneme.sandbox.workloads.changes import NewObject, Surroundings


class _NewMetadata(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    name: str
    namespace: str
    uid: str
    creation_timestamp: str
    generate_name: str = ""
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}
    owner_references: tuple[OwnerReference, ...] = ()


def owner_reference(api_version: str, kind: str, metadata: Metadata) -> OwnerReference:
    """The reference to an object that controls others."""
    return OwnerReference(
        api_version=api_version,
        kind=kind,
        name=metadata.name,
        uid=metadata.uid,
        controller=True,
        block_owner_deletion=True,
    )


def metadata_of(
    key: ObjectKey,
    owner: OwnerReference,
    surroundings: Surroundings,
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    generate_name: str = "",
) -> msgspec.Struct:
    """The metadata of a new object that `owner` controls."""
    return _NewMetadata(
        name=key.name,
        namespace=key.namespace,
        uid=surroundings.uid(),
        creation_timestamp=surroundings.now,
        generate_name=generate_name,
        labels=labels,
        annotations=annotations,
        owner_references=(owner,),
    )


def new_pod(
    template: PodTemplate,
    owner: OwnerReference,
    namespace: str,
    name: str,
    surroundings: Surroundings,
    *,
    labels: Mapping[str, str],
    spec: Mapping[str, object] | None = None,
    generate_name: str = "",
) -> NewObject:
    """A pod of `template`; `labels` and the fields of `spec` are added to what the template says."""
    key = ObjectKey("Pod", namespace, name)
    metadata = metadata_of(
        key,
        owner,
        surroundings,
        {**template.metadata.labels, **labels},
        template.metadata.annotations,
        generate_name,
    )
    made = complete_spec(bytes(template.spec))
    for field, value in (spec or {}).items():
        made = documents.with_field(made, (field,), value)
    document = msgspec.json.encode(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": metadata,
            "spec": msgspec.Raw(made),
            "status": PodStatus(phase="Pending"),
        }
    )
    return NewObject(key, document)


def complete_spec(spec: bytes) -> bytes:
    """A pod's spec with the defaults that others read: its service account is part of its identity."""
    for field, default in (("serviceAccountName", "default"), ("restartPolicy", "Always")):
        if documents.field(spec, (field,)) is None:
            spec = documents.with_field(spec, (field,), default)
    return spec


def template_hash(template: PodTemplate) -> str:
    """The same for templates that make the same pods."""
    return documents.fingerprint(
        [template.metadata.labels, template.metadata.annotations, msgspec.json.decode(bytes(template.spec))]
    )
