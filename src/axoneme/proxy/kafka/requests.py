"""Requests: their headers, and which topics they are about.

A topic is named, or given by its id, which only the broker can resolve. What a request is about cannot be
told where it asks for topics by a regular expression, or wraps another request.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final, NamedTuple

from axoneme.proxy.kafka.messages import NAMES, VERSIONS, Field, Layout, Struct, decode, layout
from axoneme.proxy.kafka.wire import Malformed, Reader

PRODUCE: Final = 0
FETCH: Final = 1
METADATA: Final = 3
CONTROLLED_SHUTDOWN: Final = 7
FIND_COORDINATOR: Final = 10
SASL_HANDSHAKE: Final = 17
API_VERSIONS: Final = 18
INIT_PRODUCER_ID: Final = 22
ENVELOPE: Final = 58
SHARE_FETCH: Final = 78

#: They change or read the configuration of what ``ResourceType`` says: 2 is a topic.
_OF_RESOURCES: Final = frozenset({32, 33, 44})
#: They are about rights: where these stand, and how the parts of their fields' names go on.
_OF_RIGHTS: Final = {29: ("", "Filter"), 30: ("Creations", ""), 31: ("Filters", "Filter")}
_ANY_RESOURCE, _TOPIC_RESOURCE, _LITERAL = 1, 2, 3
#: What a fetch does not want any more.
FORGOTTEN: Final = "ForgottenTopicsData"
_PRODUCE_BY_ID: Final = 13
_NO_ID: Final = bytes(16)
#: The length of a request, which stands before it, is not counted in it.
LENGTH: Final = 4


@dataclass(frozen=True, slots=True)
class Header:
    api_key: int
    version: int
    correlation_id: int
    client_id: str
    end: int  # of the header, in bytes from the start of the length before the request

    @property
    def name(self) -> str:
        return NAMES[self.api_key]

    @property
    def layout(self) -> Layout:
        return layout(self.api_key, self.version, "request")


@dataclass(frozen=True, slots=True)
class Topics:
    """``ids`` are not resolved. ``unclear``: there may be others."""

    names: frozenset[str] = frozenset()
    ids: frozenset[bytes] = frozenset()
    unclear: bool = False


class ProduceHead(NamedTuple):
    """What a produce request says before its first record. ``topics``: where it is about one only."""

    acks: int
    topics: Topics | None


def read_header(data: bytes) -> Header:
    """Of a request with its length. Raises `Short` and `Malformed`."""
    reader = Reader(data, LENGTH)
    key, version, correlation = reader.number("int16"), reader.number("int16"), reader.number("int32")
    if key not in VERSIONS:
        raise Malformed(f"the API {key} is not known")
    if key == SASL_HANDSHAKE and version == 0:
        # What comes after it has no headers; clients use it where brokers do not offer more.
        raise Malformed("version 0 of saslhandshake is not supported")
    form = layout(key, version, "request")
    client_id = None
    if (key, version) != (CONTROLLED_SHUTDOWN, 0):
        client_id = reader.text(compact=False)
    if form.compact:
        reader.tags()
    return Header(key, version, correlation, client_id or "", reader.place)


def read_body(header: Header, request: bytes) -> Struct:
    """Of a whole request with its length. Raises `Malformed`, also when something follows."""
    reader = Reader(request, header.end)
    body = decode(header.layout, reader)
    if reader.place != len(request):
        raise Malformed(f"{len(request) - reader.place} bytes too many")
    return body


def read_produce_head(header: Header, data: bytes) -> ProduceHead:
    """Raises `Short` and `Malformed`."""
    reader = Reader(data, header.end)
    compact = header.layout.compact
    if header.version >= 3:
        reader.text(compact)  # the transaction
    acks = reader.number("int16")
    reader.number("int32")
    if reader.count(compact) != 1:
        return ProduceHead(acks, None)
    if header.version >= _PRODUCE_BY_ID:
        return ProduceHead(acks, Topics(ids=frozenset((reader.raw(16),))))
    name = reader.text(compact)
    if name is None:
        raise Malformed("a topic without a name")
    return ProduceHead(acks, Topics(frozenset((name,))))


@cache
def bears_topics(form: Layout) -> bool:
    """Whether requests of this layout are about topics, or may be."""
    return form.api_key in (*_OF_RESOURCES, *_OF_RIGHTS, ENVELOPE) or any(map(_is_about_topics, form.fields))


def topics(form: Layout, body: Struct) -> Topics:
    names: set[str] = set()
    ids: set[bytes] = set()
    if form.api_key in _OF_RESOURCES:
        names.update(
            each["ResourceName"] for each in body["Resources"] if each["ResourceType"] == _TOPIC_RESOURCE
        )
    unclear = _gather(form.fields, body, names, ids)
    if form.api_key in _OF_RIGHTS:
        unclear |= _gather_rights(form.api_key, body, names)
    return Topics(frozenset(names), frozenset(ids), unclear or form.api_key == ENVELOPE)


def _gather_rights(key: int, body: Struct, names: set[str]) -> bool:
    """Returns whether there may be others: those with the same beginning, or all."""
    place, ending = _OF_RIGHTS[key]
    pattern = "PatternTypeFilter" if ending else "ResourcePatternType"
    unclear = False
    for each in body[place] if place else (body,):
        kind, name = each[f"ResourceType{ending}"], each[f"ResourceName{ending}"]
        if kind == _TOPIC_RESOURCE and name and each.get(pattern, _LITERAL) == _LITERAL:
            names.add(name)
        elif kind in (_ANY_RESOURCE, _TOPIC_RESOURCE):
            unclear = True
    return unclear


def _is_about_topics(field: Field) -> bool:
    return field.entity == "topic" or field.name == "TopicId" or any(map(_is_about_topics, field.inner))


def _gather(fields: tuple[Field, ...], value: Struct, names: set[str], ids: set[bytes]) -> bool:
    """Returns whether there may be others."""
    unclear = False
    for field in fields:
        found = value[field.name]
        if not found or field.name == FORGOTTEN:
            continue
        if field.entity == "topic":
            names.update(found if field.array else (found,))
        elif field.name == "TopicId":
            ids.add(found)
        elif field.name.endswith("Regex") and field.kind == "string":
            unclear = True
        elif field.inner:
            for each in found if field.array else (found,):
                unclear |= _gather(field.inner, each, names, ids)
    ids.discard(_NO_ID)
    return unclear
