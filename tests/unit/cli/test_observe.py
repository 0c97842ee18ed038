"""`axo observe`: the filters that the servers get, and the order in which flows of several nodes come."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from datetime import UTC, datetime

import pytest

from axoneme.cli import flowoptions
from axoneme.flows.flow import Flow, Item, LostEvents, ObserveRequest
from axoneme.flows.flowfilter import FlowFilter
from axoneme.relay import merged
from axoneme.rpc import INVALID, RpcError

from .conftest import Axo, Params, Sandbox, Stream, serving

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(second: float, node: str) -> Item:
    """A flow that ``node`` saw so long after the start."""
    moment = f"2026-01-01T00:00:{second:012.9f}Z"
    return Item(flow=Flow(moment, "FORWARDED", node_name=node, event="new"), node_name=node)


def seconds(items: list[Item]) -> list[float]:
    return [float(item.flow.time[17:-1]) for item in items if item.flow]


class FlowServers:
    """What the nodes have seen; ``asked`` is what they were asked."""

    def __init__(self, sandbox: Sandbox, **kept: list[Item]) -> None:
        self.asked: list[Params] = []
        self.sockets = {node: sandbox.layout.node(node).flows_socket for node in kept}
        self._kept = kept
        self._stack = ExitStack()

    def _stream(self, node: str) -> Stream:
        async def stream(params: Params) -> AsyncIterator[object]:
            self.asked.append(params)
            if params.filters and params.filters[0].get("verdict") == ["NONSENSE"]:
                raise RpcError(INVALID, "filter verdict: 'NONSENSE' is not one")
            kept = self._kept[node]
            for item in kept[-params.last :] if params.last else kept:
                yield item

        return stream

    def __enter__(self) -> FlowServers:
        for node, path in self.sockets.items():
            self._stack.enter_context(serving(path, streams={"flows.observe": self._stream(node)}))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def shown(out: str) -> list[str]:
    """Times and nodes of compact lines: ``01.500 node1``."""
    return [f"{line.split()[2][6:]} {line.split()[3].rstrip(':')}" for line in out.splitlines()]


# ---- what is there already -----------------------------------------------------------------------------


def test_flows_of_all_nodes_in_the_order_of_time(axo: Axo, sandbox: Sandbox) -> None:
    one = [at(1, "node1"), at(3, "node1"), at(5, "node1")]
    two = [at(2, "node2"), at(4, "node2")]
    with FlowServers(sandbox, node1=one, node2=two):
        found = axo("observe")
    assert found.code == 0
    assert shown(found.out) == [
        "01.000 node1",
        "02.000 node2",
        "03.000 node1",
        "04.000 node2",
        "05.000 node1",
    ]


def test_the_last_of_all_nodes_together(axo: Axo, sandbox: Sandbox) -> None:
    one = [at(second, "node1") for second in (1, 7, 8)]
    two = [at(second, "node2") for second in (2, 6)]
    with FlowServers(sandbox, node1=one, node2=two) as servers:
        assert shown(axo("observe", "--last", "3").out) == ["06.000 node2", "07.000 node1", "08.000 node1"]
        assert [params.last for params in servers.asked] == [3, 3]


def test_lost_events_are_told_where_they_are_missing(axo: Axo, sandbox: Sandbox) -> None:
    lost = Item(lost_events=LostEvents("PERF_EVENT_RING_BUFFER", "flows", 17), node_name="node1")
    with FlowServers(sandbox, node1=[at(1, "node1"), lost, at(3, "node1")], node2=[at(2, "node2")]):
        assert "node1: 17 connection events lost" in axo("observe").err
        lines = [json.loads(line) for line in axo("observe", "-o", "json").lines]
    assert [next(iter(line)) for line in lines] == ["time", "lost_events", "time", "time"]
    assert lines[1]["lost_events"]["num_events_lost"] == 17


def test_a_node_that_does_not_answer_leaves_a_gap_that_is_told(axo: Axo, sandbox: Sandbox) -> None:
    with FlowServers(sandbox, node1=[at(1, "node1")]):
        found = axo("observe")
    assert found.code == 1
    assert shown(found.out) == ["01.000 node1"]
    assert "node2: no flows from there" in found.err
    assert "no node's flow server answers" in axo("observe").err


def test_one_node(axo: Axo, sandbox: Sandbox) -> None:
    with FlowServers(sandbox, node1=[at(1, "node1")], node2=[at(2, "node2")]):
        assert shown(axo("observe", "--node", "node2").out) == ["02.000 node2"]
    refused = axo("observe", "--node", "node9")
    assert refused.code == 2
    assert "node1, node2" in refused.err


@pytest.mark.parametrize("form", ["compact", "dict", "json", "table"])
def test_forms(axo: Axo, sandbox: Sandbox, form: str) -> None:
    with FlowServers(sandbox, node1=[at(1, "node1")], node2=[]):
        out = axo("observe", "-o", form).out
    assert "node1" in out
    assert "FORWARDED" in out


# ---- filters ---------------------------------------------------------------------------------------------


def test_options_become_a_filter(axo: Axo, sandbox: Sandbox) -> None:
    with FlowServers(sandbox, node1=[], node2=[]) as servers:
        found = axo(
            *("observe", "--verdict", "DROPPED", "--from-pod", "shop/web", "--port", "80", "--port", "443"),
            *("--not", "--port=53", "--not", "-n", "probes", "-n", "shop"),
        )
    assert found.code == 0
    assert servers.asked[0].filters == [
        {"verdict": ["DROPPED"], "from_pod": ["shop/web"], "namespace": ["shop"], "port": [80, 443]}
    ]
    assert servers.asked[0].not_filters == [{"namespace": ["probes"]}, {"port": [53]}]


def test_every_field_of_a_filter_has_an_option() -> None:
    offered = {field for field, _ in flowoptions.fields()}
    assert offered == set(FlowFilter.__struct_fields__) - {"since", "until"}


def test_the_namespace_of_the_command_is_a_filter(axo: Axo, sandbox: Sandbox) -> None:
    with FlowServers(sandbox, node1=[], node2=[]) as servers:
        axo("-n", "shop", "observe")
    assert servers.asked[0].filters == [{"namespace": ["shop"]}]


def test_times(axo: Axo, sandbox: Sandbox) -> None:
    with FlowServers(sandbox, node1=[], node2=[]) as servers:
        axo("observe", "--since", "1h30m", "--until", "2026-01-01T00:00:00Z")
    asked = servers.asked[0]
    assert asked.since is not None
    assert abs(time.time_ns() - 5400 * 10**9 - asked.since) < 60 * 10**9
    assert asked.until == int(START.timestamp()) * 10**9
    assert asked.last is None


@pytest.mark.parametrize(
    "words",
    [
        ("--not",),
        ("--not", "--follow"),
        ("--not", "web"),
        ("--since", "yesterday"),
        ("--port", "http"),
        ("--verdict", "NONSENSE"),
        ("--all", "--last", "3"),
        ("-o", "xml"),
    ],
)
def test_called_wrongly(axo: Axo, sandbox: Sandbox, words: tuple[str, ...]) -> None:
    with FlowServers(sandbox, node1=[], node2=[]):
        assert axo("observe", *words).code == 2


# ---- what still comes ------------------------------------------------------------------------------------


async def test_flows_that_come_late_from_one_node_still_come_in_order(sandbox: Sandbox) -> None:
    """node2's earlier flow arrives after node1's later one, within the time that flows are held back."""
    node1_sent = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def one(params: Params) -> AsyncIterator[object]:
        yield at(2, "node1")
        loop.call_soon_threadsafe(node1_sent.set)

    async def two(params: Params) -> AsyncIterator[object]:
        while not node1_sent.is_set():
            await asyncio.sleep(0.001)
        yield at(1, "node2")

    found = await _follow(sandbox, {"node1": one, "node2": two})
    assert seconds(found) == [1, 2]


async def test_what_is_known_does_not_come_again(sandbox: Sandbox) -> None:
    asked: list[int | None] = []

    async def one(params: Params) -> AsyncIterator[object]:
        asked.append(params.since)
        yield at(1, "node1")
        yield at(2, "node1")

    found = await _follow(sandbox, {"node1": one}, {"node1": "2026-01-01T00:00:01.000000000Z"})
    assert seconds(found) == [2]
    assert asked == [int(START.timestamp()) * 10**9 + 10**9]


async def test_a_server_that_comes_back_is_asked_for_what_was_missed(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merged, "RETRY", 0.01)
    asked: list[int | None] = []
    told: list[str] = []
    path = sandbox.layout.node("node1").flows_socket

    async def before(params: Params) -> AsyncIterator[object]:
        asked.append(params.since)
        yield at(1, "node1")
        await asyncio.sleep(60)

    async def after(params: Params) -> AsyncIterator[object]:
        asked.append(params.since)
        yield at(1, "node1")
        yield at(2, "node1")

    def absent(node: str, failure: RpcError | None) -> None:
        told.append("gone" if failure else "back")

    first = serving(path, streams={"flows.observe": before})
    first.__enter__()
    found: list[Item] = []
    async with asyncio.timeout(20):
        with ExitStack() as stack:
            async for batch in merged.live({"node1": path}, ObserveRequest(follow=True), absent, {}):
                found += batch
                if len(found) == 1 and len(asked) == 1:
                    await asyncio.to_thread(first.__exit__, None, None, None)
                    stack.enter_context(serving(path, streams={"flows.observe": after}))
    assert seconds(found) == [1, 2]
    assert asked == [None, int(START.timestamp()) * 10**9 + 10**9]
    assert told == ["gone", "back"]


async def _follow(
    sandbox: Sandbox, streams: dict[str, Stream], seen: dict[str, str] | None = None
) -> list[Item]:
    """All that ``live`` gives of servers whose streams end."""
    sockets = {node: sandbox.layout.node(node).flows_socket for node in streams}
    found: list[Item] = []
    with ExitStack() as stack:
        for node, stream in streams.items():
            stack.enter_context(serving(sockets[node], streams={"flows.observe": stream}))
        async with asyncio.timeout(20):
            request = ObserveRequest(follow=True)
            async for batch in merged.live(sockets, request, lambda node, failure: None, seen or {}):
                found += batch
    return found
