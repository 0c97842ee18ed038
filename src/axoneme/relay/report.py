"""What a relay tells Prometheus of itself. Of the first family name and labels are Hubble's."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable

from axoneme.metrics.families import Counter, Family, Gauge
from axoneme.relay.pool import Pool, State
from axoneme.relay.services import Observer

_STATES = {
    State.NODE_CONNECTED: "READY",
    State.NODE_UNAVAILABLE: "TRANSIENT_FAILURE",
    State.UNKNOWN_NODE_STATE: "CONNECTING",
}


class Report:
    """Asked at each scrape."""

    def __init__(self, pool: Pool, observer: Observer) -> None:
        self._pool = pool
        self._observer = observer

    def __call__(self) -> Iterable[Family]:
        peers = Gauge(
            "hubble_relay_pool_peer_connection_status", "Nodes by the state of the connection.", ["status"]
        )
        states = Tally(node.state for node in self._pool.nodes.values())
        for state, name in _STATES.items():
            peers.set(states[state], name)
        counts = self._observer.counts
        calls = Gauge("axoneme_relay_calls", "Streams of flows and agent events that go on.")
        calls.set(counts.calls)
        passed = Counter("axoneme_relay_replies_total", "Flows and other replies that were passed on.")
        passed.add(by=counts.passed)
        unread = Counter(
            "axoneme_relay_unread_total", "Replies that were lost because a client did not read them in time."
        )
        unread.add(by=counts.unread)
        return peers, calls, passed, unread
