"""Whether rules above L4 let a recorded request pass; where the record does not tell: None."""

from __future__ import annotations

from collections.abc import Iterable

from axoneme.edges.edge import VARIOUS, Request
from axoneme.model.kafkaapis import ALWAYS, number_of
from axoneme.model.l7 import L7, HeaderMatch, HTTPRule, KafkaRule, L7Kind, Mismatch
from axoneme.model.names import matches as name_matches
from axoneme.model.redaction import HIDDEN
from axoneme.model.regexes import matches
from axoneme.policy.requests import server_name_matches

#: How a blurred part of a path may read: if a rule says of all of these the same, it is taken for sure.
_GUESSES = ("", "0", "x", "a-b_c.d", "0123456789abcdef0123456789abcdef")


def passes(part: L7, request: Request) -> bool | None:
    if part.listener is not None:
        return None
    if part.kind is L7Kind.TLS or part.server_names:
        named = _server_name(part, request)
        if part.kind is L7Kind.TLS or named is not True:
            return named
    if part.kind is not request.kind:
        return False
    match part.kind:
        case L7Kind.HTTP:
            return _any(_http(rule, request) for rule in part.http)
        case L7Kind.KAFKA:
            always = number_of(request.api_key) in ALWAYS
            return always or _any(_kafka(rule, request) for rule in part.kafka)
        case _:
            return any(name_matches(rule, request.name) for rule in part.dns)


def _server_name(part: L7, request: Request) -> bool | None:
    if not part.server_names:
        return True
    if request.kind is not L7Kind.TLS:
        return None
    return any(server_name_matches(name, request.name) for name in part.server_names)


def _http(rule: HTTPRule, request: Request) -> bool | None:
    verdicts: list[bool | None] = []
    if rule.method:
        verdicts.append(matches(rule.method, request.method))
    if rule.path:
        verdicts.append(_alike(matches(rule.path, path) for path in _paths(request)))
    if rule.host:
        verdicts.append(matches(rule.host, request.host) if request.host else None)
    verdicts += [_header(header, request) for header in rule.headers]
    return _all(verdicts)


def _paths(request: Request) -> Iterable[str]:
    """What the request may have asked for, a query included."""
    if not request.blurred:
        return [request.path]
    queries = [f"?{guess}={guess}" for guess in _GUESSES] if request.query else [""]
    return [request.path.replace(HIDDEN, guess) + query for guess in _GUESSES for query in queries]


def _header(header: HeaderMatch, request: Request) -> bool | None:
    if header.mismatch is not Mismatch.DENY:
        return True
    values = [value for name, value in request.headers if name == header.name]
    if not values or header.secret is not None or any(HIDDEN in value for value in values):
        return None  # flows show few headers: what is not there may only not be shown
    if header.value:
        return any(value == header.value for value in values)
    return any(matches(header.pattern, value) for value in values) if header.pattern else True


def _kafka(rule: KafkaRule, request: Request) -> bool | None:
    number = number_of(request.api_key)
    if rule.api_keys and number is None:
        return None
    if rule.api_keys and number not in rule.api_keys:
        return False
    if rule.client_id and rule.client_id != request.client_id:
        return False
    if rule.topic and request.topic and rule.topic != request.topic:
        return False
    if rule.api_version is None:
        return True
    return None if request.api_version == VARIOUS else rule.api_version == request.api_version


def _alike(verdicts: Iterable[bool]) -> bool | None:
    found = set(verdicts)
    return found.pop() if len(found) == 1 else None


def _any(verdicts: Iterable[bool | None]) -> bool | None:
    found = list(verdicts)
    return True if True in found else None if None in found else False


def _all(verdicts: Iterable[bool | None]) -> bool | None:
    found = list(verdicts)
    return False if False in found else None if None in found else True
