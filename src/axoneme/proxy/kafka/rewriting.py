"""The exchanges that do not pass as they are: about versions, about metadata, our own about topics' ids."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from axoneme.proxy.kafka import refusals
from axoneme.proxy.kafka.judging import Names
from axoneme.proxy.kafka.messages import VERSIONS, Layout, Struct, decode, encode, layout
from axoneme.proxy.kafka.requests import (
    API_VERSIONS,
    LENGTH,
    METADATA,
    SASL_HANDSHAKE,
    Header,
)
from axoneme.proxy.kafka.wire import Malformed, Reader, Writer

#: The first version of Metadata that can be asked by ids alone.
_BY_ID: Final = 12
#: API versions that are not offered, though known: what follows the old handshake has no headers.
_FIRST: Final = {SASL_HANDSHAKE: 1}


def common_versions(header: Header, answer: bytes) -> bytes:
    """The broker's answer about versions without those that are not understood here."""
    form, body = _read(header, answer)
    offered = []
    for each in body["ApiKeys"]:
        known = VERSIONS.get(each["ApiKey"])
        if known is None:
            continue
        low = max(each["MinVersion"], known.start, _FIRST.get(each["ApiKey"], 0))
        high = min(each["MaxVersion"], known.stop - 1)
        if low <= high:
            offered.append({**each, "MinVersion": low, "MaxVersion": high})
    return refusals.response(header, form, {**body, "ApiKeys": offered})


def own_versions(correlation_id: int) -> bytes:
    """The answer to who asks about versions in one that is not known: as brokers give it, in the first."""
    known = VERSIONS[API_VERSIONS]
    body = {
        "ErrorCode": refusals.UNSUPPORTED_VERSION,
        "ApiKeys": [{"ApiKey": API_VERSIONS, "MinVersion": known.start, "MaxVersion": known.stop - 1}],
    }
    header = Header(API_VERSIONS, 0, correlation_id, "", 0)
    return refusals.response(header, layout(API_VERSIONS, 0, "response"), body)


def split(body: Struct, without: frozenset[str | bytes], names: Names) -> tuple[list[Struct], list[Struct]]:
    """The topics of a metadata request that may pass, and the others."""
    kept: list[Struct] = []
    taken: list[Struct] = []
    for each in body["Topics"] or ():
        number = each.get("TopicId", b"")
        named = {each["Name"], number, names.get(number)}
        (taken if named & without else kept).append(each)
    return kept, taken


def reduced(header: Header, request: bytes, body: Struct, kept: list[Struct]) -> bytes:
    """A metadata request with these topics only."""
    writer = Writer()
    writer.data += request[: header.end]
    encode(header.layout, {**body, "Topics": kept}, writer)
    return _with_length(writer)


def completed(header: Header, answer: bytes, taken: list[Struct], names: Names) -> bytes:
    """The broker's answer about metadata, with the topics that were taken out of the request."""
    form, body = _read(header, answer)
    for each in taken:
        number = each.get("TopicId", b"")
        known = each["Name"] or names.get(number)
        error = refusals.TOPIC_AUTHORIZATION_FAILED if known else refusals.UNKNOWN_TOPIC_ID
        body["Topics"].append(
            {"ErrorCode": error, "Name": each["Name"] or "", "TopicId": number or bytes(16)}
        )
    return refusals.response(header, form, body)


def question(header: Header, ids: frozenset[bytes]) -> tuple[Header, bytes]:
    """A request of ours for the names of topics, as the client that has sent another."""
    writer = Writer()
    writer.number("int32", 0)
    writer.number("int16", METADATA)
    writer.number("int16", _BY_ID)
    writer.number("int32", header.correlation_id)
    writer.text(header.client_id, compact=False)
    writer.tags({})
    ours = Header(METADATA, _BY_ID, header.correlation_id, header.client_id, len(writer.data))
    topics = [{"TopicId": each, "Name": None} for each in sorted(ids)]
    encode(ours.layout, {"Topics": topics, "AllowAutoTopicCreation": False}, writer)
    return ours, _with_length(writer)


def learn(header: Header, answer: bytes, ids: frozenset[bytes], names: Names) -> None:
    """Keeps what the broker has answered to a `question`."""
    _, body = _read(header, answer)
    for each in body["Topics"]:
        if not each["ErrorCode"] and each["Name"] and each["TopicId"] in ids:
            names.learn(each["TopicId"], each["Name"])


def head_of_answer(header: Header, answer: bytes) -> tuple[int, int]:
    """The error that a response begins with, and the number of the session that follows in that to a fetch;
    each 0 where there is none. Of a whole response without such a beginning: the first error in it."""
    form = layout(header.api_key, header.version, "response")
    reader = Reader(answer, LENGTH + 4)
    error = 0
    try:
        if form.compact and header.api_key != API_VERSIONS:
            reader.tags()
        for field in form.fields[:3]:
            if field.array or field.kind not in ("int16", "int32"):
                break
            value = reader.number(field.kind)
            if field.name == "ErrorCode":
                error = value
            elif field.name == "SessionId":
                return error, value
        if len(answer) == LENGTH + int.from_bytes(answer[:LENGTH], "big") and not _begins_with_error(form):
            return next((each for each in _errors(_read(header, answer)[1]) if each), 0), 0
    except Malformed:  # the client will see
        return 0, 0
    return error, 0


def _begins_with_error(form: Layout) -> bool:
    return any(field.name == "ErrorCode" for field in form.fields)


def _errors(value: object) -> Iterator[int]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if isinstance(inner, int) and str(name).endswith("ErrorCode"):
                yield inner
            else:
                yield from _errors(inner)
    elif isinstance(value, list):
        for each in value:
            yield from _errors(each)


def _read(header: Header, answer: bytes) -> tuple[Layout, Struct]:
    version = header.version
    reader = Reader(answer, LENGTH + 4)
    if header.api_key == API_VERSIONS:
        if reader.number("int16") == refusals.UNSUPPORTED_VERSION:
            version = 0
        reader.place -= 2
    form = layout(header.api_key, version, "response")
    if form.compact and header.api_key != API_VERSIONS:
        reader.tags()
    return form, decode(form, reader)


def _with_length(writer: Writer) -> bytes:
    writer.data[:LENGTH] = (len(writer.data) - LENGTH).to_bytes(LENGTH, "big")
    return bytes(writer.data)
