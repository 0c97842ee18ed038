"""What hangs on an entry of ``toPorts``: rules for HTTP, Kafka and DNS, server names, TLS.

An entry has one kind of rules at most; an empty list of them asks for nothing. What is neither said nor
implied there is refused: a rule that a proxy cannot hold to must not be taken for one that it does.

Beyond the API: ``valuePattern`` in ``headerMatches``, a regular expression for the whole of a header's value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from axoneme.model import checks
from axoneme.model.envoyconfig import CLUSTERWIDE, KINDS, NAMESPACED
from axoneme.model.kafkaapis import API_KEYS, ROLES
from axoneme.model.l7 import (
    L7,
    LAST_PRIORITY,
    HeaderMatch,
    HTTPRule,
    KafkaRule,
    L7Kind,
    ListenerRef,
    Mismatch,
    NameMatch,
    SecretRef,
    TLSContext,
)
from axoneme.model.names import parse_name_match
from axoneme.model.paths import Fields, Place
from axoneme.model.policy import Direction
from axoneme.model.regexes import regex

_T = TypeVar("_T")

#: The fields of an entry that are read here.
FIELDS = ("rules", "serverNames", "terminatingTLS", "originatingTLS", "listener")

_KINDS = ("http", "kafka", "dns", "l7")
_MISMATCHES = tuple(each.value for each in Mismatch if each is not Mismatch.DENY)
#: RFC 9110, section 5.1. The pseudo-headers of HTTP/2, such as ``:path``, have fields of their own in a rule.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_TOPIC = re.compile(r"[a-zA-Z0-9._-]+\Z")
_LONGEST_TOPIC = 255
_SERVER_NAME = re.compile(
    r"(\*{1,2}\.)?[a-z0-9_]([-a-z0-9_]*[a-z0-9_])?(\.[a-z0-9_]([-a-z0-9_]*[a-z0-9_])?)*\Z"
)


@dataclass(frozen=True, slots=True)
class Rules:
    """Of the three lists at most one has items."""

    http: tuple[HTTPRule, ...] = ()
    kafka: tuple[KafkaRule, ...] = ()
    dns: tuple[NameMatch, ...] = ()


def parse_l7(fields: Fields, direction: Direction, deny: bool, namespace: str | None) -> L7 | None:
    """What stands above the ports of an entry; None: nothing.

    ``namespace`` is that of Secrets which name none.
    """
    stated = {name: place for name in FIELDS if (place := fields.stated(name)) is not None}
    if deny:
        for place in stated.values():
            place.refuse("deny rules act on peers and ports only")
    if listener := stated.get("listener"):
        if direction is Direction.INGRESS:
            listener.refuse("a listener is for egress")
        for name, place in stated.items():
            if name != "listener":
                place.refuse("a listener does what its configuration says: nothing else belongs beside it")
        return L7(L7Kind.LISTENER, listener=_listener(listener, namespace))
    rules = _rules(stated["rules"], direction, namespace) if "rules" in stated else Rules()
    names = _server_names(stated["serverNames"]) if "serverNames" in stated else ()
    terminating, originating = (
        _tls(stated[name], namespace) if name in stated else None
        for name in ("terminatingTLS", "originatingTLS")
    )
    for name in ("terminatingTLS", "originatingTLS"):
        if name in stated and not rules.http:
            stated[name].refuse("TLS is opened for rules.http, which belong beside it")
    if names and rules != Rules() and terminating is None:
        stated["serverNames"].refuse(
            "with rules, server names need terminatingTLS beside them: inside TLS nothing else can be read"
        )
    for kind, items in ((L7Kind.HTTP, rules.http), (L7Kind.KAFKA, rules.kafka), (L7Kind.DNS, rules.dns)):
        if items:
            return L7(kind, rules.http, rules.kafka, rules.dns, names, terminating, originating)
    return L7(L7Kind.TLS, server_names=names) if names else None


def _listener(place: Place, namespace: str | None) -> ListenerRef:
    fields = place.fields(("envoyConfig", "name", "priority"))
    config = fields.need("envoyConfig").fields(("kind", "name"))
    kind = config.one_of("kind", KINDS, NAMESPACED if namespace else CLUSTERWIDE)
    if kind == NAMESPACED and not namespace:
        config.place("kind").refuse(f"a policy without namespace names a {CLUSTERWIDE}")
    return ListenerRef(
        (namespace or "") if kind == NAMESPACED else "",
        config.need("name").name(),
        fields.need("name").name(),
        fields.number("priority", LAST_PRIORITY, 1, LAST_PRIORITY - 1),
    )


def _rules(place: Place, direction: Direction, namespace: str | None) -> Rules:
    fields = place.fields((*_KINDS, "l7proto"))
    present = [(name, member) for name in _KINDS if (member := fields.stated(name)) is not None]
    if len(present) > 1:
        present[1][1].refuse(f"a port has one kind of L7 rules: it has {present[0][0]} already")
    proto = fields.stated("l7proto")
    if proto is not None and proto.value != "":
        proto.refuse("L7 rules of other protocols are not supported yet: the rule could not be enforced")
    for name, member in present:
        items = member.items()
        if name == "l7":
            member.refuse("L7 rules of other protocols are not supported yet: the rule could not be enforced")
        if name == "dns" and items:
            if direction is Direction.INGRESS:
                member.refuse("DNS rules are for egress")
            return Rules(dns=_distinct(map(parse_name_match, items)))
        if name == "kafka" and items:
            return Rules(kafka=_distinct(map(_kafka, items)))
        if items:
            return Rules(http=_distinct(_http(item, namespace) for item in items))
    return Rules()


# ---- HTTP --------------------------------------------------------------------------------------


def _http(place: Place, namespace: str | None) -> HTTPRule:
    fields = place.fields(("method", "path", "host", "headers", "headerMatches"))
    method, path, host = (
        regex(each) if (each := fields.stated(name)) is not None else ""
        for name in ("method", "path", "host")
    )
    headers = [_header(item) for item in fields.stated_items("headers")]
    headers += [_header_match(item, namespace) for item in fields.stated_items("headerMatches")]
    return HTTPRule(method, path, host, tuple(sorted(set(headers), key=HeaderMatch.sort_key)))


def _header(place: Place) -> HeaderMatch:
    """``Name: value`` or ``Name``, parted by the first space."""
    text = place.name()
    name, space, value = text.partition(" ")
    right = 'a header belongs here, as "Name: value", or as "Name" when it only has to be there'
    if space and not value.strip():
        place.refuse(right)
    return HeaderMatch(_header_name(place, name.removesuffix(":") if space else name, right), value)


def _header_match(place: Place, namespace: str | None) -> HeaderMatch:
    fields = place.fields(("name", "value", "valuePattern", "secret", "mismatch"))
    stated = fields.need("name")
    name = _header_name(stated, stated.name(), "the name of a header belongs here")
    value, pattern, referred = fields.text("value"), fields.get("valuePattern"), fields.get("secret")
    secret = _secret(referred, namespace) if referred else None
    expression = regex(pattern) if pattern else ""
    if pattern and (value or secret):
        pattern.refuse("either valuePattern, or value and secret")
    mismatch = Mismatch.DENY
    if (said := fields.get("mismatch")) is not None and said.value != "":
        mismatch = Mismatch(said.one_of(_MISMATCHES))
        if mismatch is not Mismatch.LOG and not (value or secret):
            said.refuse(f"{mismatch.value} needs the value that the header is to have: value, or secret")
    return HeaderMatch(name, value, expression, secret, mismatch)


def _header_name(place: Place, name: str, right: str) -> str:
    if not _HEADER_NAME.match(name):
        place.refuse(right)
    return name.lower()


# ---- Kafka -------------------------------------------------------------------------------------


def _kafka(place: Place) -> KafkaRule:
    fields = place.fields(("role", "apiKey", "apiVersion", "clientID", "topic"))
    role, key = fields.get("role"), fields.get("apiKey")
    keys: tuple[int, ...] = ()
    if role is not None and role.value != "":
        if key is not None and key.value != "":
            key.refuse("either role or apiKey")
        keys = ROLES[Place(_lower(role.value), role.path).one_of(ROLES)]
    elif key is not None and key.value != "":
        keys = (API_KEYS[Place(_lower(key.value), key.path).one_of(API_KEYS)],)
    topic = fields.get("topic")
    name = topic.text() if topic else ""
    if topic and name and (len(name) > _LONGEST_TOPIC or not _TOPIC.match(name)):
        topic.refuse(f"a topic has at most {_LONGEST_TOPIC} letters, digits, '.', '_' and '-'")
    return KafkaRule(keys, _api_version(fields), fields.text("clientID"), name)


def _api_version(fields: Fields) -> int | None:
    place = fields.get("apiVersion")
    if place is None or place.value == "":
        return None
    text = place.text()
    if not text.isascii() or not text.isdigit() or len(text) > 5 or int(text) > 32767:
        place.refuse('a version from "0" to "32767" belongs here')
    return int(text)


def _distinct(items: Iterable[_T]) -> tuple[_T, ...]:
    return tuple(dict.fromkeys(items))


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


# ---- TLS ---------------------------------------------------------------------------------------


def _server_names(place: Place) -> tuple[str, ...]:
    items = place.items()
    if not items:
        place.refuse("at least one name belongs here: leave the field away to look at none")
    return tuple(sorted(set(map(_server_name, items))))


def _server_name(place: Place) -> str:
    name = place.name().lower().removesuffix(".")
    if len(name) > 255 or not _SERVER_NAME.match(name):
        place.refuse(
            "a server's name belongs here; in front *. stands for one part, **. for one or more, and nowhere "
            "else does * stand"
        )
    return name


def _tls(place: Place, namespace: str | None) -> TLSContext:
    fields = place.fields(("secret", "trustedCA", "certificate", "privateKey"))
    secret = _secret(fields.need("secret", "the Secret with the certificates belongs here"), namespace)
    default = TLSContext(secret)
    return TLSContext(
        secret,
        fields.text("trustedCA") or default.trusted_ca,
        fields.text("certificate") or default.certificate,
        fields.text("privateKey") or default.private_key,
    )


def _secret(place: Place, namespace: str | None) -> SecretRef:
    fields = place.fields(("namespace", "name"))
    stated = fields.place("namespace")
    if stated.value not in (None, ""):
        namespace = checks.dns_label(stated)
    elif namespace is None:
        stated.refuse("a cluster-wide policy has to say in which namespace the Secret is", "nothing")
    return SecretRef(namespace, checks.dns_subdomain(fields.need("name")))
