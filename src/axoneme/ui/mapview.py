"""One viewer's part of the service map: first the whole, then what has changed since."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from typing import Final

from axoneme.ui import api
from axoneme.ui.servicemap import RATE_OVER, Card, Edge, ServiceMap

_MOST_CARDS: Final = 500
_MOST_EDGES: Final = 2000


class MapView:
    """``window``: seconds for which an edge is shown after its last flow."""

    def __init__(self, map_: ServiceMap, namespaces: Collection[str], window: float) -> None:
        self._map = map_
        self._namespaces = frozenset(namespaces)
        self._window = window
        self._edges: dict[str, Edge] = {}
        self._cards: dict[str, Card] = {}
        self._version = 0
        self._not_shown = api.NotShown()

    def state(
        self, now: float, absent: Iterable[api.Absent], lost: int, over: float | None = None
    ) -> api.MapState:
        """``over``: seconds that all which is counted stands for; None: rates are those of now."""
        self._choose(now)
        self._version = self._map.version
        return api.MapState(
            revision=self._version,
            time=timestamp(now),
            window=self._window,
            rate_over=over or RATE_OVER,
            cards=[card.shown(now, over) for card in self._cards.values()],
            edges=[edge.shown(now, over) for edge in self._edges.values()],
            not_shown=self._not_shown,
            absent=list(absent),
            lost=lost,
        )

    def delta(self, now: float, absent: Iterable[api.Absent], lost: int) -> api.MapDelta:
        before, known, since = self._edges, self._cards, self._version
        self._choose(now)
        self._version = self._map.version
        return api.MapDelta(
            revision=self._version,
            time=timestamp(now),
            cards=[
                c.shown(now, None) for c in self._cards.values() if c.version > since or c.id not in known
            ],
            edges=[
                e.shown(now, None) for e in self._edges.values() if e.version > since or e.id not in before
            ],
            gone_cards=[key for key in known if key not in self._cards],
            gone_edges=[key for key in before if key not in self._edges],
            not_shown=self._not_shown,
            absent=list(absent),
            lost=lost,
        )

    def _choose(self, now: float) -> None:
        """What is shown stays while it is within the window; where there is room, the latest others come."""
        chosen: dict[str, Edge] = {}
        cards: dict[str, Card] = {}
        others: list[Edge] = []
        for edge in self._map.recent(self._namespaces, now - self._window):
            if edge.id in self._edges:
                _take(edge, chosen, cards)
            else:
                others.append(edge)
        missed: set[str] = set()
        left_away = 0
        for edge in others:
            ends = {edge.source.id, edge.destination.id}
            if len(chosen) < _MOST_EDGES and len(cards.keys() | ends) <= _MOST_CARDS:
                _take(edge, chosen, cards)
            else:
                left_away += 1
                missed |= ends
        self._not_shown = api.NotShown(cards=len(missed - cards.keys()), edges=left_away)
        self._edges, self._cards = chosen, cards


def _take(edge: Edge, edges: dict[str, Edge], cards: dict[str, Card]) -> None:
    edges[edge.id] = edge
    for card in (edge.source, edge.destination):
        cards[card.id] = card


def timestamp(seconds: float) -> str:
    """RFC 3339."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
