"""What a controller wants changed, and what it may use to say so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from axoneme.sandbox.objects import ObjectKey


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Time and chance, handed in. `now` is as objects write it; `suffix` gives the end of a generated
    name, `uid` an identifier, both new ones each time."""

    now: str
    suffix: Callable[[], str]
    uid: Callable[[], str]


@dataclass(frozen=True, slots=True)
class NewObject:
    key: ObjectKey
    document: bytes


@dataclass(frozen=True, slots=True)
class FieldChange:
    """Set the field at `path` of another object."""

    key: ObjectKey
    path: tuple[str, ...]
    value: object


@dataclass(frozen=True, slots=True)
class Changes:
    """`status` None: leave it."""

    create: tuple[NewObject, ...] = ()
    delete: tuple[ObjectKey, ...] = ()
    set: tuple[FieldChange, ...] = ()
    status: msgspec.Struct | None = None
