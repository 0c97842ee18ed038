"""Sessions of fetches: a request of one names only what has changed, and is about all that the session has.

Which topics that are is known for sessions that were begun on the same connection, under rules about topics.
For the others the broker's own answer is given, that it knows no such session: clients then begin a new one,
which names everything. What a session had once counts to its end: whether the broker has taken it out is not
certain.

Sources: KIP-227 (fetch), KIP-932 (share groups).
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

from axoneme.proxy.kafka.messages import Struct
from axoneme.proxy.kafka.requests import FETCH, SHARE_FETCH, Header, Topics

#: Topics of one session, sessions of one connection.
_MOST_TOPICS: Final = 10_000
_MOST: Final = 100
_INITIAL, _FINAL = 0, -1


class Sessions:
    """Those of one connection."""

    def __init__(self) -> None:
        self._known: dict[Hashable, Topics] = {}

    def clear(self) -> None:
        """Fetches have passed of which nobody knows what they are about."""
        self._known.clear()

    def of(self, header: Header, body: Struct, asked: Topics) -> Topics | None:
        """What a fetch is about that names ``asked``. None where its session is unknown."""
        number, epoch = _session(header, body)
        if epoch in (_INITIAL, _FINAL):
            return asked
        before = self._known.get(number)
        return before and Topics(before.names | asked.names, before.ids | asked.ids)

    def passed(self, header: Header, body: Struct, topics: Topics) -> None:
        """A fetch was permitted; it is about ``topics``."""
        number, epoch = _session(header, body)
        if epoch == _FINAL or (header.api_key == FETCH and epoch == _INITIAL):
            self._known.pop(number, None)
        else:
            self._keep(number, topics)

    def begun(self, number: int, topics: Topics) -> None:
        """The broker has answered a fetch with the number of a new session."""
        if number:
            self._keep(number, topics)

    def _keep(self, number: Hashable, topics: Topics) -> None:
        self._known[number] = topics
        if len(topics.names) + len(topics.ids) > _MOST_TOPICS:
            del self._known[number]
        elif len(self._known) > _MOST:
            del self._known[next(iter(self._known))]


def has_sessions(header: Header) -> bool:
    return header.api_key == SHARE_FETCH or (header.api_key == FETCH and header.version >= 7)


def begins(header: Header, body: Struct) -> bool:
    """Whether the answer to a fetch says which session it has begun."""
    return header.api_key == FETCH and body["SessionEpoch"] == _INITIAL


def _session(header: Header, body: Struct) -> tuple[Hashable, int]:
    if header.api_key == FETCH:
        return body["SessionId"], body["SessionEpoch"]
    return (body["GroupId"], body["MemberId"]), body["ShareSessionEpoch"]
