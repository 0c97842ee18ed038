"""HTTP rules as Envoy's routes: tried in order, the first that matches a request decides it.

What is judged is what is forwarded: Envoy has resolved ``.`` and ``..`` in the path before (listeners.py).
What would still mean such steps to a server that takes ``%2F``, ``\\`` or ``;`` for more than Envoy does is
refused whatever the rules say: it could leave the place that a rule has allowed.

Rules that change headers (`Mismatch`) all take effect, each whose own conditions hold. A route changes
headers always, so there is one for each set of changes that can be due, larger sets first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, product

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2 as components
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.buffer.v3 import buffer_pb2
from envoy.type.matcher.v3 import regex_pb2, string_pb2

from axoneme.model.l7 import HeaderMatch, HTTPRule, Mismatch, SecretRef
from axoneme.proxy.envoy.protos import Message, number, packed, seconds

#: What clients whose request is refused are told.
REFUSED_BODY = "Access denied: refused by network policy.\n"
REFUSED_CODE = 403

#: Bytes of a refused request's body that are read before it is answered.
BUFFERED = 64 << 10
_BUFFER = "envoy.filters.http.buffer"

#: Characters of a header's value that comes of a Secret.
LONGEST_VALUE = 8192

#: Above this, a listener would need more than 2**MOST_CHANGES routes.
MOST_CHANGES = 6
#: So many underscores are guessed in other spellings of a header's name.
_MOST_DASHES = 4

#: A step of a path that some servers take for ``.`` or ``..``, beside what they take for a slash.
_SLASH = r"(?:/|\\|%2[fF]|%5[cC])"
_AMBIGUOUS = rf"[^?]*{_SLASH}(?:\.|%2[eE]){{1,2}}(?:(?:;|%3[bB])[^/?]*)?(?:{_SLASH}[^?]*)?(?:\?.*)?"


class UnusableRule(ValueError):
    """The rules cannot be enforced; the text says why."""


@dataclass(frozen=True, order=True)
class Condition:
    """On a header, or on what Envoy gives a header's form. ``kind``: ``exact``, ``regex``, ``present``."""

    name: str
    kind: str
    text: str = ""
    inverted: bool = False

    def negated(self) -> Condition:
        return Condition(self.name, self.kind, self.text, not self.inverted)


@dataclass(frozen=True)
class Change:
    """A header match that does not refuse, of a rule whose other ``conditions`` hold."""

    conditions: tuple[Condition, ...]
    match: Condition
    header: str
    value: str
    action: Mismatch


#: Requests that do not end before they are answered: of gRPC, with a body that waits, for something else.
_ENDLESS = (
    Condition("content-type", "regex", "application/grpc.*"),
    Condition("expect", "present"),
    Condition("upgrade", "present"),
)

Secrets = Mapping[SecretRef, Mapping[str, bytes]]


def route_configuration(
    name: str, rules: Iterable[HTTPRule], secrets: Secrets, cluster: str, audit: bool
) -> Message:
    """Raises `UnusableRule`."""
    parts = [part for rule in rules if (part := _parts(rule, secrets)) is not None]
    ambiguous = [Condition(":path", "regex", _AMBIGUOUS)]
    tried = cluster if audit else None
    routes = list(_otherwise("ambiguous path", ambiguous, tried))
    for conditions, changes in _alternatives(parts):
        told = ", ".join(
            f"{change.header} {_TOLD[change.action]}" for change in changes if change.action in _TOLD
        )
        route = _route(f"FORWARDED {told}".rstrip(), _passing(cluster), conditions)
        _change_headers(route, changes)
        routes.append(route)
        if not any(condition.name == ":path" for condition in conditions):
            routes.append(_connect(route))
    routes += _otherwise("no rule allows it", [], tried)
    routes.append(_connect(_route(*_refusal("no rule allows it", tried), [])))
    return route_pb2.RouteConfiguration(
        name=name,
        virtual_hosts=[
            components.VirtualHost(
                name="all",
                domains=["*"],
                routes=routes,
                typed_per_filter_config={_BUFFER: packed(buffer_pb2.BufferPerRoute(disabled=True))},
            )
        ],
    )


def _otherwise(why: str, conditions: list[Condition], cluster: str | None) -> Iterator[Message]:
    """What becomes of requests that no rule lets pass; with a ``cluster``, they pass nevertheless.

    By HTTP/1, a connection lives on only when the request was read to its end before it is answered. Some do
    not end before they are answered.
    """
    name, action = _refusal(why, cluster)
    if cluster is not None:
        yield _route(name, action, conditions)
        return
    for endless in _ENDLESS:
        yield _route(name, action, [endless, *conditions])  # what is cheap to see first
    waiting = _route(name, action, conditions)
    whole = buffer_pb2.BufferPerRoute(buffer=buffer_pb2.Buffer(max_request_bytes=number(BUFFERED)))
    waiting.typed_per_filter_config[_BUFFER].CopyFrom(packed(whole))
    yield waiting


_TOLD = {
    Mismatch.LOG: "has another value",
    Mismatch.ADD: "added",
    Mismatch.DELETE: "deleted",
    Mismatch.REPLACE: "replaced",
}


def _alternatives(
    rules: list[tuple[tuple[Condition, ...], tuple[Change, ...]]],
) -> Iterator[tuple[list[Condition], list[Change]]]:
    """Conditions under which a request passes, and with which changes; the first that holds counts."""
    changes = list(dict.fromkeys(change for _, some in rules for change in some))
    if len(changes) > MOST_CHANGES:
        raise UnusableRule(
            f"{len(changes)} different header matches with a mismatch action hold for the same traffic; "
            f"at most {MOST_CHANGES} can"
        )
    for size in range(len(changes), 0, -1):
        for some in combinations(changes, size):
            conditions = {
                condition for change in some for condition in (*change.conditions, change.match.negated())
            }
            if not any(condition.negated() in conditions for condition in conditions):
                yield sorted(conditions), list(some)
    for plain in sorted({conditions for conditions, _ in rules}, key=lambda each: (len(each), each)):
        yield list(plain), []


def _parts(rule: HTTPRule, secrets: Secrets) -> tuple[tuple[Condition, ...], tuple[Change, ...]] | None:
    """What a rule asks of a request, and what it changes; None when it can match none."""
    conditions = [
        Condition(name, "regex", text)
        for name, text in ((":method", rule.method), (":path", rule.path), (":authority", rule.host))
        if text
    ]
    matches = []
    for header in rule.headers:
        value = _value(header, secrets)
        if value is None:
            return None
        if header.pattern:
            match = Condition(header.name, "regex", header.pattern)
        elif value:
            match = Condition(header.name, "exact", value)
        else:
            match = Condition(header.name, "present")
        matches.append((header, value, match))
        if header.mismatch is Mismatch.DENY:
            conditions.append(match)
        conditions.extend(_no_other_spelling(header.name))
    common = tuple(sorted(set(conditions)))
    changes = [
        Change(common, match, header.name, value, header.mismatch)
        for header, value, match in matches
        if header.mismatch is not Mismatch.DENY
    ]
    return common, tuple(changes)


def _value(header: HeaderMatch, secrets: Secrets) -> str | None:
    """The value that a header must have; None when it should come from a secret that is not there."""
    if header.secret is None:
        return header.value
    found = secrets.get(header.secret, {})
    if len(found) != 1:
        return header.value or None
    (content,) = found.values()
    text = content.strip().decode("latin-1")
    # What Envoy does not take, it shows when it says so.
    if not (text.isascii() and text.isprintable() and len(text) <= LONGEST_VALUE):
        secret = header.secret
        raise UnusableRule(
            f"the value for header {header.name} in Secret {secret.namespace}/{secret.name} is not plain text"
            f" of at most {LONGEST_VALUE} characters"
        )
    return text or None


def _no_other_spelling(name: str) -> Iterator[Condition]:
    """Servers with the interface of CGI (WSGI among them) cannot tell ``X-Token`` from ``X_Token``; where a
    rule looks at one, the other must not be there."""
    parts = re.split("[-_]", name)
    if 1 < len(parts) <= 1 + _MOST_DASHES:
        for marks in product("-_", repeat=len(parts) - 1):
            spelt = "".join(part + mark for part, mark in zip(parts, (*marks, ""), strict=True))
            if spelt != name:
                yield Condition(spelt, "present", inverted=True)


def _matcher(condition: Condition) -> Message:
    matcher = components.HeaderMatcher(name=condition.name)
    if condition.kind == "present":
        matcher.present_match = not condition.inverted
        return matcher
    if condition.kind == "regex":
        string = string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex=condition.text))
    else:
        string = string_pb2.StringMatcher(exact=condition.text)
    matcher.string_match.CopyFrom(string)
    if condition.inverted:
        matcher.invert_match = True
        matcher.treat_missing_header_as_empty = True
    return matcher


def _route(name: str, action: Message, conditions: Iterable[Condition]) -> Message:
    route = components.Route(
        name=name, match=components.RouteMatch(prefix="", headers=[_matcher(each) for each in conditions])
    )
    if isinstance(action, components.RouteAction):
        route.route.CopyFrom(action)
    else:
        route.direct_response.CopyFrom(action)
    return route


def _connect(route: Message) -> Message:
    """The same for CONNECT, which has no path."""
    copy = components.Route()
    copy.CopyFrom(route)
    copy.match.connect_matcher.SetInParent()
    return copy


def _refusal(why: str, cluster: str | None) -> tuple[str, Message]:
    """Name and action. Requests of gRPC get the status PERMISSION_DENIED: Envoy makes it of the code."""
    if cluster is not None:
        return f"AUDIT {why}", _passing(cluster)
    body = base_pb2.DataSource(inline_string=REFUSED_BODY)
    return f"DROPPED {why}", components.DirectResponseAction(status=REFUSED_CODE, body=body)


def _passing(cluster: str) -> Message:
    return components.RouteAction(
        cluster=cluster,
        timeout=seconds(0),
        idle_timeout=seconds(0),
        # A server may close a connection that it has kept while a request is on its way to it.
        retry_policy=components.RetryPolicy(retry_on="reset-before-request", num_retries=number(1)),
    )


def _change_headers(route: Message, changes: Iterable[Change]) -> None:
    """Once each, whichever rules ask for it."""
    for action, header, value in dict.fromkeys((it.action, it.header, it.value) for it in changes):
        if action is Mismatch.DELETE:
            route.request_headers_to_remove.append(header)
        elif action is not Mismatch.LOG:
            options = base_pb2.HeaderValueOption
            route.request_headers_to_add.append(
                options(
                    header=base_pb2.HeaderValue(key=header, value=value.replace("%", "%%")),
                    append_action=options.APPEND_IF_EXISTS_OR_ADD
                    if action is Mismatch.ADD
                    else options.OVERWRITE_IF_EXISTS_OR_ADD,
                )
            )
