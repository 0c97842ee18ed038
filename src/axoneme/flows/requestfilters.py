"""Filters for what was asked: tests of texts, for those records alone that are requests."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from axoneme.flows.events import L7, Mask, Records
from axoneme.flows.flow import Layer7
from axoneme.flows.flowfilter import FilterError, FlowFilter
from axoneme.flows.requests import Requests
from axoneme.model.regexes import finder, wrong

Test = Callable[[Layer7], bool]

#: What a protocol above TCP and UDP is called in filters.
KINDS = ("http", "dns", "kafka")

#: What regular expressions are for.
_TEXTS: dict[str, Callable[[Layer7], str | None]] = {
    "http_path": lambda each: _path(each.http.url) if each.http else None,
    "http_url": lambda each: each.http.url if each.http else None,
    "dns_query": lambda each: each.dns.query if each.dns else None,
    "kafka_topic": lambda each: each.kafka.topic if each.kafka else None,
}


class Asked:
    """Whether a record is a request of which ``all`` or ``any`` tests are true."""

    def __init__(
        self, requests: Requests, tests: Sequence[Test], quantifier: Callable[[Iterable[bool]], bool]
    ) -> None:
        self._requests = requests
        self._tests = tests
        self._quantifier = quantifier

    def __call__(self, records: Records) -> Mask:
        mask = np.zeros(len(records), np.bool_)
        places = np.flatnonzero(records["kind"] == L7)
        for place, number in zip(places.tolist(), records["request"][places].tolist(), strict=True):
            request = self._requests.get(number)
            mask[place] = request is not None and self._quantifier(test(request) for test in self._tests)
        return mask


def of_kind(kind: str) -> Test:
    return lambda request: getattr(request, kind) is not None


def tests(wanted: FlowFilter) -> Iterator[Test]:
    """All of them must hold; raises `FilterError`."""
    if wanted.http_status:
        statuses = [_status(value) for value in wanted.http_status]
        yield (
            lambda request: (
                request.http is not None
                and any(status.fullmatch(str(request.http.code)) for status in statuses)
            )
        )
    if wanted.http_method:
        methods = {method.upper() for method in wanted.http_method}
        yield lambda request: request.http is not None and request.http.method.upper() in methods
    if wanted.http_header:
        headers = [_header(value) for value in wanted.http_header]
        yield (
            lambda request: (
                request.http is not None
                and any(
                    (header.key.lower(), header.value.strip()) in headers for header in request.http.headers
                )
            )
        )
    for field, part in _TEXTS.items():
        if expressions := getattr(wanted, field):
            yield _expression(field, expressions, part)


def _expression(field: str, values: Sequence[str], part: Callable[[Layer7], str | None]) -> Test:
    for value in values:  # by itself: together, one's bracket could close another's
        if why := wrong(value):
            raise FilterError(field, value, f"a regular expression (RE2): {why}")
    try:
        found = finder(values)
    except ValueError as error:
        raise FilterError(field, f"{len(values)} expressions", f"what can be looked for: {error}") from None

    def test(request: Layer7) -> bool:
        text = part(request)
        return text is not None and found(text)

    return test


def _status(value: str) -> re.Pattern[str]:
    """``404``, ``5+``, ``40+``."""
    if not re.fullmatch(r"[1-5]\d\d|[1-5]\d?\+", value, re.ASCII):
        raise FilterError("http_status", value, "a status as 404, or the start of one as 5+")
    return re.compile(value.replace("+", r"\d*"))


def _header(value: str) -> tuple[str, str]:
    name, colon, content = value.partition(":")
    if not colon or not name.strip():
        raise FilterError("http_header", value, "a header: name: value")
    return name.strip().lower(), content.strip()


def _path(url: str) -> str:
    """Of a URL, without its query."""
    _, found, rest = url.partition("://")
    path = "/" + rest.partition("/")[2] if found else url
    return path.partition("#")[0].partition("?")[0]
