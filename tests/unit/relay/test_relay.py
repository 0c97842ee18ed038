"""The relay over nodes that are played: come, go, hang, lag, refuse."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from axoneme.hubble.address import Address
from axoneme.hubble.client import Client, HubbleError
from axoneme.relay import pool
from axoneme.relay.gathering import Limits
from axoneme.relay.peers import Peer
from axoneme.relay.pool import Change, Patience, State

from .nodes import PATIENT, SECOND, Node, now, relay, request, running


class Seen:
    """What a stream has brought."""

    def __init__(self, stream: AsyncGenerator[Any]) -> None:
        self._stream = stream
        self.flows: list[tuple[str, int]] = []
        self.states: dict[str, int] = {}
        self.lost: dict[str, int] = {}

    async def until(self, enough: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not enough():
                self.take(await anext(self._stream))

    async def all(self) -> None:
        async with asyncio.timeout(20):
            async for each in self._stream:
                self.take(each)

    def take(self, response: Any) -> None:
        if response.HasField("node_status"):
            told = response.node_status
            self.states |= dict.fromkeys(told.node_names, told.state_change)
        elif response.HasField("lost_events"):
            node = response.node_name
            self.lost[node] = self.lost.get(node, 0) + response.lost_events.num_events_lost
        else:
            self.flows.append((response.node_name, response.time.ToNanoseconds()))

    @property
    def times(self) -> list[int]:
        return [time for _, time in self.flows]


async def everything(client: Client, **fields: Any) -> Seen:
    async with aclosing(client.flows(request(**fields))) as stream:
        seen = Seen(stream)
        await seen.all()
        return seen


def some_nodes(folder: Path, count: int) -> list[Node]:
    made = [Node(folder, f"node{number}") for number in range(count)]
    for number, node in enumerate(made):
        node.see(*range(1000 + number, 3000, count))
    return made


async def test_what_all_nodes_have_kept_is_one_list_in_order(tmp_path: Path) -> None:
    nodes = some_nodes(tmp_path, 5)
    async with running(*nodes), relay(tmp_path) as client:
        seen = await everything(client, number=2**64 - 1)
        assert seen.times == list(range(1000, 3000))
        assert seen.states == dict.fromkeys((node.name for node in nodes), State.NODE_CONNECTED)
        assert (await everything(client, number=7)).times == list(range(2993, 3000))
        assert (await everything(client, number=7, first=True)).times == list(range(1000, 1007))
        assert (await everything(client, since=2500)).times == list(range(2500, 3000))
        assert nodes[0].asked[-1].since.ToNanoseconds() == 2500


async def test_a_node_that_hangs_is_named_and_not_waited_for_again(tmp_path: Path) -> None:
    well, ill, sly = some_nodes(tmp_path, 3)
    ill.hangs, sly.hangs = "ServerStatus", "GetFlows"
    async with running(well, ill, sly), relay(tmp_path) as client:
        seen = await everything(client, number=10)
        assert {node for node, _ in seen.flows} == {"node0"}
        assert seen.states["node0"] == State.NODE_CONNECTED
        assert seen.states["node1"] == seen.states["node2"] == State.NODE_UNAVAILABLE
        status = await client.status()
        assert status.num_connected_nodes.value == 2, "the status of node2 can be had"
        assert list(status.unavailable_nodes) == ["node1"]


async def test_following_nodes_that_come_and_go(tmp_path: Path) -> None:
    first, second = Node(tmp_path, "node1"), Node(tmp_path, "node2")
    async with (
        running(first),
        relay(tmp_path) as client,
        aclosing(client.flows(request(follow=True))) as stream,
    ):
        seen = Seen(stream)
        await seen.until(lambda: "node1" in seen.states)
        await asked(first)
        begun = now()
        first.see(begun)
        await seen.until(lambda: seen.times == [begun])
        async with running(second):
            await seen.until(lambda: seen.states.get("node2") == State.NODE_CONNECTED)
            second.see(begun + SECOND)
            await seen.until(lambda: len(seen.flows) == 2)
            await first.stop()
            await seen.until(lambda: seen.states["node1"] == State.NODE_UNAVAILABLE)
            first.see(begun + 2 * SECOND)
            await first.start()
            await seen.until(lambda: len(seen.flows) == 3)
            assert seen.times == [begun, begun + SECOND, begun + 2 * SECOND], "also what came meanwhile, once"
            assert seen.states["node1"] == State.NODE_CONNECTED
        second.socket.unlink(missing_ok=True)
        await seen.until(lambda: seen.states["node2"] == State.NODE_GONE)


async def asked(node: Node) -> None:
    async with asyncio.timeout(10):
        while not node.asked:
            await asyncio.sleep(0.01)


async def test_the_last_and_what_follows_are_each_told_once(tmp_path: Path) -> None:
    nodes = [Node(tmp_path, f"node{number}") for number in range(3)]
    began = now()
    nodes[0].see(*range(began, began + 10))
    nodes[1].see(*range(began + 10, began + 20))
    async with (
        running(*nodes),
        relay(tmp_path) as client,
        aclosing(client.flows(request(number=5, follow=True))) as stream,
    ):
        seen = Seen(stream)
        await seen.until(lambda: len(seen.flows) == 5)
        for number, node in enumerate(nodes):
            node.see(began + SECOND + number)
        await seen.until(lambda: len(seen.flows) == 8)
        assert seen.times == [*range(began + 15, began + 20), *(began + SECOND + n for n in range(3))]


async def test_a_number_since_a_time_is_of_the_first_since_then(tmp_path: Path) -> None:
    nodes = [Node(tmp_path, "node1"), Node(tmp_path, "node2")]
    began = now()
    nodes[0].see(*range(began, began + 10))
    nodes[1].see(*range(began + 10, began + 20))
    async with running(*nodes), relay(tmp_path) as client:
        assert (await everything(client, since=began, number=5)).times == list(range(began, began + 5))
        async with aclosing(client.flows(request(since=began, number=5, follow=True))) as stream:
            seen = Seen(stream)
            await seen.until(lambda: len(seen.flows) == 20)
            assert seen.times == list(range(began, began + 20)), (
                "who follows since a time gets all, as of a node"
            )


async def test_news_of_losses_hide_no_flows_behind_them(tmp_path: Path) -> None:
    node = Node(tmp_path, "node1")
    began = now() - 60 * SECOND
    node.see(began)
    async with (
        running(node),
        relay(tmp_path) as client,
        aclosing(client.flows(request(number=5, follow=True))) as stream,
    ):
        node.lose(3)
        seen = Seen(stream)
        await seen.until(lambda: seen.lost)
        assert (seen.times, seen.lost) == ([began], {"node1": 3})
        node.see(began + SECOND)
        await seen.until(lambda: len(seen.flows) == 2)


async def test_nobody_waits_for_a_node_that_hangs_until_a_time_that_is_over(tmp_path: Path) -> None:
    well, ill = Node(tmp_path, "node1"), Node(tmp_path, "node2", hangs="ServerStatus")
    async with running(well, ill), relay(tmp_path) as client:
        seen = await everything(client, follow=True, until=now() + SECOND)
        assert seen.states["node2"] == State.NODE_UNAVAILABLE


async def test_who_does_not_read_loses_and_is_told_and_nobody_else_does(tmp_path: Path) -> None:
    node = Node(tmp_path, "node1")
    async with (
        running(node),
        relay(tmp_path, Limits(window=0.05, unread=1 << 16)) as client,
        aclosing(client.flows(request(follow=True))) as stuck,
        aclosing(client.flows(request(follow=True))) as lively,
    ):
        slow, quick = Seen(stuck), Seen(lively)
        for seen in (slow, quick):
            await seen.until(lambda seen=seen: seen.states)  # type: ignore[misc]
        count, begun = 0, now()
        while len(node.asked) < 2:
            await asyncio.sleep(0.01)
        while count < 30_000:  # some 2 MB: more than windows and buffers on the way hold
            node.see(*range(begun + count, begun + count + 1000))
            count += 1000
            await quick.until(lambda: len(quick.flows) == len(node.flows) or quick.lost)
        assert not quick.lost
        await slow.until(lambda: len(slow.flows) + slow.lost.get("node1", 0) == count)
        assert slow.lost["node1"] > 0
        assert slow.times == sorted(slow.times)


async def test_what_no_node_can_answer_is_refused(tmp_path: Path) -> None:
    nodes = some_nodes(tmp_path, 2)
    for node in nodes:
        node.refuses = "INVALID_ARGUMENT"
    async with running(*nodes), relay(tmp_path) as client:
        for fields in ({"number": 5}, {"follow": True}):
            with pytest.raises(HubbleError, match="not this way") as refused:
                await everything(client, **fields)
            assert refused.value.code == "INVALID_ARGUMENT"
        with pytest.raises(HubbleError, match="first and follow"):
            await everything(client, first=True, follow=True, number=1)
        nodes[0].refuses, nodes[1].refuses = "PERMISSION_DENIED", ""
        seen = await everything(client, number=3)
        assert seen.states == {"node0": State.NODE_ERROR, "node1": State.NODE_CONNECTED}
        assert len(seen.flows) == 3


async def test_more_than_can_be_held_is_refused_with_a_remedy(tmp_path: Path) -> None:
    async with running(*some_nodes(tmp_path, 2)), relay(tmp_path, Limits(0.05, newest=2000)) as client:
        with pytest.raises(HubbleError, match="ask for fewer, or for all since") as refused:
            await everything(client, number=1000)
        assert refused.value.code == "RESOURCE_EXHAUSTED"
        assert len((await everything(client, number=2**64 - 1)).flows) == 2000


async def test_status_nodes_and_namespaces_are_those_of_all(tmp_path: Path) -> None:
    nodes = some_nodes(tmp_path, 3)
    nodes[2].hangs = "ServerStatus"
    async with running(*nodes), relay(tmp_path) as client:
        status = await client.status()
        assert (status.num_flows, status.max_flows, status.flows_rate) == (1334, 200, 1.0)
        assert (status.num_connected_nodes.value, status.num_unavailable_nodes.value) == (2, 1)
        found = {node.name: node for node in (await client.nodes()).nodes}
        assert [found[node.name].state for node in nodes] == [1, 1, 2]
        assert found["node0"].address == f"unix://{nodes[0].socket}"
        namespaces = [each.namespace for each in (await client.namespaces()).namespaces]
        assert namespaces == ["node0", "node1", "shop"]


async def test_a_hundred_nodes_of_which_ten_hang(tmp_path: Path) -> None:
    nodes = some_nodes(tmp_path, 100)
    for number, node in enumerate(nodes[::10]):
        node.hangs = "GetFlows" if number % 2 else "ServerStatus"
    ill = {node.name for node in nodes[::10]}
    async with running(*nodes), relay(tmp_path, Limits(window=1.5), Patience(call=4.0)) as client:
        seen = await everything(client, number=2**64 - 1)
        assert {name for name, state in seen.states.items() if state != State.NODE_CONNECTED} == ill
        assert seen.times == [time for time in range(1000, 3000) if (time - 1000) % 100 % 10]
        async with aclosing(client.flows(request(follow=True))) as stream:
            live = Seen(stream)
            await live.until(lambda: len(live.states) == 100)
            for node in nodes:
                if node.name not in ill:
                    await asked_to_follow(node)
            begun = now()
            for number, node in enumerate(reversed(nodes)):
                if node.name not in ill:
                    node.see(begun + number)
            await live.until(lambda: len(live.flows) == 90)
            assert live.times == sorted(live.times)


async def asked_to_follow(node: Node) -> None:
    async with asyncio.timeout(10):
        while not any(each.follow for each in node.asked):
            await asyncio.sleep(0.01)


async def test_no_node_on_another_machine_is_asked_without_tls(tmp_path: Path) -> None:
    def credentials() -> ssl.SSLContext:
        raise AssertionError("nobody knows its name")

    told: list[Change] = []
    came = asyncio.Event()

    def tell(change: Change) -> None:
        told.append(change)
        came.set()

    watching = asyncio.ensure_future(
        pool.Node(Peer("far", Address("192.0.2.1", 4244)), credentials, PATIENT).watch(tell)
    )
    async with asyncio.timeout(10):
        await came.wait()
    watching.cancel()
    assert [(each.state, "without TLS" in each.why) for each in told] == [(State.NODE_UNAVAILABLE, True)]
