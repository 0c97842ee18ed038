"""What the page asks for, and what it is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientResponse

from axoneme.flows.flowfilter import FlowFilter
from axoneme.rpc import INVALID, RpcError

from .conftest import Start
from .flows import FakeFeed, drop, flow, pod

WEB, CLIENT = pod("web"), pod("client")
EVIL = '</script><img src=x onerror="alert(1)">'


async def events(response: ClientResponse) -> AsyncIterator[tuple[str, Any]]:
    name = ""
    async for line in response.content:
        key, _, value = line.decode().rstrip("\n").partition(": ")
        if key == "event":
            name = value
        elif key == "data":
            yield name, json.loads(value)


async def test_filters_reach_the_nodes_as_the_command_line_writes_them(start: Start, feed: FakeFeed) -> None:
    client = await start()
    query = "verdict=DROPPED&verdict=AUDIT&from_pod=shop/web&port=80&not.port=53&not.pod=probe&last=7"
    assert (await client.get(f"/api/v1/flows?{query}")).status == 200
    (asked,) = feed.asked
    assert asked.filters == [FlowFilter(verdict=("DROPPED", "AUDIT"), from_pod=("shop/web",), port=(80,))]
    assert asked.not_filters == [FlowFilter(port=(53,)), FlowFilter(pod=("probe",))]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("nonsense=1", "nonsense"),
        ("port=http", "port"),
        ("not.x=1", "not.x"),
        ("since=yesterday", "since"),
        ("last=0", "last"),
    ],
)
async def test_a_wrong_filter_names_its_field(start: Start, query: str, field: str) -> None:
    client = await start()
    refused = await client.get(f"/api/v1/flows?{query}")
    assert refused.status == 422
    assert (await refused.json())["field"] == field


async def test_what_nodes_refuse_is_told(start: Start, feed: FakeFeed) -> None:
    feed.refused = RpcError(INVALID, "filter verdict: 'X' is not one of DROPPED")
    client = await start()
    for path in ("flows", "flows/stream"):
        refused = await client.get(f"/api/v1/{path}?verdict=X")
        assert (refused.status, (await refused.json())["field"]) == (422, "verdict")


async def test_flows_are_told_as_they_were_with_what_is_missing(start: Start, feed: FakeFeed) -> None:
    feed.kept = [flow(CLIENT, WEB, second=second, Summary=EVIL) for second in range(5)]
    feed.absent = {"node2": "gone"}
    client = await start()
    told = await (await client.get("/api/v1/flows?last=3")).json()
    assert [row["flow"]["time"][17:19] for row in told["flows"]] == ["02", "03", "04"]
    assert told["more"] is True
    assert told["absent"] == [{"node": "node2", "why": "gone"}]
    assert told["flows"][0]["flow"]["Summary"] == EVIL, "it is for the page to show it as text"
    assert len({row["id"] for row in told["flows"]}) == 3


async def test_the_map_of_a_span_has_rates_over_all_of_it(start: Start, feed: FakeFeed) -> None:
    feed.kept = [flow(CLIENT, WEB, second=second) for second in range(30)]
    client = await start()
    span = "since=2026-01-01T00:00:00Z&until=2026-01-01T00:01:00.000000001Z&namespace=shop"
    told = await (await client.get(f"/api/v1/map?{span}")).json()
    (edge,) = told["edges"]
    assert edge["verdicts"]["FORWARDED"]["count"] == 30
    assert edge["verdicts"]["FORWARDED"]["rate"] == 0.5
    assert feed.asked[0].filters == [FlowFilter(namespace=("shop",))]


async def test_a_timeline_counts_by_verdict(start: Start, feed: FakeFeed) -> None:
    feed.kept = [flow(CLIENT, WEB, second=1), drop(CLIENT, WEB, second=59), flow(CLIENT, WEB, second=59.5)]
    client = await start()
    span = "since=2026-01-01T00:00:00Z&until=2026-01-01T00:01:00Z&buckets=2"
    told = await (await client.get(f"/api/v1/timeline?{span}")).json()
    assert told["verdicts"] == {"FORWARDED": [1, 1], "DROPPED": [0, 1]}
    assert told["seconds"] == 30


async def test_flows_come_in_batches_with_rates_when_they_are_too_many(start: Start, feed: FakeFeed) -> None:
    client = await start()
    async with client.get("/api/v1/flows/stream?last=0") as stream:
        news = events(stream)
        await anext(news)
        feed.coming.put_nowait([flow(CLIENT, WEB, second=n / 100) for n in range(1000)])
        _, batch = await anext(news)
        assert len(batch["flows"]) == 250
        assert batch["not_shown"] == 750
        assert batch["rate"] == batch["verdicts"]["FORWARDED"] == 200
        assert batch["busiest"][0]["source"] == "shop/Deployment/client"
        assert batch["busiest"][0]["rate"] == 200


async def test_a_stream_ends_with_its_session(start: Start, feed: FakeFeed, token_file: Any) -> None:
    client = await start()
    async with client.get("/api/v1/map/stream") as stream:
        news = events(stream)
        assert (await anext(news))[0] == "map"
        token_file.write_text("another-token-of-32-characters--\n")
        async with asyncio.timeout(10):
            name, problem = await anext(news)
        assert (name, problem["status"]) == ("problem", 401)


async def test_without_the_shared_state_policies_are_not_to_be_had(start: Start) -> None:
    client = await start()
    assert (await (await client.get("/api/v1/session")).json())["features"]["policies"] is False
    refused = await client.get("/api/v1/policies")
    assert refused.status == 409
    assert (await refused.json())["remedy"]


async def test_filters_are_listed_and_completed(start: Start) -> None:
    client = await start()
    meta = await (await client.get("/api/v1/meta")).json()
    verdict = next(each for each in meta["filters"] if each["name"] == "verdict")
    assert "DROPPED" in verdict["values"]
    told = await (await client.get("/api/v1/complete?field=verdict&text=drop")).json()
    assert told["values"] == ["DROPPED"]
    assert (await client.get("/api/v1/complete?field=nonsense")).status == 422


@pytest.mark.parametrize("body", ["", "[]", "{", '{"token": 1}', "\ud800".encode("utf-8", "surrogatepass")])
async def test_a_body_that_is_none_is_refused(start: Start, body: str | bytes) -> None:
    client = await start()
    headers = {"Content-Type": "application/json", "Sec-Fetch-Site": "same-origin"}
    refused = await client.post("/api/v1/login", data=body, headers=headers)
    assert refused.status in (400, 422)
