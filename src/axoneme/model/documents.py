"""Changing stored JSON without knowing all of it: one field at a time, the rest byte for byte as it was."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec

_Fields = dict[str, msgspec.Raw]
_decode: Final = msgspec.json.Decoder(_Fields).decode

#: Letters of generated names: no vowels and nothing easily mistaken, so that no words arise.
ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"


def with_field(document: bytes, path: Sequence[str], value: object) -> bytes:
    """The document with `value` at `path`; objects on the way are made where they are missing or null."""
    name, *below = path
    fields = _decode(document)
    if below:
        inner = bytes(fields.get(name, b"{}"))
        made = with_field(b"{}" if inner == b"null" else inner, below, value)
    else:
        made = msgspec.json.encode(value)
    return msgspec.json.encode(fields | {name: msgspec.Raw(made)})


def field(document: bytes, path: Sequence[str]) -> bytes | None:
    """The JSON at `path`; None where there is none, or a null."""
    for name in path:
        found = _decode(document).get(name)
        if found is None or bytes(found) == b"null":
            return None
        document = bytes(found)
    return document


def fingerprint(value: object) -> str:
    """Ten letters that are the same for the same value, whatever the order of its keys."""
    canonical = msgspec.json.encode(value, order="sorted")
    number = int.from_bytes(hashlib.sha256(canonical).digest()[:8], "big")
    letters = []
    for _ in range(10):
        number, place = divmod(number, len(ALPHABET))
        letters.append(ALPHABET[place])
    return "".join(letters)
