"""Records in bulk: all of them, once, also over the reader's restarts and the server's."""

from __future__ import annotations

import asyncio
import itertools

from axoneme.flows.flow import LostEvents
from axoneme.flows.flowfilter import FlowFilter
from axoneme.flows.flowlog import FlowLog
from axoneme.flows.recordsrequest import RecordsRequest
from axoneme.flows.requests import Requests
from axoneme.flows.servicenames import ServiceNames
from axoneme.flows.store import FlowStore
from axoneme.flows.transfer import Parcel, Unpacker
from axoneme.flowserver.bulk import Bulk
from axoneme.flowserver.observe import Bell, Reader
from unit.flows import records as made


class Node:
    """A flow server's memory with readers; ``ports`` tell flows apart."""

    def __init__(self, size: int = 64) -> None:
        self.store = FlowStore(made.DTYPE, size, size)
        log = FlowLog(
            "node1",
            self.store,
            made.some_names(),
            {}.get,
            ServiceNames(),
            Requests(),
            made.VOCABULARY,
        )
        self.bulk = Bulk(Reader(log, Bell(), lambda: (1_000_000, 1_000_000)))
        self._time = itertools.count(1)

    def flow(self, port: int) -> None:
        self.store.flows.append(made.records(made.event(source_port=port, time=next(self._time))))

    def drop(self, port: int) -> None:
        event = made.event(source_port=port, time=next(self._time), kind=made.DROP)
        self.store.drops.append(made.records(event))

    def read(self, request: RecordsRequest) -> list[Parcel]:
        async def collect() -> list[Parcel]:
            return [each async for each in self.bulk.records(request)]

        return asyncio.run(collect())


def ports(parcels: list[Parcel]) -> list[int]:
    unpacker = Unpacker()
    return [port for each in parcels for port in unpacker.unpack(each)["source_port"].tolist()]


def test_a_reader_goes_on_where_it_was() -> None:
    node = Node()
    node.flow(1)
    node.drop(2)
    first = node.read(RecordsRequest())
    assert ports(first) == [1, 2]
    node.flow(3)
    node.drop(4)
    assert ports(node.read(RecordsRequest(after=first[-1].position))) == [3, 4]


def test_whoever_has_got_only_the_layout_begins_anew() -> None:
    node = Node()
    node.flow(1)
    first = node.read(RecordsRequest())[0]
    assert ports(node.read(RecordsRequest(after=first.position))) == [1]


def test_another_memory_is_read_from_its_beginning() -> None:
    old, new = Node(), Node()
    for port in (1, 2, 3):
        old.flow(port)
    new.flow(4)
    position = old.read(RecordsRequest())[-1].position
    assert ports(new.read(RecordsRequest(after=position))) == [4]


def test_what_was_lost_on_the_way_while_nobody_read_is_told_once() -> None:
    node = Node()
    node.flow(1)
    losses = node.store.kernel_losses
    losses.flows = 2
    position = node.read(RecordsRequest())[-1].position
    losses.flows, losses.drops, node.store.requests_lost = 5, 1, 4
    parcels = node.read(RecordsRequest(after=position))
    assert [each for parcel in parcels for each in parcel.lost] == [
        LostEvents("PERF_EVENT_RING_BUFFER", "flows", 3),
        LostEvents("PERF_EVENT_RING_BUFFER", "drops", 1),
        LostEvents("OBSERVER_EVENTS_QUEUE", "requests", 4),
    ]
    assert not any(parcel.lost for parcel in node.read(RecordsRequest(after=parcels[-1].position)))


def test_what_was_overwritten_meanwhile_is_counted() -> None:
    node = Node(size=4)
    node.flow(1)
    position = node.read(RecordsRequest())[-1].position
    for port in range(2, 12):
        node.flow(port)
    found = node.read(RecordsRequest(after=position))
    assert ports(found) == [8, 9, 10, 11]
    assert [lost for each in found for lost in each.lost] == [LostEvents("HUBBLE_RING_BUFFER", "flows", 6)]


def test_filters_hold() -> None:
    node = Node()
    node.flow(1)
    node.drop(2)
    assert ports(node.read(RecordsRequest(filters=[FlowFilter(verdict=("DROPPED",))]))) == [2]
