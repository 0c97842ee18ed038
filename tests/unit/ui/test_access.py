"""Who gets in, from where, and what a browser may do with what it gets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from axoneme.ui.access import COOKIE
from axoneme.ui.config import UiConfig

from .conftest import TOKEN, Start

MAP, LOGIN = "/api/v1/map", "/api/v1/login"
OWN = {"Sec-Fetch-Site": "same-origin"}


async def test_without_a_token_there_is_the_page_and_nothing_else(start: Start) -> None:
    client = await start(logged_in=False)
    assert (await client.get("/")).status == 200
    session = await client.get("/api/v1/session")
    assert (await session.json())["authenticated"] is False
    for path in ("map", "map/stream", "flows", "flows/stream", "timeline", "meta", "policies", "nodes"):
        refused = await client.get(f"/api/v1/{path}")
        assert refused.status == 401, path
        assert refused.content_type == "application/problem+json"


async def test_a_token_opens_a_session_that_scripts_and_other_sites_cannot_use(start: Start) -> None:
    client = await start(logged_in=False, prefix="/axo")
    done = await client.post("/axo" + LOGIN, json={"token": TOKEN}, headers=OWN)
    assert done.status == 204
    cookie = done.cookies[COOKIE]
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Strict", "/axo/")
    assert (await client.get("/axo" + MAP)).status == 200
    assert (await client.post("/axo/api/v1/logout", json={}, headers=OWN)).status == 204
    again = await client.get("/axo" + MAP, headers={"Cookie": f"{COOKIE}={cookie.value}"})
    assert again.status == 401, "a session that has ended stays so, whoever kept the cookie"


async def test_a_token_in_the_address_is_none(start: Start) -> None:
    client = await start(logged_in=False)
    assert (await client.get(f"{MAP}?token={TOKEN}&access_token={TOKEN}")).status == 401


async def test_a_session_ends_with_its_token(start: Start, token_file: Path) -> None:
    client = await start(logged_in=False)
    await client.post(LOGIN, json={"token": TOKEN}, headers=OWN)
    assert (await client.get(MAP)).status == 200
    token_file.write_text("another-token-of-32-characters--\n")
    assert (await client.get(MAP)).status == 401


async def test_guessing_is_slowed_down(start: Start) -> None:
    client = await start(logged_in=False)
    found = [(await client.post(LOGIN, json={"token": str(n)}, headers=OWN)).status for n in range(8)]
    assert found == [401] * 5 + [429] * 3
    refused = await client.post(LOGIN, json={"token": TOKEN}, headers=OWN)
    assert refused.status == 429
    assert int(refused.headers["Retry-After"]) > 0


async def test_names_that_lead_here_are_not_ours(start: Start) -> None:
    """DNS rebinding: a page's own name, made to lead to this address."""
    client = await start(hosts=["ui.example.com"])
    for host, status in (
        ("evil.example", 403),
        ("localhost.evil.example:12000", 403),
        ("127.0.0.1:12000", 200),
        ("[::1]:12000", 200),
        ("localhost", 200),
        ("UI.example.com:443", 200),
    ):
        assert (await client.get(MAP, headers={"Host": host})).status == status, host


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_pages_elsewhere_can_ask_nothing(start: Start, headers: dict[str, str]) -> None:
    client = await start()
    assert (await client.post("/api/v1/policies/validate", json={"yaml": ""}, headers=headers)).status == 403
    assert (await client.get(MAP, headers=headers)).status == 403
    assert (await client.post(LOGIN, json={"token": TOKEN}, headers=headers)).status == 403


async def test_what_changes_something_is_no_form(start: Start) -> None:
    """A form of another page can post only what is no JSON, and tells where it is from."""
    client = await start(logged_in=False)
    assert (await client.post(LOGIN, data={"token": TOKEN}, headers=OWN)).status == 415
    assert (await client.post(LOGIN, json={"token": TOKEN})).status == 403, "nobody says where it is from"


async def test_a_proxy_is_believed_at_its_address_alone(start: Start) -> None:
    name = {"X-Forwarded-User": "ada"}
    near = await start(logged_in=False, proxy=_proxy("127.0.0.0/8"))
    session = await (await near.get("/api/v1/session", headers=name)).json()
    assert (session["authenticated"], session["login"], session["user"]) == (True, "proxy", "ada")
    assert (await near.get(MAP, headers={"X-Forwarded-User": ""})).status == 401
    far = await start(logged_in=False, proxy=_proxy("10.0.0.5/32"))
    assert (await far.get(MAP, headers=name)).status == 401


def _proxy(address: str) -> object:
    from axoneme.ui.config import ProxyConfig

    return ProxyConfig([address])


async def test_the_page_runs_no_script_that_stands_in_it(start: Start) -> None:
    client = await start(logged_in=False)
    page = await client.get("/")
    policy = page.headers["Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == rules["worker-src"] == rules["connect-src"] == "'self'"
    assert "unsafe" not in policy
    nonce = re.search(r"'nonce-([^']+)'", rules["style-src"])
    assert nonce and nonce[1] in await page.text()
    assert nonce[1] not in await (await client.get("/")).text(), "another each time"
    for path in ("/", "/assets/app-1234.js", MAP, "/nothing"):
        headers = (await client.get(path)).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert "Access-Control-Allow-Origin" not in headers


async def test_only_the_pages_files_are_served(start: Start, page: Path) -> None:
    client = await start(logged_in=False, prefix="/axo")
    asset = await client.get("/axo/assets/app-1234.js")
    assert "immutable" in asset.headers["Cache-Control"]
    for path in (
        "/axo/../secret",
        "/axo/%2e%2e/secret",
        "/axo/..%2fsecret",
        "/axo/assets/..%2f..%2fsecret",
        "/axo/assets",
        "/axo/assets/app-1234.js%00",
    ):
        assert (await client.get(path)).status == 404, path
    assert (await client.get("/axo", allow_redirects=False)).headers["Location"] == "/axo/"
    assert (await client.get("/")).status == 404


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"listen": "0.0.0.0:12000", "token_file": "t"}, "do not leave this one without TLS"),
        ({"listen": ":12000", "login": "none", "certificate": "c", "key": "k"}, "lets everybody in"),
        ({}, "token_file is missing"),
        ({"certificate": "c", "token_file": "t"}, "certificate and key belong together"),
        ({"prefix": "axo/", "token_file": "t"}, "prefix"),
        ({"listen": "localhost:1", "token_file": "t"}, "listen"),
    ],
)
def test_a_configuration_that_would_let_others_in_is_refused(config: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        UiConfig(**config).check()  # type: ignore[arg-type]
