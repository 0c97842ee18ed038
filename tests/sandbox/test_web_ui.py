"""The web UI of a sandbox with a real application: what a browser shows is what the cluster does.

With AXONEME_TEST_ALL=1 and AXONEME_RECORD=1 the pictures in docs/images are taken anew.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page
from runtime import Live, addresses, live
from test_online_boutique import CALLERS, app, ports

from axoneme.sandbox.client import Probe, Verdict
from browsing import ROOT, chromium, log_in, need_page, view, watched
from manifests import folder, text

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: What the load leaves out, although policies allow it; and what it tries, although they do not.
UNUSED = {("checkoutservice", "currencyservice"), ("frontend", "adservice")}
REFUSED = {("frontend", "paymentservice"), ("adservice", "redis-cart")}


@dataclass
class Shop:
    runtime: Live
    address: str
    token: str

    def probe(self, source: str, target: str, port: int | None = None) -> Verdict:
        """From one workload to another."""
        pods = {app(pod): pod for pod in self.runtime.pods()}
        number = port or ports(pods[target])[0]
        wish = Probe(self.runtime.namespace(pods[source]), addresses(pods[target])[0], number, timeout=1)
        return self.runtime.probe_all([wish])[0].verdict


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    need_page()
    boutique = folder("online-boutique")
    policies = sorted((boutique / "network-policies").glob("*.yaml"))
    with live("boutique-ui", text(boutique / "app.yaml")) as runtime:
        runtime.apply(text(*policies))
        runtime.policies_loaded(len(policies))
        with served(runtime.name) as (address, token):
            yield Shop(runtime, address, token)


@contextmanager
def served(name: str) -> Iterator[tuple[str, str]]:
    """`axo ui`: where it is, and the token that it printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "axoneme.cli", "ui", "--sandbox", name, "--listen", where]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            first, second = process.stdout.readline(), process.stdout.readline()
            deadline = time.monotonic() + 10
            while True:
                try:
                    socket.create_connection(tuple(where.split(":")), 1).close()  # type: ignore[arg-type]
                    break
                except OSError:
                    assert process.poll() is None and time.monotonic() < deadline, "axo ui does not listen"
                    time.sleep(0.05)
            yield first.rpartition(" ")[2].strip(), second.removeprefix("token: ").strip()
        finally:
            process.terminate()
            process.wait(10)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as found:
        yield found


def between(key: str) -> tuple[str, str]:
    """The workloads in an edge's id."""
    source, _, rest = key.partition(">")
    return source.rpartition("/")[2], rest.partition(":")[0].rpartition("/")[2]


async def drawn(page: Page) -> dict[str, set[tuple[str, str]]]:
    """The edges between workloads of the application: by verdict."""
    found = await page.eval_on_selector_all(
        "[data-edge-id^='default/']", "all => all.map(each => [each.dataset.edgeId, each.dataset.verdicts])"
    )
    verdicts: dict[str, set[tuple[str, str]]] = {"FORWARDED": set(), "DROPPED": set()}
    for key, words in found:
        for verdict in words.split():
            verdicts.setdefault(verdict, set()).add(between(key))
    return verdicts


async def record(page: Page, name: str) -> None:
    if os.environ.get("AXONEME_RECORD"):
        images = ROOT / "docs" / "images"
        images.mkdir(exist_ok=True)
        await page.screenshot(path=images / f"{name}.png")


async def test_the_map_has_the_edges_that_policies_allow_and_load_used(shop: Shop, browser: Browser) -> None:
    used = {(source, target) for target, callers in CALLERS.items() for source in callers} - UNUSED
    used |= {("loadgenerator", "frontend")}
    async with watched(browser) as seen:
        await log_in(seen.page, f"{shop.address}#/map?namespace=default", shop.token)

        def load() -> None:
            for source, target in sorted(used):
                assert shop.probe(source, target) is Verdict.CONNECTED, (source, target)
            for source, target in sorted(REFUSED):
                assert shop.probe(source, target) is Verdict.TIMEOUT, (source, target)

        await asyncio.to_thread(load)
        wanted = {"FORWARDED": used, "DROPPED": REFUSED}
        found: dict[str, set[tuple[str, str]]] = {}
        async with asyncio.timeout(15):
            while found != wanted:
                before, found = found, await drawn(seen.page)
                if found == before:
                    await asyncio.sleep(0.1)
        assert not seen.wrong


async def test_a_drop_appears_and_names_its_policies(shop: Shop, browser: Browser) -> None:
    """How soon, is said at the end; the datapath's polling, merging and batches together take 0.3 s."""
    took = []
    async with watched(browser) as seen:
        page = seen.page
        await log_in(page, f"{shop.address}#/flows?verdict=DROPPED", shop.token)
        await page.locator("[data-row-id]").first.wait_for()
        for port in range(7001, 7006):
            begun = time.monotonic()
            probing = asyncio.create_task(asyncio.to_thread(shop.probe, "frontend", "paymentservice", port))
            await page.locator("[data-row-id]").filter(has_text=str(port)).first.wait_for()
            took.append(time.monotonic() - begun)
            assert await probing is Verdict.TIMEOUT
        await page.locator("[data-row-id]").filter(has_text="7005").first.click()
        await page.get_by_text("deny-all").filter(visible=True).first.wait_for()
        assert not seen.wrong
    print(f"\na drop was in the page after {min(took):.2f} to {max(took):.2f} s")


@pytest.mark.slow
async def test_the_views(shop: Shop, browser: Browser) -> None:
    async with watched(browser) as seen:
        page = seen.page
        await log_in(page, f"{shop.address}#/map?namespace=default", shop.token)
        await page.locator("[data-card-id='default/Deployment/frontend']").first.wait_for()
        await asyncio.to_thread(shop.probe, "frontend", "paymentservice")
        await page.locator("[data-verdicts~=DROPPED]").first.wait_for(state="attached")
        await record(page, "ui-map")
        await view(page, "Flows")
        await page.locator("[data-row-id]").nth(5).wait_for()
        await record(page, "ui-flows")
        await view(page, "Policies")
        await page.get_by_text("deny-all").filter(visible=True).first.wait_for()
        await page.get_by_text("paymentservice").filter(visible=True).first.click()
        await record(page, "ui-policies")
        await view(page, "Nodes")
        await page.get_by_text("node2").filter(visible=True).first.wait_for()
        await record(page, "ui-nodes")
        assert not seen.wrong
    async with watched(browser, color_scheme="dark") as seen:
        await log_in(seen.page, f"{shop.address}#/map?namespace=default", shop.token)
        await seen.page.locator("[data-edge-id]").first.wait_for(state="attached")
        await record(seen.page, "ui-map-dark")
