"""Secrets in URLs and headers are not shown, and everything else is."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axoneme.model.l7event import HTTPEvent
from axoneme.model.redaction import HIDDEN, NEVER, Redaction

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4eHh4In0.c2lnbmF0dXJl"
HEX = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://bob:hunter2@shop/a", f"http://{HIDDEN}@shop/a"),
        ("http://bob@shop", f"http://{HIDDEN}@shop"),
        ("http://shop/a@b", "http://shop/a@b"),
        ("/a?page=2&lang=en", "/a?page=2&lang=en"),
        ("/a?token=x&page=2", f"/a?token={HIDDEN}&page=2"),
        ("/a?access_token=x;p=2", f"/a?access_token={HIDDEN};p=2"),
        ("/a?accessToken=x", f"/a?accessToken={HIDDEN}"),
        ("/a?X-Amz-Signature=1&X-Amz-Date=2", f"/a?X-Amz-Signature={HIDDEN}&X-Amz-Date=2"),
        ("/a?api%5Fkey=1", f"/a?api%5Fkey={HIDDEN}"),
        ("/a?monkey=1&keyboard=2", "/a?monkey=1&keyboard=2"),
        ("/a?password=", "/a?password="),
        ("/a?accesstoken=1&appsecret=2", f"/a?accesstoken={HIDDEN}&appsecret={HIDDEN}"),
        ("/callback?code=3a5f6b&state=2&country_code=DE", f"/callback?code={HIDDEN}&state=2&country_code=DE"),
        ("/a?next=https%3A%2F%2Fbob:pw@shop%2F&b=http://shop/a@b", f"/a?next={HIDDEN}&b=http://shop/a@b"),
        ("http://shop/fetch/http://bob:p@ss@inner/x", f"http://shop/fetch/http://{HIDDEN}@inner/x"),
        (f"/a?q={TOKEN}", f"/a?q={HIDDEN}"),
        (f"/a?{TOKEN}", f"/a?{HIDDEN}"),
        (f"/a?q={HEX}", f"/a?q={HIDDEN}"),
        ("/a?q=a-long-name-of-something-without-digits", "/a?q=a-long-name-of-something-without-digits"),
        (f"/reset/{TOKEN}/done", f"/reset/{HIDDEN}/done"),
        (f"/blobs/{HEX}", f"/blobs/{HEX}"),  # contents are named so
        ("/task-management/sk-learn-examples", "/task-management/sk-learn-examples"),
        ("/keys/sk-proj-0123456789abcdef", f"/keys/{HIDDEN}"),
        ("/a#access_token=x", f"/a#{HIDDEN}"),
        ("", ""),
        ("??&&==;#", "??&&==;#"),
    ],
)
def test_urls(url: str, shown: str) -> None:
    assert Redaction().url(url) == shown


def test_queries_by_configuration() -> None:
    url = f"http://u@h/p?a=1&b=&token=x&{HEX}"
    assert Redaction(query="all").url(url) == f"http://{HIDDEN}@h/p?a={HIDDEN}&b=&token={HIDDEN}&{HIDDEN}"
    assert Redaction(query="none", userinfo=False).url(url) == url
    assert Redaction(query_names=("a",)).url("/p?A=1&b=2") == f"/p?A={HIDDEN}&b=2"


def test_headers_are_shown_by_name_only() -> None:
    headers = (
        ("User-Agent", "curl"),
        ("Authorization", "Basic x"),
        ("X-Other", "1"),
        ("X-Mine", f"t {TOKEN}"),
    )
    event = HTTPEvent("GET", "/", "HTTP/1.1", headers=headers)
    assert Redaction().http(event).headers == (("User-Agent", "curl"),)
    wide = Redaction(headers=("x-mine", *NEVER))
    assert wide.http(event).headers == (("X-Mine", f"t {HIDDEN}"),)
    with pytest.raises(ValueError, match="authorization"):
        wide.check()


@given(
    st.sampled_from(["token", "api_key", "X-Amz-Security-Token", "clientSecret", "PASSWORD", "sig"]),
    st.text(string.ascii_letters + string.digits + "%+-_.~", min_size=1),
    st.lists(st.text(st.characters(exclude_characters="#?&;")), max_size=3),
)
def test_a_named_secret_is_never_shown(name: str, secret: str, others: list[str]) -> None:
    shown = Redaction().url("/path?" + "&".join([*others, f"{name}={secret}", *others]))
    assert f"{name}={HIDDEN}" in shown.partition("?")[2].split("&")
    assert f"{name}={secret}" not in shown.split("&") or secret == HIDDEN


@given(st.text())
def test_any_text_is_taken(url: str) -> None:
    Redaction().url(url)
