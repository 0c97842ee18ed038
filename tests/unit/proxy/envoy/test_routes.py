"""Rules as routes, judged by what the rules mean."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axoneme.model.l7 import HeaderMatch, HTTPRule, Mismatch, SecretRef
from axoneme.proxy.envoy.routes import MOST_CHANGES, UnusableRule, route_configuration

Headers = dict[str, str]
NAMES = ("x-a", "x-b")
VALUES = ("", "1", "2")


def matches(matcher: Any, headers: Headers) -> bool:
    """As Envoy does (HeaderMatcher)."""
    value = headers.get(matcher.name)
    which = matcher.WhichOneof("header_match_specifier")
    if which == "present_match":
        return (value is not None) == matcher.present_match
    if value is None:
        if not matcher.treat_missing_header_as_empty:
            return False
        value = ""
    string = matcher.string_match
    if string.WhichOneof("match_pattern") == "exact":
        found = value == string.exact
    else:
        found = re.fullmatch(string.safe_regex.regex, value) is not None
    return found != matcher.invert_match


def routed(configuration: Any, headers: Headers) -> tuple[str, Headers]:
    """The first route that matches: the word that begins its name, and the headers that go on."""
    (host,) = configuration.virtual_hosts
    for route in host.routes:
        is_connect = route.match.HasField("connect_matcher")
        if is_connect != (headers[":method"] == "CONNECT"):
            continue
        if all(matches(each, headers) for each in route.match.headers):
            after = {
                name: value for name, value in headers.items() if name not in route.request_headers_to_remove
            }
            for each in route.request_headers_to_add:
                value = each.header.value.replace("%%", "%")
                adds = each.append_action == each.APPEND_IF_EXISTS_OR_ADD and each.header.key in after
                after[each.header.key] = f"{after[each.header.key]},{value}" if adds else value
            return route.name.partition(" ")[0], after
    raise AssertionError("no route")


def meant(rules: list[HTTPRule], headers: Headers) -> tuple[str, Headers]:
    """What the rules mean, said plainly: any that matches lets the request pass, and all of these act."""
    after, passes = dict(headers), False
    acts: set[tuple[Mismatch, str, str]] = set()
    for rule in rules:
        fits = all(
            not text or re.fullmatch(text, headers[name])
            for name, text in ((":method", rule.method), (":path", rule.path), (":authority", rule.host))
        )
        for header in rule.headers:
            value = headers.get(header.name)
            same = value is not None and (not header.value or value == header.value)
            if header.mismatch is Mismatch.DENY:
                fits &= same
            fits &= header.name.replace("-", "_") not in headers
        if not fits:
            continue
        passes = True
        for header in rule.headers:
            value = headers.get(header.name)
            if value is None or (header.value and value != header.value):
                acts.add((header.mismatch, header.name, header.value))
    for mismatch, name, _ in acts:
        if mismatch is Mismatch.DELETE:
            after.pop(name, None)
    for mismatch, name, value in sorted(acts, key=lambda act: act[0].value):
        if mismatch is Mismatch.ADD:
            after[name] = f"{after[name]},{value}" if name in after else value
    return ("FORWARDED" if passes else "DROPPED"), after


MATCHES = st.builds(
    HeaderMatch,
    name=st.sampled_from(NAMES),
    value=st.sampled_from(VALUES[1:]),
    mismatch=st.sampled_from([Mismatch.DENY, Mismatch.LOG, Mismatch.ADD, Mismatch.DELETE]),
)
RULES = st.lists(
    st.builds(
        HTTPRule,
        method=st.sampled_from(["", "GET", "GET|PUT", "CONNECT"]),
        path=st.sampled_from(["", "/a", "/[ab]"]),
        host=st.sampled_from(["", "h"]),
        headers=st.lists(MATCHES, max_size=2).map(tuple),
    ),
    max_size=3,
)
REQUESTS = st.fixed_dictionaries(
    {
        ":method": st.sampled_from(["GET", "PUT", "POST"]),
        ":path": st.sampled_from(["/a", "/b", "/c"]),
        ":authority": st.sampled_from(["h", "i"]),
    },
    optional={
        **{name: st.sampled_from(VALUES[1:]) for name in NAMES},
        "x_a": st.just("1"),
        "content-type": st.sampled_from(["application/grpc", "text/plain"]),
    },
)


@given(RULES, REQUESTS)
def test_routes_do_what_rules_mean(rules: list[HTTPRule], headers: Headers) -> None:
    configuration = route_configuration("10000", rules, {}, "onwards", audit=False)
    verdict, after = routed(configuration, headers)
    wanted, changed = meant(rules, headers)
    assert verdict == wanted
    if verdict == "FORWARDED":
        assert {name: sorted(value.split(",")) for name, value in after.items()} == {
            name: sorted(value.split(",")) for name, value in changed.items()
        }


STEPS = st.lists(
    st.sampled_from(["a", ".", "..", "%2e%2E", "..;x", ".%2e", "...", "b..", "", ";", "%2f"]),
    min_size=1,
    max_size=5,
)
SLASHES = st.sampled_from(["/", "\\", "%2f", "%2F", "%5c"])


@given(STEPS, st.lists(SLASHES, min_size=5, max_size=5), st.sampled_from(["", "?..", "?/../%2f.."]))
def test_steps_that_only_some_servers_take_are_ambiguous(
    steps: list[str], slashes: list[str], query: str
) -> None:
    path = "/" + "".join(step + slash for step, slash in zip(steps, slashes, strict=False)) + query
    bare = re.split(r"[?]", path)[0]
    pieces = re.split(r"/|\\|%2[fF]|%5[cC]", bare)[1:]
    wanted = any(re.sub(r"(?i)%2e", ".", re.split(r";|%3[bB]", piece)[0]) in (".", "..") for piece in pieces)
    configuration = route_configuration("10000", [HTTPRule()], {}, "onwards", audit=False)
    verdict, _ = routed(configuration, {":method": "GET", ":path": path, ":authority": "h"})
    assert (verdict == "DROPPED") == wanted, path


def test_connect_has_no_path() -> None:
    rules = [HTTPRule(method="CONNECT", host="there:443"), HTTPRule(path="/a")]
    configuration = route_configuration("10000", rules, {}, "onwards", audit=False)
    for host, wanted in (("there:443", "FORWARDED"), ("elsewhere:443", "DROPPED")):
        verdict, _ = routed(configuration, {":method": "CONNECT", ":authority": host})
        assert verdict == wanted


def test_a_value_is_no_format() -> None:
    rule = HTTPRule(headers=(HeaderMatch("x-a", value="%REQ(x)%", mismatch=Mismatch.REPLACE),))
    configuration = route_configuration("10000", [rule], {}, "onwards", audit=False)
    _, after = routed(configuration, {":method": "GET", ":path": "/", ":authority": "h"})
    assert after["x-a"] == "%REQ(x)%"


def test_more_changes_than_can_be_combined_are_refused() -> None:
    def rule(number: int) -> HTTPRule:
        return HTTPRule(headers=(HeaderMatch("x-a", value=str(number), mismatch=Mismatch.ADD),))

    route_configuration("10000", map(rule, range(MOST_CHANGES)), {}, "onwards", audit=False)
    with pytest.raises(UnusableRule, match="7 different header matches"):
        route_configuration("10000", map(rule, range(MOST_CHANGES + 1)), {}, "onwards", audit=False)


def test_a_secret_that_is_no_text_is_refused() -> None:
    secret = SecretRef("default", "key")
    rule = HTTPRule(headers=(HeaderMatch("x-a", secret=secret),))
    for value in (b"\xff", b"a\nb", b"a\0b", b"a" * 8193):
        with pytest.raises(UnusableRule, match="Secret default/key is not plain text"):
            route_configuration("10000", [rule], {secret: {"k": value}}, "onwards", audit=False)
    route_configuration("10000", [rule], {secret: {"k": b"a b\n"}}, "onwards", audit=False)


@pytest.mark.parametrize(("asked", "other"), [("x-a", "x_a"), ("x_a", "x-a"), ("x-a_b", "x_a-b")])
def test_the_other_spelling_of_a_header_must_not_be_there(asked: str, other: str) -> None:
    rule = HTTPRule(headers=(HeaderMatch(asked, value="1"),))
    configuration = route_configuration("10000", [rule], {}, "onwards", audit=False)
    request = {":method": "GET", ":path": "/", ":authority": "h", asked: "1"}
    assert routed(configuration, request)[0] == "FORWARDED"
    assert routed(configuration, {**request, other: "2"})[0] == "DROPPED"


def test_what_is_only_tried_goes_on() -> None:
    configuration = route_configuration("10000", [HTTPRule(path="/a")], {}, "onwards", audit=True)
    for path, wanted in (("/a", "FORWARDED"), ("/b", "AUDIT"), ("/a/..;/b", "AUDIT")):
        verdict, _ = routed(configuration, {":method": "GET", ":path": path, ":authority": "h"})
        assert verdict == wanted
    assert all(not route.HasField("direct_response") for route in configuration.virtual_hosts[0].routes)
