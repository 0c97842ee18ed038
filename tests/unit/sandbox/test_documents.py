"""Objects as JSON: read with tolerance, changed one field at a time."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axoneme.model import documents
from axoneme.sandbox import admission
from axoneme.sandbox.errors import SandboxError
from axoneme.sandbox.layout import check_name
from axoneme.sandbox.objects import LabelSelector, Metadata, ObjectKey, Pod, read
from axoneme.sandbox.plan import Family, Plan
from axoneme.sandbox.workloads.changes import Surroundings

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)
OBJECTS = st.dictionaries(st.text(max_size=3), VALUES, max_size=4)
SURROUNDINGS = Surroundings(now="2026-01-01T00:00:00Z", suffix=lambda: "x", uid=lambda: "new")


@given(OBJECTS, st.text(max_size=3), VALUES)
def test_a_changed_field_leaves_all_others(before: dict[str, object], name: str, value: object) -> None:
    after = documents.with_field(json.dumps(before).encode(), (name,), value)
    assert json.loads(after) == {**before, name: value}


def test_a_path_is_made_where_it_is_missing_or_null() -> None:
    changed = documents.with_field(b'{"a":null,"z":1}', ("a", "b", "c"), 2)
    assert json.loads(changed) == {"a": {"b": {"c": 2}}, "z": 1}
    assert documents.field(changed, ("a", "b", "c")) == b"2"
    assert documents.field(changed, ("a", "x", "c")) is None


@given(OBJECTS)
def test_a_fingerprint_does_not_know_the_order_of_keys(value: dict[str, object]) -> None:
    turned = dict(reversed(list(value.items())))
    assert documents.fingerprint(value) == documents.fingerprint(turned)
    assert set(documents.fingerprint(value)) <= set(documents.ALPHABET)


def test_nulls_count_as_absent() -> None:
    pod = read(b'{"metadata":{"name":"a","labels":null},"spec":{"containers":null}}', Pod)
    assert (pod.metadata.labels, pod.spec.containers) == ({}, ())


@pytest.mark.parametrize("key", [ObjectKey("Pod", "default", "a"), ObjectKey("Node", "", "n")])
def test_keys_are_read_back_from_their_paths(key: ObjectKey) -> None:
    assert ObjectKey.parse(key.path()) == key


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ({"operator": "In", "values": ["b", "c"]}, True),
        ({"operator": "NotIn", "values": ["b"]}, False),
        ({"operator": "Exists"}, True),
        ({"operator": "DoesNotExist"}, False),
    ],
)
def test_label_selectors(expression: dict[str, object], expected: bool) -> None:
    spec = {"matchLabels": {"x": "y"}, "matchExpressions": [{"key": "a", **expression}]}
    selector = read(json.dumps(spec).encode(), LabelSelector)
    assert selector.matches({"x": "y", "a": "b"}) is expected
    assert not selector.matches({"a": "b"})


def test_a_pod_is_completed_and_then_stays_as_it_is() -> None:
    key = ObjectKey("Pod", "n", "p")
    once = admission.complete(key, b'{"kind":"Pod","metadata":{"name":"p"},"spec":{"x":1}}', SURROUNDINGS)
    pod = json.loads(once)
    assert pod["metadata"] == {
        "name": "p",
        "namespace": "n",
        "uid": "new",
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    assert pod["spec"] == {"x": 1, "serviceAccountName": "default", "restartPolicy": "Always"}
    assert pod["status"]["phase"] == "Pending"
    assert admission.admitted(key, read(once, Pod).metadata)
    assert json.loads(admission.complete(key, once, SURROUNDINGS)) == pod


def test_a_namespace_gets_the_label_with_its_name() -> None:
    new = admission.namespace("land", SURROUNDINGS)
    assert json.loads(new.document)["metadata"]["labels"] == {"kubernetes.io/metadata.name": "land"}
    assert not admission.admitted(new.key, Metadata(name="land", uid="u", creation_timestamp="t"))


@pytest.mark.parametrize("name", ["a", "demo", "a-1", "x" * 32])
def test_good_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("nodes", [0, 65, -1])
def test_a_plan_with_a_wrong_number_of_nodes_is_refused(nodes: int) -> None:
    with pytest.raises(SandboxError, match="give 1 to 64"):
        Plan(name="a", nodes=nodes).check()


@pytest.mark.parametrize(("family", "count"), [(Family.IPV4, 1), (Family.IPV6, 1), (Family.DUAL, 2)])
def test_nodes_have_addresses_of_the_plans_families(family: Family, count: int) -> None:
    nodes = list(Plan(name="a", nodes=64, family=family).all_nodes())
    assert len({address for node in nodes for address in node.addresses()}) == 64 * count
