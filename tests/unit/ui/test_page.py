"""The page in a real browser, with flows that no cluster would have."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from msgspec.structs import replace
from playwright.async_api import Browser, Page

from axoneme.flows.flow import HTTP, IP, Endpoint, Flow, Layer7, PolicyName, Service, Workload
from axoneme.model.state import ENDPOINTS, EndpointState, encode
from axoneme.sources.sqlite import SqliteStore
from axoneme.ui.config import UiConfig
from axoneme.ui.mapview import timestamp
from axoneme.ui.server import UiServer
from axoneme.ui.shared import Shared
from browsing import Watched, chromium, log_in, view, violations, watched

from .conftest import TOKEN
from .flows import FakeFeed, answer, drop, flow, pod

pytestmark = pytest.mark.asyncio(loop_scope="module")

WEB, CLIENT, DB = pod("web"), pod("client"), pod("db", "node2")
MARKUP = "<img src=x onerror=\"window.got='{}'\"><script>window.got='{}'</script>{{{{7*7}}}}'\"`"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as found:
        yield found


@asynccontextmanager
async def serving(
    feed: FakeFeed, token_file: Path, shared: Shared | None = None, prefix: str = ""
) -> AsyncIterator[str]:
    """The page's address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = UiConfig(place="test", listen=f"127.0.0.1:{port}", token_file=str(token_file), prefix=prefix)
    running = asyncio.ensure_future(UiServer(config, feed, shared).run())
    try:
        while not running.done():
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                break
            except OSError:
                await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{port}{prefix}/"
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def recent(*flows: Flow) -> FakeFeed:
    """What nodes have kept of the last seconds."""
    now = time.time()
    return FakeFeed([replace(each, time=timestamp(now - len(flows) + n)) for n, each in enumerate(flows)])


async def edges(page: Page) -> dict[str, set[str]]:
    """Those that are drawn: verdicts by id."""
    found = await page.eval_on_selector_all(
        "[data-edge-id]", "all => all.map(each => [each.dataset.edgeId, each.dataset.verdicts])"
    )
    return {key: set((verdicts or "").split()) for key, verdicts in found}


async def test_the_map_is_drawn_and_grows(browser: Browser, token_file: Path) -> None:
    feed = recent(flow(CLIENT, WEB), drop(CLIENT, DB, 5432, node="node2"))
    async with serving(feed, token_file) as address, watched(browser) as seen:
        await log_in(seen.page, address, TOKEN)
        await seen.page.locator("[data-edge-id]").nth(1).wait_for(state="attached")
        assert await edges(seen.page) == {
            "shop/Deployment/client>shop/Deployment/web:80/TCP": {"FORWARDED"},
            "shop/Deployment/client>shop/Deployment/db:5432/TCP": {"DROPPED"},
        }
        feed.coming.put_nowait([flow(WEB, DB, 5432, node="node2")])
        await seen.page.locator("[data-edge-id*='web>shop/Deployment/db']").wait_for(state="attached")
        assert not seen.wrong


async def test_it_works_below_a_prefix_and_places_can_be_linked_to(
    browser: Browser, token_file: Path
) -> None:
    feed = recent(flow(CLIENT, WEB))
    async with serving(feed, token_file, prefix="/a/b") as address, watched(browser) as seen:
        await log_in(seen.page, address, TOKEN)
        await view(seen.page, "Flows")
        await seen.page.locator("[data-row-id]").first.wait_for()
        place = seen.page.url
        assert place.startswith(f"{address}#/")
        other = await seen.page.context.new_page()
        await other.goto(place)  # the session's cookie is the whole browser's
        await other.locator("[data-row-id]").first.wait_for()
        assert TOKEN not in place
        assert await seen.page.evaluate("document.cookie") == "", "no script can read it"
        assert not seen.wrong


def hostile(name: str) -> str:
    return MARKUP.format(name, name)


def _hostile_flows() -> list[Flow]:
    """With markup in whatever is a text."""
    evil = Endpoint(
        identity=300,
        namespace=hostile("namespace"),
        labels=(f"k8s:app={hostile('label')}",),
        pod_name=hostile("pod"),
        workloads=(Workload(hostile("workload"), hostile("kind")),),
        node_name="node1",
    )
    policy = PolicyName(hostile("policy"), hostile("its namespace"), hostile("its kind"), hostile("rule"))
    request = answer(CLIENT, evil, f"http://{hostile('host')}/{hostile('path')}")
    refused = Layer7("REQUEST", http=HTTP(403, hostile("method"), hostile("url")), reason=hostile("why"))
    return [
        flow(CLIENT, evil, destination_service=Service(hostile("service"), hostile("ns"), hostile("port"))),
        drop(
            evil, WEB, drop_reason_desc=hostile("reason"), ingress_denied_by=(policy,), Summary=hostile("sum")
        ),
        request,
        drop(CLIENT, evil, l7=refused, event="request", Type="L7", IP=IP(hostile("ip"), hostile("ip"))),
        flow(CLIENT, evil, verdict=hostile("verdict"), node="node1", ingress_allowed_by=(policy,)),
    ]


async def _hostile_store(folder: Path) -> SqliteStore:
    store = SqliteStore(folder / "store.db")
    pod_ = EndpointState(
        1,
        "node1",
        300,
        namespace=hostile("namespace"),
        pod=hostile("pod"),
        workload=hostile("workload"),
        workload_kind=hostile("kind"),
        labels=[f"k8s:app={hostile('label')}", "k8s:io.kubernetes.pod.namespace=shop"],
    )
    await store.put(f"{ENDPOINTS}node1/1", encode(pod_))
    policy = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "evil", "namespace": "shop", "annotations": {"note": hostile("note")}},
        "spec": {"description": hostile("words"), "endpointSelector": {}, "ingress": [{}]},
    }
    await store.put("objects/CiliumNetworkPolicy/shop/evil", json.dumps(policy).encode())
    broken = {**policy, "metadata": {"name": "broken", "namespace": "shop"}, "spec": {hostile("field"): 1}}
    await store.put("objects/CiliumNetworkPolicy/shop/broken", json.dumps(broken).encode())
    return store


async def _unharmed(seen: Watched) -> None:
    assert await seen.page.evaluate("window.got") is None
    assert await seen.page.locator("img[src=x]").count() == 0
    assert not await seen.page.evaluate(
        "[...document.scripts].some(each => each.textContent.includes('got'))"
    )
    assert not seen.wrong


async def test_markup_in_flows_and_policies_stays_text(
    browser: Browser, token_file: Path, tmp_path: Path
) -> None:
    """Labels, names, paths, reasons: whatever a workload can make appear here."""
    feed = recent(*_hostile_flows())
    store = await _hostile_store(tmp_path)
    try:
        async with serving(feed, token_file, Shared(store)) as address, watched(browser) as seen:
            page = seen.page
            await log_in(page, address, TOKEN)
            card = page.locator("[data-card-id]").filter(has_text="workload").first
            await card.wait_for()
            await card.click()
            await page.get_by_text("<img src=x").filter(visible=True).first.wait_for()  # as it is written
            for number in range(await page.locator("[data-edge-id]").count()):
                await page.locator("[data-edge-id]").nth(number).dispatch_event("click")
            await _unharmed(seen)
            await view(page, "Flows")
            await page.locator("[data-row-id]").nth(4).wait_for()
            for number in range(5):
                await page.locator("[data-row-id]").nth(number).click()
                await _unharmed(seen)
            await view(page, "Policies")
            await page.get_by_text("evil").first.click()
            await page.get_by_text("<img src=x").filter(visible=True).first.wait_for()
            await _unharmed(seen)
    finally:
        await store.close()


async def test_thousands_of_flows_a_second_leave_the_page_alive(browser: Browser, token_file: Path) -> None:
    feed = FakeFeed()
    async with serving(feed, token_file) as address, watched(browser) as seen:
        page = seen.page
        await log_in(page, address, TOKEN)
        await view(page, "Flows")

        async def flood() -> None:
            for second in range(10_000):
                feed.coming.put_nowait(
                    [flow(CLIENT, WEB, 80 + n % 50, second=second % 60) for n in range(250)]
                )
                await asyncio.sleep(0.05)

        flooding = asyncio.ensure_future(flood())
        try:
            await page.get_by_text("not shown").or_(page.get_by_text("busiest")).first.wait_for()
            frames = await page.evaluate(
                """() => new Promise(done => {
                    let longest = 0, last = performance.now(), left = 60
                    const step = now => {
                        longest = Math.max(longest, now - last); last = now
                        left-- ? requestAnimationFrame(step) : done(longest)
                    }
                    requestAnimationFrame(step)
                })"""
            )
            assert frames < 3000, "milliseconds without a frame"
            assert not seen.wrong
        finally:
            flooding.cancel()


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
async def test_axe_finds_nothing_serious(
    browser: Browser, token_file: Path, tmp_path: Path, scheme: Any
) -> None:
    feed = recent(
        flow(CLIENT, WEB), drop(CLIENT, DB, 5432, node="node2"), answer(CLIENT, WEB, "http://web/a")
    )
    store = await _hostile_store(tmp_path)
    context = {"color_scheme": scheme, "bypass_csp": True, "reduced_motion": "reduce"}
    try:
        async with serving(feed, token_file, Shared(store)) as address, watched(browser, **context) as seen:
            page = seen.page
            await page.goto(address)
            await page.get_by_label("Token").wait_for()
            found = {"login": await violations(page)}
            await log_in(page, address, TOKEN)
            await page.locator("[data-edge-id]").first.wait_for(state="attached")
            found["map"] = await violations(page)
            for name in ("Flows", "Policies", "Nodes"):
                await view(page, name)
                await page.wait_for_load_state("networkidle") if name != "Flows" else None
                await page.locator("main").first.wait_for()
                found[name] = await violations(page)
            assert not {name: each for name, each in found.items() if each}
    finally:
        await store.close()
