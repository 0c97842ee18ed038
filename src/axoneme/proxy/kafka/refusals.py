"""Answers to requests that are refused, as a broker would give them to who has no authorization.

One description serves all APIs: an answer has the topics, partitions, groups and other things that the
request names, each with an error. They are found by what their fields stand for, since requests and answers
have different names for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from axoneme.proxy.kafka.messages import Field, Layout, Struct, encode, layout
from axoneme.proxy.kafka.requests import API_VERSIONS, FIND_COORDINATOR, INIT_PRODUCER_ID, LENGTH, Header
from axoneme.proxy.kafka.wire import Writer

#: Error codes of the protocol.
TOPIC_AUTHORIZATION_FAILED: Final = 29
GROUP_AUTHORIZATION_FAILED: Final = 30
CLUSTER_AUTHORIZATION_FAILED: Final = 31
UNSUPPORTED_VERSION: Final = 35
TRANSACTIONAL_ID_AUTHORIZATION_FAILED: Final = 53
FETCH_SESSION_ID_NOT_FOUND: Final = 70
UNKNOWN_TOPIC_ID: Final = 100
SHARE_SESSION_NOT_FOUND: Final = 122

REASON: Final = "not allowed by network policy"

_ROLES: Final = {
    "TopicId": "topic",
    "PartitionIndex": "partition",
    "Partition": "partition",
    "PartitionId": "partition",
    "Index": "partition",
    "Partitions": "partition",
    "PartitionIndexes": "partition",
    "GroupId": "group",
    "Key": "key",
    "CoordinatorKeys": "key",
    "ResourceName": "resource",
}


def code(header: Header, body: Struct) -> int:
    """The error for a request that no rule allows, whatever it is about."""
    if header.api_key == FIND_COORDINATOR:
        of_group = body.get("KeyType", 0) != 1
        return GROUP_AUTHORIZATION_FAILED if of_group else TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    if header.api_key == INIT_PRODUCER_ID and body["TransactionalId"] is None:
        return CLUSTER_AUTHORIZATION_FAILED  # for idempotence only
    entities = set(_entities(header.layout.fields))
    if "group" in entities:
        return GROUP_AUTHORIZATION_FAILED
    if "topic" in entities:
        return TOPIC_AUTHORIZATION_FAILED
    return (
        TRANSACTIONAL_ID_AUTHORIZATION_FAILED if "transaction" in entities else CLUSTER_AUTHORIZATION_FAILED
    )


def refusal(header: Header, body: Struct, error: int) -> bytes:
    """A response with its length. Errors stand as far inside as there is something that they are about."""
    form = layout(header.api_key, header.version, "response")
    made, _ = _mirror(form.fields, body, header.layout.fields, error)
    return response(header, form, made)


def failure(header: Header, error: int) -> bytes:
    """A response that says nothing but an error."""
    return response(header, layout(header.api_key, header.version, "response"), {"ErrorCode": error})


def response(header: Header, form: Layout, body: Struct) -> bytes:
    """With its length."""
    writer = Writer()
    writer.number("int32", 0)
    writer.number("int32", header.correlation_id)
    if form.compact and header.api_key != API_VERSIONS:
        writer.tags({})
    encode(form, body, writer)
    writer.data[:LENGTH] = (len(writer.data) - LENGTH).to_bytes(LENGTH, "big")
    return bytes(writer.data)


def _entities(fields: tuple[Field, ...]) -> Iterator[str]:
    for field in fields:
        yield "topic" if field.name == "TopicId" else field.entity
        yield from _entities(field.inner)


def _mirror(
    fields: tuple[Field, ...], source: Struct, given: tuple[Field, ...], error: int
) -> tuple[Struct, bool]:
    """A struct of the response made from one of the request, and whether it says the error somewhere."""
    made: Struct = {}
    inside = False
    for field in fields:
        if field.array and field.kind == "struct":
            roles = {_role(each) for each in field.inner} - {""}
            made[field.name] = items = []
            for item, form in _akin(source, given, roles):
                child, told = _mirror(field.inner, item, form, error)
                items.append(child)
                inside |= told
        elif not field.array and field.kind != "struct":
            _copy(field, made, source, given)
    errors = [field.name for field in fields if field.name.endswith("ErrorCode") and field.kind == "int16"]
    for name in errors:
        made[name] = 0 if inside else error
    if errors and not inside and any(field.name == "ErrorMessage" for field in fields):
        made["ErrorMessage"] = REASON
    return made, inside or bool(errors)


def _akin(
    source: Struct, given: tuple[Field, ...], roles: set[str]
) -> Iterator[tuple[Struct, tuple[Field, ...]]]:
    """Items of the request's arrays that stand for one of ``roles``, as structs; also of arrays inside."""
    for field in given:
        if not field.array or not source[field.name] or field.name == "ForgottenTopicsData":
            continue
        if field.kind != "struct":
            if _role(field) in roles:
                for each in source[field.name]:
                    yield {field.name: each}, (field,)
        elif roles & {_role(each) for each in field.inner}:
            for each in source[field.name]:
                yield each, field.inner
        else:
            for each in source[field.name]:
                yield from _akin(each, field.inner, roles)


def _copy(field: Field, made: Struct, source: Struct, given: tuple[Field, ...]) -> None:
    """A field of the response has what stands for the same in the request."""
    for other in given:
        alike = other.name == field.name or (_role(field) and _role(field) == _role(other))
        if other.kind != field.kind or not alike or (other.array and len(given) > 1):
            continue
        value = source[other.name]
        if value is not None or field.optional:
            made[field.name] = value
            return


def _role(field: Field) -> str:
    if field.entity:
        return field.entity
    role = _ROLES.get(field.name, "")
    return "" if role == "partition" and field.kind != "int32" else role
