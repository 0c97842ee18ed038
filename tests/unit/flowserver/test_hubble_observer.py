"""GetFlows and its companions, by the client over a socket, from a record that grows meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from axoneme.flows.agentevents import EventReader, EventWriter
from axoneme.flows.events import Records
from axoneme.flows.status import Status
from axoneme.flowserver.hubbleevents import AgentEvents
from axoneme.flowserver.hubbleobserver import HubbleObserver
from axoneme.flowserver.observe import Bell, Reader, Span
from axoneme.hubble.address import Address
from axoneme.hubble.client import Client, HubbleError, connect
from axoneme.hubble.nodes import Nodes
from axoneme.hubble.peers import Peers
from axoneme.hubble.schema import message
from axoneme.hubble.serving import Server
from axoneme.model.regexes import finder
from axoneme.model.state import NODES, NodeState, encode
from unit.hubble import logs

REQUEST = message("observer.GetFlowsRequest")
EVENTS = message("observer.GetAgentEventsRequest")
SECOND = 1_000_000_000
#: What a record's monotonic time is before its wall clock.
OFFSET = 1_700_000_000_123_456_789


class Node:
    """A node's record behind Hubble's API. It is ``now`` s since the node has started."""

    def __init__(self, folder: Path, room: int = 64) -> None:
        self.log = logs.log(room)
        self._made: dict[tuple[int, int], Records] = {}
        self.bell = Bell()
        self.now = 1000
        reader = Reader(self.log, self.bell, lambda: (self.now * SECOND, self.now * SECOND + OFFSET))
        self.reader = reader
        self.writer = EventWriter(folder / "events.jsonl", lambda: self.now * SECOND + OFFSET)
        events = AgentEvents(
            EventReader(folder / "events.jsonl"), lambda: "prod/n1", lambda: self.now * SECOND + OFFSET
        )
        observer = HubbleObserver(
            reader,
            lambda: logs.SITE,
            self._status,
            lambda: self.now * SECOND + OFFSET,
            lambda: {"address": "a"},
        )
        self.nodes = Nodes()
        peers = Peers(self.nodes, "prod", 4244, True)
        self.server = Server([observer.service(events.events), peers.service()], "hubble-server-version")

    async def _status(self) -> Status:
        stored = len(self.log.store.flows) + len(self.log.store.drops)
        return Status("n1", stored, 128, 7, 9, 1.5, True, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 5)

    def add(self, count: int, at: int, seed: int = 1) -> Records:
        """So many flows, one each second from ``at`` on."""
        if (seed, count) not in self._made:
            self._made[seed, count] = logs.flows(self.log, seed, count)
        records = self._made[seed, count].copy()
        records["time"] = (at + np.arange(count)) * SECOND
        records["wall"] = records["time"].astype(np.int64) + OFFSET
        drops = records["kind"] == self.log.vocabulary.drop
        self.log.store.flows.append(records[~drops])
        self.log.store.drops.append(records[drops])
        self.bell.ring()
        return records


def stamp(second: int) -> dict[str, int]:
    wall = second * SECOND + OFFSET
    return {"seconds": wall // SECOND, "nanos": wall % SECOND}


@contextlib.asynccontextmanager
async def serving(node: Node, folder: Path) -> AsyncIterator[Address]:
    ready = asyncio.Event()
    address = Address(path=folder / "hubble.sock")
    task = asyncio.create_task(node.server.serve(address, ready=lambda _: ready.set()))
    await ready.wait()
    try:
        yield address
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


async def seconds(client: Client, **request: Any) -> list[int]:
    """When the flows were that are sent."""
    return [
        (response.flow.time.ToNanoseconds() - OFFSET) // SECOND
        async for response in client.flows(REQUEST(**request))
    ]


#: Of flows at the seconds 100 to 139; all of them fit.
SPANS: list[tuple[dict[str, Any], range]] = [
    ({}, range(100, 140)),
    ({"number": 3}, range(137, 140)),
    ({"number": 3, "first": True}, range(100, 103)),
    ({"first": True}, range(100, 140)),
    ({"since": stamp(120)}, range(120, 140)),
    ({"since": stamp(120), "number": 5}, range(120, 125)),
    ({"since": stamp(120), "until": stamp(130)}, range(120, 131)),
    ({"until": stamp(104)}, range(100, 105)),
    ({"until": stamp(110), "number": 4, "first": True}, range(100, 104)),
    ({"until": stamp(110), "number": 4}, range(0)),  # Hubble counts from the present
    ({"number": 1000}, range(100, 140)),
    ({"since": stamp(500)}, range(0)),
]


@pytest.mark.parametrize(("request_", "expected"), SPANS, ids=str)
async def test_which_part_of_the_record(
    node: Node, tmp_path: Path, request_: dict[str, Any], expected: range
) -> None:
    node.add(40, 100)
    async with serving(node, tmp_path) as address, connect(address) as client:
        assert await seconds(client, **request_) == list(expected)


async def test_to_follow_begins_with_the_present_or_the_last_few(node: Node, tmp_path: Path) -> None:
    node.add(10, 100)
    async with serving(node, tmp_path) as address, connect(address) as client:
        now, some = client.flows(REQUEST(follow=True)), client.flows(REQUEST(follow=True, number=2))
        assert [(await anext(some)).flow.time.ToNanoseconds() // SECOND for _ in range(2)]
        first = asyncio.create_task(anext(now))
        while node.reader.readers < 2:
            await asyncio.sleep(0.01)
        node.add(5, 200)
        assert (await first).flow.time.ToNanoseconds() == 200 * SECOND + OFFSET
        for _ in range(4):
            await anext(now)
        for _ in range(5):
            await anext(some)
        await now.aclose()
        await some.aclose()


async def test_fifty_follow_and_each_gets_all_though_one_is_stuck(tmp_path: Path) -> None:
    node, rounds, each = Node(tmp_path, room=1024), 8, 30

    async def follow(address: Address) -> list[str]:
        async with connect(address) as client:
            stream = client.flows(REQUEST(follow=True, field_mask={"paths": ["uuid"]}))
            found = [(await anext(stream)).flow.uuid for _ in range(rounds * each)]
            await stream.aclose()
            return found

    async with serving(node, tmp_path) as address, connect(address) as other:
        stuck = other.flows(REQUEST(follow=True))
        waiting = asyncio.create_task(anext(stuck))
        followers = [asyncio.create_task(follow(address)) for _ in range(50)]
        while node.reader.readers < 51:
            await asyncio.sleep(0.01)
        for number in range(rounds):
            node.add(each, 1000 + number * each, seed=number)
            await asyncio.sleep(0)
        found = await asyncio.wait_for(asyncio.gather(*followers), 60)
        assert all(uuids == found[0] for uuids in found)
        assert len(set(found[0])) == rounds * each
        await waiting
        await stuck.aclose()


async def test_who_asks_for_everything_and_reads_nothing_loses_it_and_is_told(tmp_path: Path) -> None:
    node = Node(tmp_path)
    async with serving(node, tmp_path) as address, connect(address) as client:
        greedy = client.flows(REQUEST(follow=True))
        waiting = asyncio.create_task(anext(greedy))
        while not node.reader.readers:
            await asyncio.sleep(0.01)
        node.add(64, 2000)
        await waiting
        sent = 64
        while (await client.status()).num_flows and sent < 20_000:  # more than all buffers on the way hold
            node.add(64, 2000 + sent)
            sent += 64
        got, lost = 1, 0
        while got + lost < sent:
            response = await asyncio.wait_for(anext(greedy), 10)
            got += response.HasField("flow")
            lost += response.lost_events.num_events_lost
        assert lost > 0
        assert got + lost == sent
        await greedy.aclose()


async def test_what_is_wrong_is_refused(node: Node, tmp_path: Path) -> None:
    async with serving(node, tmp_path) as address, connect(address) as client:
        for request, why in (
            ({"first": True, "follow": True}, "first cannot be specified with follow"),
            ({"field_mask": {"paths": ["nothing"]}}, "'nothing' is no field"),
            ({"whitelist": [{"source_ip": ["x"]}]}, "an IP address or prefix"),
            ({"since": {"seconds": 1, "nanos": -1}}, "is no time"),
        ):
            with pytest.raises(HubbleError, match=why) as error:
                await seconds(client, **request)
            assert error.value.code == "INVALID_ARGUMENT"


async def test_what_it_says_of_itself(node: Node, tmp_path: Path) -> None:
    node.add(40, 990)
    async with serving(node, tmp_path) as address, connect(address) as client:
        status = await client.status()
        assert (status.num_flows, status.max_flows, status.version) == (40, 128, "9.9.9")
        (one,) = (await client.nodes()).nodes
        assert (one.name, one.state, one.address) == ("prod/n1", 1, "a")
        spaces = (await client.namespaces()).namespaces
        assert [(each.cluster, each.namespace) for each in spaces] == [("prod", "data"), ("prod", "shop")]
        node.now += 5000
        assert not (await client.namespaces()).namespaces


async def test_peers_are_told_of_and_of_what_changes(node: Node, tmp_path: Path) -> None:
    def put(name: str, *addresses: str) -> None:
        node.nodes.apply(NODES + name, encode(NodeState(name, internal_addresses=list(addresses))))

    put("n1", "10.0.0.1", "fd00::1")
    async with serving(node, tmp_path) as address, connect(address) as client:
        peers = client.peers()
        one = await anext(peers)
        assert (one.name, one.address, one.type) == ("prod/n1", "10.0.0.1:4244", 1)
        assert one.tls.server_name == "n1.prod.hubble-grpc.cilium.io"
        put("n2", "fd00::2")
        two = await anext(peers)
        assert (two.name, two.address, two.type) == ("prod/n2", "[fd00::2]:4244", 1)
        put("n1", "10.0.0.9")
        assert (await anext(peers)).type == 3
        node.nodes.apply(NODES + "n2", None)
        gone = await anext(peers)
        assert (gone.name, gone.type) == ("prod/n2", 2)
        await peers.aclose()


async def test_what_the_agent_does(node: Node, tmp_path: Path) -> None:
    node.writer.started()
    node.writer.policy("NetworkPolicy", "shop", "web", 1)
    async with serving(node, tmp_path) as address, connect(address) as client:
        told = [each.agent_event.type async for each in client.agent_events(EVENTS(number=5))]
        assert told == [2, 3]
        assert [each.agent_event.type async for each in client.agent_events(EVENTS(number=1))] == [3]
        first = EVENTS(number=1, first=True)
        assert [each.agent_event.type async for each in client.agent_events(first)] == [2]
        following = client.agent_events(EVENTS(follow=True, number=1))
        assert (await anext(following)).agent_event.policy_update.rule_count == 1
        node.writer.endpoint(3, "shop", "web-1", ["k8s:app=web"], True)
        event = await anext(following)
        assert (event.node_name, event.agent_event.type) == ("prod/n1", 8)
        assert event.agent_event.endpoint_update.pod_name == "web-1"
        await following.aclose()


async def test_others_get_their_turn_while_the_last_few_are_looked_for(tmp_path: Path) -> None:
    node, looks = Node(tmp_path, room=3 * 4096), 0
    for number in range(0, 4 * 4096, 512):
        node.add(512, at=number)
    kept = len(node.log.store.flows)

    def nothing(records: Records) -> Any:
        nonlocal looks
        looks += 1
        assert looks == turns + 1
        return np.zeros(len(records), np.bool_)

    turns = 0
    pages = asyncio.ensure_future(anext(node.reader.pages(Span(last=5), nothing), None))
    while not pages.done():
        await asyncio.sleep(0)
        if looks > turns:
            turns = looks
            if turns == 1:  # what is overwritten meanwhile is passed over
                node.add(512, at=5 * 4096)
    assert pages.result() is None and looks >= kept // 4096


def test_many_expressions_cost_what_one_does() -> None:
    urls = [f"/never{number}/[a-z]+$" for number in range(900)]
    find = finder([*urls, "api$"])
    assert find("http://web/api") and not find("http://web/apis") and not find("/never7/A")
    with pytest.raises(ValueError, match="large"):
        finder([f"{number}[^a]{{900}}" for number in range(900)])


async def test_the_last_few_before_a_moment(node: Node) -> None:
    node.add(40, 100)
    for since in (None, 102 * SECOND + OFFSET):
        span = Span(last=3, since=since, until=110 * SECOND + OFFSET)
        found = [page async for page in node.reader.pages(span, lambda each: np.ones(len(each), np.bool_))]
        times = [time // SECOND for page in found for time in page.records["time"].tolist()]
        assert times == [108, 109, 110]
