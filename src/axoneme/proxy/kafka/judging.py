"""What becomes of a request: rules, the topics that it is about, and what is known of topics' ids.

Values in, a value out. What has to be found out first, the decision says.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from axoneme.proxy.kafka import refusals
from axoneme.proxy.kafka.messages import Struct
from axoneme.proxy.kafka.requests import FETCH, METADATA, Header, Topics
from axoneme.proxy.kafka.rules import Permission, Scope
from axoneme.proxy.kafka.sessions import Sessions, has_sessions

_NONE: Final = Topics()


class Names:
    """Names of a broker's topics, by their ids."""

    def __init__(self, most: int = 100_000) -> None:
        self._names: dict[bytes, str] = {}
        self._most = most

    def learn(self, number: bytes, name: str) -> None:
        if len(self._names) >= self._most:
            self._names.clear()
        self._names[number] = name

    def get(self, number: bytes) -> str | None:
        return self._names.get(number)

    def unknown(self, topics: Topics) -> frozenset[bytes]:
        return frozenset(number for number in topics.ids if number not in self._names)

    def of(self, topics: Topics) -> frozenset[str]:
        """The names of all topics whose names are known."""
        return topics.names | {self._names[number] for number in topics.ids if number in self._names}

    def shown(self, topics: Topics) -> tuple[str, ...]:
        """For people: ids where names are not known."""
        return (*sorted(self.of(topics)), *sorted(number.hex() for number in self.unknown(topics)))


@dataclass(frozen=True, slots=True)
class Decision:
    """``error`` 0: it passes. ``topics``: of a fetch that passes, all that its session is about."""

    error: int = 0
    reason: str = ""
    shown: tuple[str, ...] = ()  # the topics that a refusal is about
    topics: Topics = _NONE
    #: Nothing is decided until the broker was asked what topics these are.
    ask: frozenset[bytes] = frozenset()
    #: It passes, but for topics with these names and ids.
    without: frozenset[str | bytes] = frozenset()


def judge(
    header: Header,
    body: Struct,
    asked: Topics,
    allowed: Permission,
    names: Names,
    sessions: Sessions,
    vain: frozenset[bytes] = frozenset(),
) -> Decision:
    """``vain``: ids of which the broker has said just now that it has no such topics.

    ``body`` may be empty for a request that is no fetch and names one topic.
    """
    if allowed.scope is Scope.NOTHING:
        return Decision(refusals.code(header, body), "no rule allows this API")
    topics = asked
    if has_sessions(header):
        session = sessions.of(header, body, asked)
        if session is None:
            return Decision(_no_session(header), "its session was not begun under rules about topics")
        topics = session
    unknown = names.unknown(topics)
    if unknown - vain:
        return Decision(ask=unknown)
    missing = allowed.missing(names.of(topics))
    if header.api_key == METADATA and (missing or unknown):
        return Decision(reason=_reason(missing), shown=_shown(missing, unknown), without=missing | unknown)
    if missing and not missing & names.of(asked):
        return Decision(_no_session(header), f"{_reason(missing)} of its session", _shown(missing))
    if missing:
        return Decision(refusals.TOPIC_AUTHORIZATION_FAILED, _reason(missing), _shown(missing))
    if topics.unclear:
        return Decision(refusals.TOPIC_AUTHORIZATION_FAILED, "which topics it is about cannot be told")
    if unknown:
        return Decision(
            refusals.UNKNOWN_TOPIC_ID, "the broker has no topic with this id", _shown((), unknown)
        )
    return Decision(topics=topics)


def answer(header: Header, body: Struct, decision: Decision) -> bytes:
    """The response to a request that is refused."""
    if decision.error in (refusals.FETCH_SESSION_ID_NOT_FOUND, refusals.SHARE_SESSION_NOT_FOUND):
        return refusals.failure(header, decision.error)
    return refusals.refusal(header, body, decision.error)


def _no_session(header: Header) -> int:
    """Clients begin a new session then, by a request that names all its topics."""
    return (
        refusals.FETCH_SESSION_ID_NOT_FOUND if header.api_key == FETCH else refusals.SHARE_SESSION_NOT_FOUND
    )


def _reason(missing: Iterable[str]) -> str:
    names = sorted(missing)
    return (
        f"no rule allows topic {', '.join(names[:10])}" if names else "the broker has no topic with this id"
    )


def _shown(names: Iterable[str], ids: Iterable[bytes] = ()) -> tuple[str, ...]:
    return (*sorted(names), *sorted(number.hex() for number in ids))
