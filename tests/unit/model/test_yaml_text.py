"""YAML and JSON become the values that Kubernetes' tools make of them, or are refused with the line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from axoneme.model.paths import ManifestError
from axoneme.model.yamltext import documents


def one(text: str) -> Any:
    (document,) = documents(text, "f")
    return document.value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", True),
        ("Off", False),
        ("~", None),
        ("0644", 0o644),
        ("0x1F", 31),
        ("1_000", 1000),
        ("80.0", 80),
        ("1e3", 1000),
        ("0.5", 0.5),
        ("2001-01-01", "2001-01-01"),
        ("12:30:45", "12:30:45"),
        ("2001:db8::1", "2001:db8::1"),
        ("1.2.3", "1.2.3"),
        ('"80"', "80"),
        ("!!str 80", "80"),
        ("|\n  yes\n", "yes\n"),
    ],
)
def test_scalars(text: str, value: object) -> None:
    found = one(f"x: {text}")["x"]
    assert (found, type(found)) == (value, type(value))


def test_references_and_merges() -> None:
    text = "a: &a {x: 1, y: 2}\nb: *a\nc: {<<: *a, y: 3}\nd: {<<: [{y: 4}, *a]}"
    assert one(text) == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 1, "y": 2},
        "c": {"x": 1, "y": 3},
        "d": {"y": 4, "x": 1},
    }


def test_documents_know_their_lines() -> None:
    assert [(each.line, each.value) for each in documents("a: 1\n---\n\n\nb: 2\n", "f")] == [
        (1, {"a": 1}),
        (5, {"b": 2}),
    ]
    assert [each.line for each in documents('{"a": 1}\n\n{"b": 2}', "f")] == [1, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", 'f:2: a: found the key "a" twice in one mapping; each key may stand once'),
        ('{"a": 1, "a": 2}', 'f:1: found the key "a" twice in one object; each key may stand once'),
        ("a: *b", "f:1: a: found the reference *b; it must follow the end of what it refers to"),
        ("a:\n- !!binary aaaa", "f:2: a[0]: found the tag tag:yaml.org,2002:binary on"),
        ("a: .inf", "f:1: a: found .inf; this is no number in JSON"),
        ("? [a]\n: b", "f:1: found a mapping or list as a key; a key must be a string"),
        ("a: [1\nb: 2", "f:2: "),
        ('{"a": "\\ud800"}', "f:1: found characters that are no text; UTF-8 belongs here"),
        ("a: \udc80", "f: found characters that are no text; UTF-8 belongs here"),
        ("[" * 300, "found more than 200 mappings and lists inside each other"),
        ("\0", "YAML or JSON belongs here"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(ManifestError) as caught:
        list(documents(text, "f"))
    assert message in str(caught.value)


def test_references_that_blow_up_are_refused_in_good_time() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(ManifestError, match="more than 1000000 values"):
        list(documents("\n".join(lines), "f"))


TEXTS = st.text(max_size=8)
#: Words that are strings to every YAML writer: that 1e3 is a number, PyYAML and kubectl do not agree on.
WORDS = st.text("ab:-#'\" \n~.é", max_size=8)


def values(texts: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    plain: st.SearchStrategy[Any] = st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | texts,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
        max_leaves=12,
    )
    return st.dictionaries(texts, plain, max_size=4)


@given(values(TEXTS))
def test_json_is_read_as_json(value: dict[str, Any]) -> None:
    assert one(json.dumps(value)) == value


@given(values(WORDS))
def test_what_a_yaml_writer_writes_comes_back(value: dict[str, Any]) -> None:
    import yaml

    assert one(yaml.safe_dump(value)) == value


@settings(max_examples=400)
@given(st.text(st.sampled_from("ab01:-#&*!|>{}[],'\"? \n<~%\\x\0\ud800"), max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        for document in documents(text, "f"):
            json.dumps(document.value, allow_nan=False)
    except ManifestError as error:
        assert str(error)
