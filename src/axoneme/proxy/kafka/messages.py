"""Requests and responses of the Kafka protocol: what each version of each consists of, read and written.

``messages.txt`` has a line for each: API key, kind, versions, name, the first version with compact lengths
and tagged fields, then its fields: ``tools/kafka_messages.py`` has them from the definitions in Apache Kafka.
A struct is a dict by the fields' names; its tagged fields stand, as they are, under `TAGS`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from axoneme.proxy.kafka.wire import NUMBERS, Malformed, Reader, Writer

#: A struct of a message. Numbers, text, bytes, None, and dicts and lists of them.
Struct = dict[str, Any]
TAGS: Final = ""

_FIELD: Final = re.compile(r"(?P<name>\w+):(?P<array>\[\])?(?P<kind>\w+|\{)")
_REST: Final = re.compile(
    r"(?:/(?P<low>\d+)-(?P<high>\d*))?(?:\?(?P<nullable>\d+))?(?:=(?P<default>[^\s~}]*))?(?:~(?P<entity>\w+))?"
)
_ALWAYS: Final = 1 << 15


@dataclass(frozen=True, slots=True)
class Field:
    """``kind``: one of `NUMBERS`, string, bytes, records, uuid; or struct, which consists of ``inner``."""

    name: str
    kind: str
    array: bool
    inner: tuple[Field, ...]
    low: int
    high: int
    nullable: int  # from this version on
    default: str
    entity: str  # what its text names: topic, group, transaction
    optional: bool = False  # of a field `at` a version: it is nullable there

    def at(self, version: int) -> Iterator[Field]:
        """Itself, with what of it there is in a version."""
        if self.low <= version <= self.high:
            inner = tuple(each for field in self.inner for each in field.at(version))
            yield replace(self, inner=inner, optional=self.nullable <= version)


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Of one version of a message; there is one object for each."""

    api_key: int
    version: int
    compact: bool
    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class _Message:
    name: str
    versions: range
    compact_from: int
    fields: tuple[Field, ...]


def _read() -> Iterator[tuple[int, str, _Message]]:
    for line in Path(__file__).with_name("messages.txt").read_text().splitlines():
        key, kind, versions, name, compact, *rest = line.split(" ", 5)
        low, high = versions.split("-")
        text = rest[0] if rest else ""
        fields, end = _fields(text, 0)
        assert end == len(text), line
        yield int(key), kind, _Message(name, range(int(low), int(high) + 1), int(compact), fields)


def _fields(text: str, place: int) -> tuple[tuple[Field, ...], int]:
    found = []
    while place < len(text) and text[place] != "}":
        head = _FIELD.match(text, place)
        assert head, text[place:]
        place, kind = head.end(), head["kind"]
        inner: tuple[Field, ...] = ()
        if kind == "{":
            kind = "struct"
            inner, place = _fields(text, place)
            place += 1
        rest = _REST.match(text, place)
        assert rest
        place = rest.end() + (text[rest.end() : rest.end() + 1] == " ")
        found.append(
            Field(
                head["name"],
                kind,
                bool(head["array"]),
                inner,
                int(rest["low"] or 0),
                int(rest["high"] or _ALWAYS),
                int(rest["nullable"] or _ALWAYS),
                rest["default"] or "",
                rest["entity"] or "",
            )
        )
    return tuple(found), place


_MESSAGES: Final[dict[tuple[int, str], list[_Message]]] = {}
for _key, _kind, _message in _read():
    _MESSAGES.setdefault((_key, _kind), []).append(_message)

#: API keys -> their names, in lower case.
NAMES: Final[Mapping[int, str]] = {
    key: found[-1].name.lower() for (key, kind), found in _MESSAGES.items() if kind == "request"
}
#: API keys -> versions that are known.
VERSIONS: Final[Mapping[int, range]] = {
    key: range(found[0].versions.start, found[-1].versions.stop)
    for (key, kind), found in _MESSAGES.items()
    if kind == "request"
}


@cache
def layout(api_key: int, version: int, kind: str) -> Layout:
    """Raises `Malformed` where it is not known. ``kind``: request, response."""
    for message in _MESSAGES.get((api_key, kind), ()):
        if version in message.versions:
            fields = tuple(each for field in message.fields for each in field.at(version))
            return Layout(api_key, version, version >= message.compact_from, fields)
    raise Malformed(f"version {version} of the API {NAMES.get(api_key, api_key)} is not known")


def decode(form: Layout, reader: Reader) -> Struct:
    """Raises `Malformed`."""
    return _decode_struct(form.fields, reader, form.compact)


def encode(form: Layout, value: Struct, writer: Writer) -> None:
    """A field that is not given has its default."""
    _encode_struct(form.fields, value, writer, form.compact)


def _decode_struct(fields: tuple[Field, ...], reader: Reader, compact: bool) -> Struct:
    made: Struct = {field.name: _decode(field, reader, compact) for field in fields}
    if compact:
        made[TAGS] = reader.tags()
    return made


def _decode(field: Field, reader: Reader, compact: bool) -> Any:
    value: Any
    if field.array:
        count = reader.count(compact)
        value = None if count < 0 else [_decode_one(field, reader, compact) for _ in range(count)]
    elif field.kind == "struct" and field.optional:
        value = _decode_one(field, reader, compact) if reader.number("int8") >= 0 else None
    else:
        value = _decode_one(field, reader, compact)
    if value is None and not field.optional:
        raise Malformed(f"no {field.name}")
    return value


def _decode_one(field: Field, reader: Reader, compact: bool) -> Any:
    kind = field.kind
    if kind in NUMBERS:
        return reader.number(kind)
    if kind == "struct":
        return _decode_struct(field.inner, reader, compact)
    if kind == "string":
        return reader.text(compact)
    if kind == "uuid":
        return reader.raw(16)
    return reader.blob(compact)


def _encode_struct(fields: tuple[Field, ...], value: Struct, writer: Writer, compact: bool) -> None:
    for field in fields:
        _encode(field, value[field.name] if field.name in value else _default(field), writer, compact)
    if compact:
        writer.tags(value.get(TAGS, {}))


def _encode(field: Field, value: Any, writer: Writer, compact: bool) -> None:
    if field.array:
        writer.count(-1 if value is None else len(value), compact)
        for each in value or ():
            _encode_one(field, each, writer, compact)
    elif field.kind == "struct" and field.optional:
        writer.number("int8", -1 if value is None else 1)
        if value is not None:
            _encode_one(field, value, writer, compact)
    else:
        _encode_one(field, value, writer, compact)


def _encode_one(field: Field, value: Any, writer: Writer, compact: bool) -> None:
    kind = field.kind
    if kind in NUMBERS:
        writer.number(kind, value)
    elif kind == "struct":
        _encode_struct(field.inner, value, writer, compact)
    elif kind == "string":
        writer.text(value, compact)
    elif kind == "uuid":
        writer.data += value
    else:
        writer.blob(value, compact)


def _default(field: Field) -> Any:
    if field.default == "null" and field.optional:
        return None
    if field.array:
        return []
    if field.kind in ("struct", "string", "uuid", "bytes", "records"):
        text = "" if field.default == "null" else field.default
        return {"struct": {}, "string": text, "uuid": bytes(16)}.get(field.kind, b"")
    if field.kind == "bool":
        return field.default.lower() == "true"
    return int(field.default or "0", 0)
