"""Secrets: what policies refer to, so that it does not stand in them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from axoneme.model import checks
from axoneme.model.metadata import naming, parse_metadata
from axoneme.model.paths import Place

KIND = "Secret"


def parse_secret(object: Mapping[str, object]) -> dict[str, bytes]:
    """Its data by key; what ``stringData`` says goes before ``data``. Raises `ManifestError`."""
    with naming(object) as fields:
        fields.need("kind").one_of((KIND,))
        fields.only(("apiVersion", "kind", "metadata", "type", "immutable", "data", "stringData"))
        parse_metadata(fields, namespaced=True)
        found: dict[str, bytes] = {}
        if (data := fields.get("data")) is not None:
            found = {_key(key): _decoded(value) for key, value in data.fields().entries()}
        return found | {key: text.encode() for key, text in checks.texts(fields.get("stringData")).items()}


def _key(place: Place) -> str:
    return place.name()


def _decoded(place: Place) -> bytes:
    try:
        return base64.b64decode("".join(place.text().split()), validate=True)
    except (binascii.Error, ValueError):
        return place.refuse("base64 belongs here; plain text goes under stringData", "something else")
