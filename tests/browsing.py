"""A real Chromium, and what it does not let a page do."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.async_api import Browser, Locator, Page, async_playwright

ROOT = Path(__file__).resolve().parents[1]
AXE = ROOT / "ui" / "node_modules" / "axe-core" / "axe.min.js"
STATIC = ROOT / "src" / "axoneme" / "ui" / "static"

_CHROMIUM = shutil.which("chromium")


def need_page() -> None:
    """Skips the test where there is no browser, or the page was not built."""
    if _CHROMIUM is None:
        pytest.skip("needs Debian's chromium")
    if not (STATIC / "index.html").exists():
        pytest.skip("needs the web UI's page, which needs npm: make ui")


@dataclass
class Watched:
    """A page, with what went wrong in it."""

    page: Page
    wrong: list[str] = field(default_factory=list)


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    need_page()
    async with async_playwright() as playwright:
        # Tests may be root, whom Chromium gives no sandbox.
        browser = await playwright.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def watched(browser: Browser, **context: object) -> AsyncIterator[Watched]:
    """A page in a context of its own. Errors of scripts, dialogs and whatever the Content-Security-Policy
    has refused are kept."""
    made = await browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **context})  # type: ignore[arg-type]
    try:
        page = await made.new_page()
        found = Watched(page)
        page.on("pageerror", lambda error: found.wrong.append(f"error: {error}"))
        page.on("dialog", lambda dialog: found.wrong.append(f"dialog: {dialog.message}"))
        page.on(
            "console",
            lambda said: found.wrong.append(said.text) if "Content Security Policy" in said.text else None,
        )
        yield found
    finally:
        await made.close()


async def log_in(page: Page, address: str, token: str) -> None:
    await page.goto(address)
    await page.get_by_label("Token").fill(token)
    await page.get_by_role("button", name="Sign in").click()
    await _views(page).wait_for()


async def view(page: Page, name: str) -> None:
    """Goes to one of the views."""
    await _views(page).get_by_role("link", name=name).click()


def _views(page: Page) -> Locator:
    return page.get_by_role("navigation", name="Views")


async def violations(page: Page) -> list[str]:
    """What axe finds that is serious or worse; the page's policy has to be bypassed for it."""
    if not AXE.exists():
        pytest.skip("needs axe-core: npm ci in ui/")
    await page.evaluate(AXE.read_text())
    found = await page.evaluate("axe.run({resultTypes: ['violations']})")
    return [
        f"{each['id']} ({each['impact']}): {each['help']}: {each['nodes'][0]['html'][:200]}"
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
    ]
