"""The three-way merge, against a statement of what it shall do for each leaf."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from axoneme.cli.merging import merge, wanted

KEYS = st.sampled_from("abc")
SPECS = st.dictionaries(
    KEYS,
    st.recursive(
        st.integers(0, 2), lambda inner: st.dictionaries(KEYS, inner, min_size=1, max_size=3), max_leaves=4
    ),
    max_size=3,
)


def manifest(spec: Any) -> dict[str, Any]:
    return {"kind": "Thing", "apiVersion": "v1", "metadata": {"name": "x"}, "spec": spec}


def leaves(value: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    if not isinstance(value, dict):
        return {path: value}
    return {name: leaf for key, item in value.items() for name, leaf in leaves(item, (*path, key)).items()}


def below(path: tuple[str, ...], others: Any) -> bool:
    """Whether one of the paths goes through the other."""
    return any(path[: len(each)] == each or each[: len(path)] == path for each in others)


@given(SPECS, SPECS, SPECS)
def test_each_leaf_is_from_whom_it_should_be(last: Any, new: Any, foreign: Any) -> None:
    live = merge(wanted(manifest(last)), wanted(manifest(last)))
    # Others write only where the manifest says nothing.
    written = leaves(last)
    for path, value in leaves(foreign).items():
        if path and not below(path, written):
            place = live["spec"]
            for name in path[:-1]:
                place = place.setdefault(name, {})
                if not isinstance(place, dict):
                    break
            else:
                place[path[-1]] = value
    after = leaves(merge(live, wanted(manifest(new)))["spec"])
    asked = {path: value for path, value in leaves(new).items() if path}
    assert asked.items() <= after.items()
    for path, value in leaves(live["spec"]).items():
        if path and path not in written and not below(path, asked):
            assert after[path] == value, "it is somebody else's"
    for path in written:
        if path and not below(path, asked):
            assert path not in after, "it is said no more"


@given(SPECS)
def test_applying_again_changes_nothing(spec: Any) -> None:
    live = wanted(manifest(spec))
    assert merge(live, wanted(manifest(spec))) == live


def test_defaults_in_a_list_stay_while_the_list_is_the_same() -> None:
    live = wanted(manifest({"ports": [{"port": 80}]}))
    live["spec"]["ports"][0]["protocol"] = "TCP"
    assert merge(live, wanted(manifest({"ports": [{"port": 80}]}))) == live
    changed = merge(live, wanted(manifest({"ports": [{"port": 81}]})))
    assert changed["spec"]["ports"] == [{"port": 81}]


def test_a_null_is_nothing() -> None:
    live = wanted(manifest({"a": 1, "b": 2}))
    assert merge(live, wanted(manifest({"a": None, "b": 2})))["spec"] == {"b": 2}
