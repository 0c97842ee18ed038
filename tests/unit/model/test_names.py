"""Which DNS names a policy means. The judge is the regular expression of the published semantics."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, strategies

from axoneme.model.l7 import NameMatch
from axoneme.model.names import EVERY_NAME, NameIndex, canonical, matches, parse_name_match
from axoneme.model.paths import ManifestError, Place

CHARACTER = "[-a-zA-Z0-9_]"
LABELS = strategies.text("ab-_", min_size=1, max_size=4)
NAMES = strategies.lists(LABELS, min_size=1, max_size=5).map(".".join)
#: Of few letters, so that many match.
PATTERNS = strategies.lists(
    strategies.text("ab*", min_size=1, max_size=4) | strategies.just("**"), min_size=1, max_size=4
).map(".".join)


def pattern(text: str) -> NameMatch:
    return parse_name_match(Place({"matchPattern": text}, "p"))


def published(text: str) -> re.Pattern[str]:
    """For names with a trailing dot: cilium, pkg/fqdn/matchpattern."""
    text = text.strip().lower()
    text = text if text.endswith(".") else text + "."
    if not text.rstrip(".").strip("*"):
        return re.compile(rf"(^({CHARACTER}+[.])+$)|(^[.]$)")
    below = f"({CHARACTER}+([.]{CHARACTER}+){{0,}})[.]" if text.startswith("**.") else ""
    text = text.removeprefix("**.") if below else text
    return re.compile("^" + below + re.sub(r"\*+", f"{CHARACTER}*", text.replace(".", "[.]")) + "$")


@given(NAMES, PATTERNS)
def test_a_pattern_matches_what_the_published_expression_matches(name: str, text: str) -> None:
    assert matches(pattern(text), name) == bool(published(text).match(name + "."))


@given(NAMES, strategies.lists(PATTERNS | NAMES, max_size=8), strategies.data())
def test_an_index_finds_what_matches(name: str, texts: list[str], data: strategies.DataObject) -> None:
    selectors = [pattern(text) for text in texts]
    index = NameIndex(selectors)
    for gone in data.draw(
        strategies.lists(strategies.sampled_from(selectors)) if selectors else strategies.just([])
    ):
        index.discard(gone)
        selectors = [each for each in selectors if each != gone]
    found = index.matching(name)
    assert len(found) == len(set(found)) and set(found) == {m for m in selectors if matches(m, name)}
    assert index.matches(name) == bool(found)


@pytest.mark.parametrize(
    ("text", "named", "others"),
    [
        ("*.c.io", ["sub.c.io"], ["c.io", "a.b.c.io", "subc.io"]),
        ("*c.io", ["c.io", "subc.io"], ["www.c.io"]),
        ("sub*.c.io", ["sub.c.io", "sub-1.c.io"], ["xsub.c.io", "sub.x.c.io"]),
        ("**.c.io", ["a.c.io", "b.a.c.io"], ["c.io", "ac.io", r"a\.c.io"]),
        ("**c.io", ["c.io", "ac.io"], ["a.c.io"]),
        ("*.c.io", [], [r"a\.b.c.io", r"\000.c.io", "é.c.io"]),
        ("A.Io", ["a.io"], ["b.io"]),
        ("*", ["", "io", "a.b.c", r"a\.b"], []),
        ("a*b*a.io", ["aba.io", "aabbaa.io", "ababa.io"], ["ab.io", "aa.io"]),
    ],
)
def test_examples(text: str, named: list[str], others: list[str]) -> None:
    assert [name for name in named + others if matches(pattern(text), name)] == named


@pytest.mark.parametrize("text", ["*", "**", "*.", "***"])
def test_stars_alone_are_every_name(text: str) -> None:
    assert pattern(text) == EVERY_NAME


def test_one_name_has_one_form() -> None:
    assert canonical("WWW.Example.COM.") == "www.example.com"
    assert canonical("\N{KELVIN SIGN}") == "\N{KELVIN SIGN}"
    assert pattern("A.example.com.") == parse_name_match(Place({"matchName": "a.EXAMPLE.com"}, "p"))


def test_many_stars_take_no_time() -> None:
    """A backtracking matcher would need some 10^40 steps."""
    assert not matches(pattern("*a" * 60 + "*b"), "a" * 120)


@pytest.mark.parametrize(
    "item",
    [
        {},
        {"matchName": "a.io", "matchPattern": "*"},
        {"matchName": ""},
        {"matchName": None, "matchPattern": "*"},
        {"matchName": "*.io"},
        {"matchName": "a b"},
        {"matchName": "a.io\n"},
        {"matchPattern": "a.[a-z]"},
        {"matchPattern": "a" * 256},
        {"matchName": 7},
        {"name": "a"},
        "a.io",
    ],
)
def test_what_is_refused(item: object) -> None:
    with pytest.raises(ManifestError):
        parse_name_match(Place(item, "p"))
