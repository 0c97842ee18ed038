"""Who talks to whom, added up from the record and from the flow table."""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np
import pytest

from axoneme.datapath.schema import Schema
from axoneme.flows.edgecounts import PATIENCE, Edge, EdgeCounts
from axoneme.flows.events import Vocabulary, record_dtype, stamp
from axoneme.flows.expiry import FlowTable
from axoneme.flows.flowlog import FlowLog
from axoneme.flows.names import End, Names
from axoneme.flows.requests import Requests
from axoneme.flows.servicenames import ServiceNames
from axoneme.flows.store import FlowStore
from axoneme.identity.prefixes import address_bytes

from .records import DROP, END, NEW, REPLY, packed

SCHEMA = Schema.load()
EVENT = SCHEMA.struct("event")
MEANING = Vocabulary.read(EVENT, SCHEMA.enums)
ESTABLISHED, CLOSED = 1, 3


class Node:
    """A record, names, and a clock that is set by hand."""

    def __init__(self, flows: int = 1024) -> None:
        self.now = 1
        self.names = Names(MEANING.reserved, MEANING.first_local)
        self.store = FlowStore(record_dtype(EVENT), flows, flows)
        log = FlowLog("node1", self.store, self.names, lambda _: (), ServiceNames(), Requests(), MEANING)
        table = FlowTable.read(SCHEMA.enums, [1] * 8)
        self.counts = EdgeCounts(log, table, lambda: self.now)
        self._time = count(1)
        for name, address in (("client", "10.0.0.1"), ("web", "10.0.0.2")):
            self.name(name, address)

    def name(self, name: str, address: str) -> None:
        self.names.put(name, [address_bytes(address)], End(namespace="shop", pod=name))

    def event(self, kind: int, **fields: Any) -> None:
        values = {
            "source": "10.0.0.1",
            "destination": "10.0.0.2",
            "source_port": 40000,
            "destination_port": 80,
            "protocol": 6,
            "kind": kind,
            "time": next(self._time),
        } | fields
        made = np.zeros(1, EVENT)
        for name, value in values.items():
            made[name] = packed(value) if isinstance(value, str) else value
        records = stamp(made, self.store.dtype, 0)
        self.names.resolve(records)
        (self.store.drops if kind == DROP else self.store.flows).append(records)

    def walk(self, *flows: dict[str, Any]) -> None:
        """Entries of connections from the client to the web."""
        keys = np.zeros(len(flows), SCHEMA.struct("flow_key"))
        keys["low"], keys["high"] = packed("10.0.0.1"), packed("10.0.0.2")
        keys["low_port"], keys["high_port"], keys["protocol"] = 40000, 80, 6
        entries = np.zeros(len(flows), SCHEMA.struct("flow"))
        entries["flags"], entries["state"] = SCHEMA.enum("flow_flag")["FLOW_FROM_LOW"], ESTABLISHED
        for entry, fields in zip(entries, flows, strict=True):
            for name, value in fields.items():
                if name in ("bytes", "retransmissions"):
                    entry["leg"][name] = value
                else:
                    entry[name] = value
        self.counts.walk(keys, entries)
        self.counts.walked()

    def edges(self) -> list[Edge]:
        return self.counts.report().edges


@pytest.fixture
def node() -> Node:
    made = Node()
    made.edges()
    return made


def test_what_begins_ends_and_is_dropped_is_counted_by_edge(node: Node) -> None:
    node.event(NEW)
    node.event(NEW, source_port=40001)
    node.event(END, bytes=(100, 2000), handshake=300, rtt=200, retransmissions=(1, 2))
    node.event(END, source_port=40001, bytes=(1, 2), handshake=500)
    node.event(DROP, packets=(1, 0), destination_port=81)
    first, second = sorted(node.edges(), key=lambda edge: edge.port)
    assert (first.source.pod, first.destination.pod, first.port, first.protocol) == ("client", "web", 80, 6)
    assert (first.opened, first.ended, first.dropped) == (2, 2, 0)
    assert (first.sent, first.received, first.sent_again, first.received_again) == (101, 2002, 1, 2)
    assert (first.rtt, first.rtts, first.handshake, first.handshakes) == (200, 1, 800, 2)
    assert (second.port, second.dropped, second.opened) == (81, 1, 0)


def test_nothing_is_counted_that_was_before_somebody_asked() -> None:
    node = Node()
    node.event(NEW)
    assert node.edges() == []
    node.event(NEW)
    assert [edge.opened for edge in node.edges()] == [1]


def test_a_dropped_reply_belongs_to_the_edge_of_its_question(node: Node) -> None:
    node.event(
        DROP,
        source="10.0.0.2",
        destination="10.0.0.1",
        source_port=80,
        destination_port=40000,
        flags=REPLY,
        packets=(1, 0),
    )
    (edge,) = node.edges()
    assert (edge.source.pod, edge.destination.pod, edge.port, edge.dropped) == ("client", "web", 80, 1)


def test_what_moves_in_open_connections_counts_and_goes_on_counting_when_they_end(node: Node) -> None:
    node.walk({"bytes": (10, 100), "rtt": 70}, {"bytes": (5, 5)}, {"state": CLOSED, "bytes": (9, 9)})
    (edge,) = node.edges()
    assert (edge.open, edge.sent, edge.received, edge.open_rtt, edge.open_rtts) == (2, 15, 105, 70, 1)
    node.event(END, bytes=(30, 300))
    node.walk({"bytes": (6, 6), "retransmissions": (3, 0)})
    (edge,) = node.edges()
    assert (edge.open, edge.ended, edge.sent, edge.received, edge.sent_again) == (1, 1, 36, 306, 3)
    node.walk()
    (edge,) = node.edges()
    assert (edge.open, edge.sent) == (0, 30)
    assert node.counts.report().walks == 3


def test_counting_stops_when_nobody_asks_and_begins_anew(node: Node) -> None:
    node.event(NEW)
    assert len(node.edges()) == 1
    node.now += PATIENCE
    assert not node.counts.wanted
    node.counts.catch_up()
    node.walk({"bytes": (1, 1)})
    assert node.edges() == []


def test_records_that_were_overwritten_are_told_of() -> None:
    node = Node(flows=4)
    node.edges()
    for _ in range(10):
        node.event(NEW)
    report = node.counts.report()
    assert (report.missed, [edge.opened for edge in report.edges]) == (6, [4])


def test_a_row_that_is_given_to_another_end_is_another_edge(node: Node) -> None:
    node.event(NEW)
    node.edges()
    node.names.forget("client")
    node.names.collect([])
    node.name("other", "10.0.0.3")
    node.event(NEW, source="10.0.0.3")
    assert sorted((edge.source.pod, edge.opened) for edge in node.edges()) == [("client", 1), ("other", 1)]


def test_memory_is_bounded() -> None:
    node = Node(flows=40000)
    node.edges()
    for port in range(9000):
        node.event(NEW, destination_port=port)
        if port % 1000 == 0:
            node.counts.catch_up()
    found = node.edges()
    assert len(found) <= 8192
    assert 8999 in {edge.port for edge in found}
