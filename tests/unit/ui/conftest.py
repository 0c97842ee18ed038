from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer

from axoneme.ui import server
from axoneme.ui.config import UiConfig
from axoneme.ui.server import UiServer

from .flows import FakeFeed

TOKEN = "a-token-of-32-characters-or-more"

Start = Callable[..., Awaitable[TestClient]]


@pytest.fixture
def feed() -> FakeFeed:
    return FakeFeed()


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    return path


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In place of what ui/ is built into."""
    static = tmp_path / "static"
    (static / "assets").mkdir(parents=True)
    (static / "index.html").write_text('<meta name="csp-nonce" content="__CSP_NONCE__">')
    (static / "assets" / "app-1234.js").write_text("export {}")
    (tmp_path / "secret").write_text("not for you")
    monkeypatch.setattr(server, "STATIC", static)
    return static


@pytest.fixture
async def start(feed: FakeFeed, token_file: Path, page: Path) -> AsyncIterator[Start]:
    """A server with this configuration, and a client that is not logged in."""
    async with AsyncExitStack() as stack:

        async def begin(logged_in: bool = True, **config: object) -> TestClient:
            made = UiServer(UiConfig(token_file=str(token_file), **config), feed, None)  # type: ignore[arg-type]
            headers = {"Authorization": f"Bearer {TOKEN}"} if logged_in else {}
            client = TestClient(TestServer(made.application()), headers=headers)
            await stack.enter_async_context(client)
            return client

        yield begin
