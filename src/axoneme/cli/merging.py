"""Applying a manifest to an object that exists, as kubectl does: what the manifest says is set, what it
said the last time and says no more is removed, and what others have written stays.

What it said the last time stands in an annotation of the object, under kubectl's name for it.
Values in, values out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

Document = dict[str, Any]

#: Parts of an object that are not a manifest's to set; files made by ``get -o yaml`` have them.
_OF_THE_SERVER = ("uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "selfLink")

#: What cannot be changed in an object that exists, by kind.
_IMMUTABLE: Mapping[str, tuple[str, ...]] = {
    "Pod": ("spec",),
    "Deployment": ("spec.selector",),
    "ReplicaSet": ("spec.selector",),
    "StatefulSet": ("spec.selector", "spec.serviceName"),
    "DaemonSet": ("spec.selector",),
    "Job": ("spec.template", "spec.selector", "spec.completions"),
}


class Immutable(Exception):
    """The manifest changes what cannot be changed; ``path`` says where."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


def wanted(written: Mapping[str, object]) -> Document:
    """What a manifest asks for, with the annotation that remembers it."""
    made = {key: value for key, value in _without_nulls(written).items() if key != "status"}
    metadata = {key: value for key, value in made.get("metadata", {}).items() if key not in _OF_THE_SERVER}
    annotations = {
        key: value for key, value in metadata.get("annotations", {}).items() if key != LAST_APPLIED
    }
    metadata.pop("annotations", None)
    if annotations:
        metadata["annotations"] = annotations
    made["metadata"] = metadata
    text = json.dumps(made, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return {**made, "metadata": {**metadata, "annotations": {**annotations, LAST_APPLIED: text}}}


def merge(live: Document, new: Document) -> Document:
    """The object ``live`` after `wanted` manifest ``new``; `Immutable` when it cannot be.

    The generation counts changes of the spec. The result equals ``live`` when there is nothing to do.
    """
    merged = _merge(_last_applied(live), new, live)
    for path in _IMMUTABLE.get(str(new.get("kind")), ()):
        if _at(merged, path) != _at(live, path):
            raise Immutable(path)
    return counted(live, merged)


def counted(before: Document, after: Document) -> Document:
    """``after`` with the generation that follows from ``before``."""
    if after.get("spec") != before.get("spec"):
        generation = before.get("metadata", {}).get("generation") or 0
        after["metadata"] = {**after["metadata"], "generation": generation + 1}
    return after


def _last_applied(live: Document) -> Document:
    text = live.get("metadata", {}).get("annotations", {}).get(LAST_APPLIED, "{}")
    try:
        found = json.loads(text)
    except ValueError:
        found = {}
    return found if isinstance(found, dict) else {}


def _merge(last: Any, new: Any, live: Any) -> Any:
    if not isinstance(new, dict) or not isinstance(live, dict):
        # A list that is as it was written before may have got defaults since: they are to stay.
        return live if isinstance(new, list) and isinstance(live, list) and new == last else new
    before = last if isinstance(last, dict) else {}
    merged: Document = {}
    for key, value in live.items():
        if key in new:
            merged[key] = _merge(before.get(key), new[key], value)
        elif key not in before:
            merged[key] = value
        elif isinstance(value, dict) and (others := _merge(before[key], {}, value)):
            merged[key] = others
    return merged | {key: value for key, value in new.items() if key not in live}


def _at(document: Document, path: str) -> object:
    value: object = document
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _without_nulls(value: Mapping[str, object]) -> Document:
    """A null in a manifest says that the field shall not be there."""
    return {
        key: _without_nulls(item) if isinstance(item, Mapping) else item
        for key, item in value.items()
        if item is not None
    }
