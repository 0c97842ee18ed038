"""What rules above L4 say: HTTP, Kafka and DNS requests, and the TLS around them.

An `L7` is what one entry of ``toPorts`` asks for, or the union of several of one kind that hold for the same
traffic. Rules of a kind are or-ed, the fields of one rule are and-ed; an empty field matches everything. A
kind without a rule lets nothing pass; with a rule that is empty it lets all pass, through the proxy.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class L7Kind(enum.Enum):
    """Which proxy understands it. ``TLS`` looks at server names only, and passes the rest on unread;
    ``LISTENER`` does what somebody has told Envoy to do."""

    HTTP = "http"
    KAFKA = "kafka"
    DNS = "dns"
    TLS = "tls"
    LISTENER = "listener"


class Mismatch(enum.Enum):
    """What becomes of a request whose header has another value, or none."""

    DENY = "DENY"  # the rule does not match; the default
    LOG = "LOG"  # it matches, and the flow says so
    ADD = "ADD"  # it matches, and the value is added
    DELETE = "DELETE"  # it matches, and headers with other values are taken away
    REPLACE = "REPLACE"  # it matches, and the header gets the value


@dataclass(frozen=True, slots=True, order=True)
class SecretRef:
    """A Secret, by its object's namespace and name."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True, order=True)
class HeaderMatch:
    """A header by its lower-case name. Without value, pattern and secret it has to be there.

    ``pattern`` is a regular expression (RE2) for the whole value; ``secret`` holds the value as its only key.
    """

    name: str
    value: str = ""
    pattern: str = ""
    secret: SecretRef | None = None
    mismatch: Mismatch = Mismatch.DENY

    def sort_key(self) -> tuple[str, ...]:
        secret = self.secret or SecretRef("", "")
        return self.name, self.value, self.pattern, secret.namespace, secret.name, self.mismatch.value


@dataclass(frozen=True, slots=True)
class HTTPRule:
    """Regular expressions (RE2), each for the whole of its part; ``path`` includes the query."""

    method: str = ""
    path: str = ""
    host: str = ""
    headers: tuple[HeaderMatch, ...] = ()


@dataclass(frozen=True, slots=True)
class KafkaRule:
    """``api_keys``: any of these numbers; none: all. A request's topics must each be allowed by some rule."""

    api_keys: tuple[int, ...] = ()
    api_version: int | None = None
    client_id: str = ""
    topic: str = ""


@dataclass(frozen=True, slots=True, order=True)
class NameMatch:
    """DNS names, in lower case without the trailing dot: one, or those that a pattern matches (POLICY.md)."""

    text: str
    pattern: bool = False


@dataclass(frozen=True, slots=True, order=True)
class TLSContext:
    """A Secret with the parts of TLS; the last three name its keys."""

    secret: SecretRef
    trusted_ca: str = "ca.crt"
    certificate: str = "tls.crt"
    private_key: str = "tls.key"


#: Of a listener for which none is said; those that may be said are less.
LAST_PRIORITY = 101


@dataclass(frozen=True, slots=True, order=True)
class ListenerRef:
    """A listener of a CiliumEnvoyConfig (or, without namespace, a CiliumClusterwideEnvoyConfig). Of several
    for the same traffic the one with the least ``priority`` has it."""

    namespace: str
    name: str
    listener: str
    priority: int = LAST_PRIORITY


@dataclass(frozen=True, slots=True)
class L7:
    """Of ``http``, ``kafka`` and ``dns`` the one that ``kind`` says holds.

    ``server_names``: names for SNI, any of which may be asked for; none: TLS is not looked at.
    """

    kind: L7Kind
    http: tuple[HTTPRule, ...] = ()
    kafka: tuple[KafkaRule, ...] = ()
    dns: tuple[NameMatch, ...] = ()
    server_names: tuple[str, ...] = ()
    terminating: TLSContext | None = None
    originating: TLSContext | None = None
    listener: ListenerRef | None = None  # of ``LISTENER``

    @property
    def rules(self) -> tuple[HTTPRule, ...] | tuple[KafkaRule, ...] | tuple[NameMatch, ...]:
        return self.http or self.kafka or self.dns
