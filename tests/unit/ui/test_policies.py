"""Texts of policies: what is wrong in them, and where."""

from __future__ import annotations

import pytest

from axoneme.model.state import EndpointState
from axoneme.ui.policylist import as_yaml
from axoneme.ui.positions import Positions
from axoneme.ui.validation import validation

POLICY = """\
# a comment
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: web
spec:
  podSelector:
    matchLabels:
      app: web
  ingress:
  - ports:
    - port: {port}
"""
PODS = [
    EndpointState(
        1,
        "node1",
        300,
        namespace="default",
        pod="web-1",
        labels=["k8s:app=web", "k8s:io.kubernetes.pod.namespace=default"],
    )
]


def test_a_sound_policy_is_valid() -> None:
    found = validation(POLICY.format(port=80), [], PODS, [])
    assert found.valid
    assert not found.problems
    assert [(ref.kind, ref.namespace, ref.name) for ref in found.objects] == [
        ("NetworkPolicy", "default", "web")
    ]


def test_what_is_wrong_is_shown_where_it_stands() -> None:
    text = POLICY.format(port=80) + "---\n" + POLICY.format(port=99999)
    (problem,) = validation(text, [], PODS, []).problems
    assert problem.path == "spec.ingress[0].ports[0].port"
    assert text.splitlines()[problem.line - 1].strip() == "- port: 99999"
    assert text.splitlines()[problem.line - 1][problem.column - 1 :].startswith("port")


def test_a_trap_is_shown_where_it_stands() -> None:
    text = POLICY.format(port=80).replace("app: web", "app: nobody")
    found = validation(text, [], PODS, [])
    assert found.valid
    trap = next(each for each in found.findings if each.code == "AXO204")
    assert text.splitlines()[trap.line - 1].strip() == "podSelector:"


@pytest.mark.parametrize(
    ("text", "line"), [("a: [", 1), ("a: 1\n---\n\nb: {\n", 1), ("- x\n", 1), ("kind: Pod\n", 1)]
)
def test_a_text_that_is_no_policy(text: str, line: int) -> None:
    found = validation(text, [], [], [])
    assert not found.valid
    assert found.problems[0].line == line


def test_objects_of_other_kinds_are_no_policies() -> None:
    found = validation("apiVersion: v1\nkind: Namespace\nmetadata: {name: x}\n", [], [], [])
    assert not found.valid
    assert "policies belong here" in found.problems[0].message


def test_positions_of_what_is_missing_are_those_of_the_nearest() -> None:
    positions = Positions("a:\n  b:\n  - c: 1\n")
    assert positions.of("text:1", "a.b[0].d.e") == (3, 5)
    assert positions.of("text:1", "a.b[7]") == (2, 3)
    assert positions.of("somewhere", "a") == (0, 0)


def test_yaml_keeps_what_people_write() -> None:
    assert as_yaml([{"kind": "X", "spec": {"name": "Käse"}}]) == "kind: X\nspec:\n  name: Käse\n"
