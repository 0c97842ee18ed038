"""Structs read from what somebody else wrote, refused in the words of `axoneme.model.paths`.

Where a format is ours alone, a struct says it all: what is read, what the API's document describes, what is
written. `msgspec` finds what does not fit; here it is told with the place, what stands there, and what would
be right.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from axoneme.model.paths import Fields, ManifestError, Place, show

T = TypeVar("T")

_MESSAGE = re.compile(r"(?P<what>.*?)(?: - at `\$(?P<path>.*)`)?\Z", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`\Z")
_MISSING = re.compile(r"Object missing required field `(.*)`\Z")
_STEP = re.compile(r"\.([^.\[\]]+)|\[([0-9]+)\]")


def convert(value: object, kind: type[T]) -> T:
    """``value``, of plain data, as a ``kind``. Raises `ManifestError`."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise _explained(error, value, kind) from None


def decode(data: bytes, kind: type[T]) -> T:
    """A ``kind`` from JSON. Raises `ManifestError`."""
    try:
        plain = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestError("", str(error), "JSON belongs here") from None
    return convert(plain, kind)


def _explained(error: msgspec.ValidationError, value: object, kind: type[Any]) -> ManifestError:
    match = _MESSAGE.match(str(error))
    assert match
    what, path = match["what"], match["path"] or ""
    steps = [name or int(index) for name, index in _STEP.findall(path)]
    path = path.removeprefix(".")
    if unknown := _UNKNOWN.match(what):
        try:
            Fields({unknown[1]: _at(value, [*steps, unknown[1]])}, path).only(list(_fields(kind, steps)))
        except ManifestError as refused:
            return refused
    if missing := _MISSING.match(what):
        return ManifestError(f"{path}.{missing[1]}".lstrip("."), "nothing", "this field is required")
    return ManifestError(path, show(_at(value, steps)), what.split(", got ")[0].replace("`", ""))


def _at(value: object, steps: list[str | int]) -> Any:
    for step in steps:
        value = Place(value, "").items()[step].value if isinstance(step, int) else _field(value, step)
    return value


def _field(value: object, name: str) -> object:
    return value.get(name) if isinstance(value, dict) else None


def _fields(kind: type[Any], steps: list[str | int]) -> Iterator[str]:
    """The names of the fields that a struct within ``kind`` has."""
    found = [inspect.type_info(kind)]
    for step in steps:
        found = [inner for each in found for inner in _inside(each, step)]
    for each in found:
        if isinstance(each, inspect.StructType):
            yield from (field.encode_name for field in each.fields)


def _inside(kind: inspect.Type, step: str | int) -> Iterator[inspect.Type]:
    if isinstance(kind, inspect.UnionType):
        for each in kind.types:
            yield from _inside(each, step)
    elif isinstance(kind, inspect.ListType | inspect.VarTupleType) and isinstance(step, int):
        yield from _struct(kind.item_type)
    elif isinstance(kind, inspect.StructType):
        for field in kind.fields:
            if field.encode_name == step:
                yield from _struct(field.type)


def _struct(kind: inspect.Type) -> Iterator[inspect.Type]:
    if isinstance(kind, inspect.UnionType):
        yield from kind.types
    else:
        yield kind
