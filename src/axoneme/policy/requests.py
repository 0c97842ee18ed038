"""What rules above L4 say of a request that nobody has sent: which rule lets it pass, or which comes nearest.

The proxies decide for real; this is for people who ask. A part of the request that is not given is empty, as
it would be on the wire.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from axoneme.model import names
from axoneme.model.kafkaapis import ALWAYS, API_KEYS, number_of
from axoneme.model.l7 import L7, HeaderMatch, HTTPRule, KafkaRule, L7Kind, Mismatch, NameMatch
from axoneme.model.regexes import matches

_API_NAMES = {number: name for name, number in API_KEYS.items()}


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """As much of a request as is known; of the kinds of protocols those parts that they have. ``name`` is a
    DNS name that is asked for, ``server_name`` that of a TLS client."""

    method: str = ""
    path: str = ""
    host: str = ""
    headers: dict[str, str] = {}
    topic: str = ""
    api_key: str = ""
    client_id: str = ""
    name: str = ""
    server_name: str = ""


@dataclass(frozen=True, slots=True)
class Said:
    """``rule`` is the one that lets it pass; else the nearest, with what of it the request does not meet."""

    allowed: bool
    rule: str
    unmet: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.allowed:
            return f"lets it pass by {self.rule}"
        if not self.rule:
            return "lets nothing pass"
        return f"refuses it; nearest is {self.rule}, but for {' and '.join(self.unmet)}"


def judge(rules: L7, request: Request) -> Said:
    """What a proxy that is held to ``rules`` makes of a request."""
    named = any(server_name_matches(each, request.server_name) for each in rules.server_names)
    if rules.server_names and not named:
        wanted = " or ".join(rules.server_names)
        return Said(False, f"TLS for {wanted}", (_lack("server name", wanted, request.server_name),))
    if rules.listener is not None:
        return Said(True, f"what listener {rules.listener.listener} of {rules.listener.name} makes of it")
    if rules.kind is L7Kind.TLS:
        return Said(True, f"TLS for {' or '.join(rules.server_names)}")
    if rules.kind is L7Kind.KAFKA and _api_number(request) in ALWAYS:
        return Said(True, "what every client may ask for")
    found: list[Said] = []
    for rule in rules.rules:
        unmet = tuple(_unmet(rule, request))
        found.append(Said(not unmet, rule_text(rule), unmet))
    return min(found, key=lambda said: len(said.unmet), default=Said(False, ""))


def texts(rules: L7) -> list[str]:
    """Each rule in words."""
    around = [f"TLS for {' or '.join(rules.server_names)}"] if rules.server_names else []
    return around + [rule_text(rule) for rule in rules.rules]


def rule_text(rule: HTTPRule | KafkaRule | NameMatch) -> str:
    match rule:
        case HTTPRule():
            words = [word for word in (rule.method, rule.path) if word]
            words += [f"at {rule.host}"] if rule.host else []
            words += [f"with {_header_text(header)}" for header in rule.headers]
            return " ".join(words) or "every request"
        case KafkaRule():
            keys = [_API_NAMES.get(key, str(key)) for key in rule.api_keys]
            words = [", ".join(keys) or "every request"]
            words += [f"version {rule.api_version}"] if rule.api_version is not None else []
            words += [f"of client {rule.client_id}"] if rule.client_id else []
            words += [f"for topic {rule.topic}"] if rule.topic else []
            return " ".join(words)
        case NameMatch():
            return f"names like {rule.text}" if rule.pattern else f"the name {rule.text}"


def server_name_matches(pattern: str, name: str) -> bool:
    """``*.`` in front stands for one part, ``**.`` for one or more."""
    name = name.lower().removesuffix(".")
    if pattern.startswith("**."):
        return name.endswith(pattern[2:]) and len(name) > len(pattern) - 2
    if pattern.startswith("*."):
        first, dot, rest = name.partition(".")
        return bool(first and dot) and rest == pattern[2:]
    return name == pattern


# ---- what is not met ---------------------------------------------------------------------------


def _unmet(rule: HTTPRule | KafkaRule | NameMatch, request: Request) -> Iterator[str]:
    match rule:
        case HTTPRule():
            for part, wants, has in (
                ("method", rule.method, request.method),
                ("path", rule.path, request.path),
                ("host", rule.host, request.host),
            ):
                if wants and not matches(wants, has):
                    yield _lack(part, wants, has)
            headers = {name.lower(): value for name, value in request.headers.items()}
            for header in rule.headers:
                if header.mismatch is Mismatch.DENY and not _has(header, headers.get(header.name)):
                    yield _lack("header", _header_text(header), headers.get(header.name, ""))
        case KafkaRule():
            if rule.api_keys and _api_number(request) not in rule.api_keys:
                wanted = ", ".join(_API_NAMES.get(key, str(key)) for key in rule.api_keys)
                yield _lack("API key", wanted, request.api_key.lower())
            # A request without topics is not asked for any.
            if rule.topic and request.topic and rule.topic != request.topic:
                yield _lack("topic", rule.topic, request.topic)
            if rule.client_id and rule.client_id != request.client_id:
                yield _lack("client's name", rule.client_id, request.client_id)
        case NameMatch():
            if not names.matches(rule, names.canonical(request.name)):
                yield _lack("name", rule.text, request.name)


def _api_number(request: Request) -> int:
    """-1 for none that is known."""
    key = request.api_key.lower()
    known = number_of(key)
    return known if known is not None else int(key) if key.isascii() and key.isdigit() else -1


def _has(header: HeaderMatch, value: str | None) -> bool:
    if value is None:
        return False
    if header.pattern:
        return matches(header.pattern, value)
    # What a Secret holds only the proxy knows.
    return not header.value or header.value == value


def _header_text(header: HeaderMatch) -> str:
    if header.secret:
        return f"{header.name} as in Secret {header.secret.namespace}/{header.secret.name}"
    if header.pattern:
        return f"{header.name} like {header.pattern}"
    return f"{header.name}: {header.value}" if header.value else header.name


def _lack(part: str, wants: str, has: str) -> str:
    return f"the {part} (it wants {wants}, this has {has or 'none'})"
