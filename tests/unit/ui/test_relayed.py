"""Flows by a relay: what it says of nodes, and what becomes of it when it goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from axoneme.certificates.files import CertificateError
from axoneme.flows.flow import ObserveRequest
from axoneme.flows.flowfilter import FlowFilter
from axoneme.hubble.address import Address
from axoneme.hubble.methods import OBSERVER
from axoneme.hubble.schema import enum, message
from axoneme.hubble.serving import Server, Service
from axoneme.rpc import INVALID, RpcError
from axoneme.ui.config import RelayConfig
from axoneme.ui.feed import Gaps
from axoneme.ui.relayed import Relayed

RESPONSE, NODES = message("observer.GetFlowsResponse"), message("observer.GetNodesResponse")


def told(second: int) -> Any:
    made = RESPONSE(node_name="prod/n1", flow={"verdict": 1, "node_name": "prod/n1"})
    made.flow.time.FromSeconds(1_700_000_000 + second)
    return made


def status(state: str, node: str) -> Any:
    number = enum("relay.NodeState")[state]
    return RESPONSE(
        node_status={"state_change": number, "node_names": [f"prod/{node}"], "message": "no route"}
    )


class Relay:
    """Says what it has been given, and waits when it is followed."""

    def __init__(self, *says: Any) -> None:
        self.says = list(says)
        self.asked: list[Any] = []
        self._leaving = asyncio.Event()

    async def flows(self, request: Any) -> AsyncGenerator[Sequence[bytes]]:
        self.asked.append(request)
        yield [each.SerializeToString() for each in self.says]
        if request.follow:
            await self._leaving.wait()

    async def nodes(self, _: Any) -> Any:
        return NODES(nodes=[{"name": "prod/n2"}, {"name": "prod/n1"}])

    @asynccontextmanager
    async def serving(self, path: Path) -> AsyncIterator[None]:
        service = Service(OBSERVER, answers={"GetNodes": self.nodes}, streams={"GetFlows": self.flows})
        up = asyncio.Event()
        serving = asyncio.ensure_future(
            Server([service], "relay-version").serve(Address(path=path), None, lambda _: up.set())
        )
        try:
            await up.wait()
            yield
        finally:
            self._leaving.set()
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "relay.sock"


def feed(path: Path) -> Relayed:
    return Relayed(f"unix://{path}", "", None)


async def test_the_past_with_what_is_missing_from_it(path: Path) -> None:
    lost = RESPONSE(node_name="prod/n1", lost_events={"num_events_lost": 7})
    relay = Relay(told(1), status("NODE_UNAVAILABLE", "n2"), lost, told(2))
    async with relay.serving(path):
        relayed, gaps = feed(path), Gaps()
        await relayed.find_nodes()
        wanted = ObserveRequest([FlowFilter(to_namespace=("shop",))], last=5)
        async with aclosing(relayed.past(wanted, gaps, {})) as flows:
            found = [each.time async for each in flows]
    assert found == ["2023-11-14T22:13:21.000000000Z", "2023-11-14T22:13:22.000000000Z"]
    assert relayed.nodes() == ["n1", "n2"]
    assert (gaps.lost, gaps.nodes) == (7, {"n2": "no route"})
    (asked,) = relay.asked
    assert (asked.number, asked.whitelist[0].destination_pod) == (5, ["shop/"])


async def test_a_relay_that_goes_away_is_waited_for_and_nothing_comes_twice(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("axoneme.ui.relayed._RETRY", 0.01)
    relayed, gaps = feed(path), Gaps()
    async with aclosing(relayed.live(ObserveRequest(), gaps, {})) as batches:
        async with Relay(told(1), told(2)).serving(path):
            assert len(await anext(batches)) == 2
        coming = asyncio.ensure_future(anext(batches))
        async with asyncio.timeout(10):
            while "relay" not in gaps.nodes:
                await asyncio.sleep(0.01)
            async with Relay(told(2), told(3)).serving(path):
                (flow,) = await coming
    assert flow.time == "2023-11-14T22:13:23.000000000Z"
    assert "relay" not in gaps.nodes


async def test_what_a_relay_cannot_filter_by_is_refused(path: Path) -> None:
    with pytest.raises(RpcError, match="event") as refused:
        await anext(feed(path).past(ObserveRequest([FlowFilter(event=("new",))]), Gaps(), {}))
    assert refused.value.code == INVALID


def test_a_relay_elsewhere_needs_certificates() -> None:
    RelayConfig("127.0.0.1:4245").check()
    with pytest.raises(ValueError, match="without TLS"):
        RelayConfig("relay.example:4245").check()


async def test_certificates_that_are_missing_are_waited_for() -> None:
    def credentials() -> Any:
        raise CertificateError("node.crt: there is none")

    feed, gaps = Relayed("192.0.2.1:4245", "", credentials), Gaps()
    await feed.find_nodes()
    async with aclosing(feed.past(ObserveRequest(), gaps, {})) as flows:
        assert [flow async for flow in flows] == []
    assert "node.crt" in gaps.absent()[0].why
