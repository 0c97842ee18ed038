"""`axo policy lint`: of files and of a sandbox, its forms and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from axoneme.model.labels import CLUSTER, NAMESPACE
from axoneme.model.state import EndpointState, NodeState, encode, endpoint_key, node_key

from .conftest import Axo, Sandbox

NOTE = {"podSelector": {}, "ingress": [{}]}
WARNING = {"podSelector": {"matchLabels": {"app": "wep"}}}
ERROR = {"podSelector": {"matchLabels": {"pod-template-hash": "x"}}}


def policy(spec: object, name: str = "p") -> dict[str, object]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }


@pytest.mark.parametrize(
    ("spec", "strict", "code", "summary"),
    [
        ({"podSelector": {}}, True, 0, "0 errors, 0 warnings, 0 notes in 1 policy"),
        (NOTE, True, 0, "0 errors, 0 warnings, 1 note in 1 policy"),
        (WARNING, False, 0, "0 errors, 1 warning, 0 notes in 1 policy"),
        (WARNING, True, 1, "0 errors, 1 warning, 0 notes in 1 policy"),
        (ERROR, False, 1, "1 error, 0 warnings, 0 notes in 1 policy"),
    ],
)
def test_exit_codes(axo: Axo, sandbox: Sandbox, spec: object, strict: bool, code: int, summary: str) -> None:
    sandbox.endpoint(1, "web", "10.244.0.2")
    sandbox.put(policy(spec))
    found = axo("policy", "lint", *(["--strict"] if strict else []))
    assert found.code == code
    assert found.lines[-1] == summary


def test_a_sandbox_is_known_as_a_whole(axo: Axo, sandbox: Sandbox) -> None:
    labels = ["k8s:app=web", f"k8s:{NAMESPACE}=default", f"k8s:{CLUSTER}=default"]
    pod = EndpointState(1, "node1", 1000, ["10.9.0.2"], "default", "web", labels=labels)
    sandbox.put_raw({endpoint_key("node1", 1): encode(pod)})
    node = NodeState("node1", ["172.31.0.1"], pod_cidrs=["10.9.0.0/24"])
    sandbox.put_raw({node_key("node1"): encode(node)})
    peers = [{"namespaceSelector": {"matchLabels": {"team": "gone"}}}, {"ipBlock": {"cidr": "10.9.0.0/28"}}]
    sandbox.put(policy({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"from": peers}]}))
    found = axo("policy", "lint", "-o", "json")
    assert [(each["code"], each["severity"], each["path"]) for each in found.json] == [
        ("AXO205", "warning", "spec.ingress[0]"),
        ("AXO301", "error", "spec.ingress[0]"),
    ]
    assert found.json[1]["object"] == {"kind": "NetworkPolicy", "namespace": "default", "name": "p"}
    assert "10.9.0.0/24" in found.json[1]["found"]
    assert {"title", "origin", "why", "remedy"} <= found.json[0].keys()
    assert found.code == 1
    assert axo("policy", "lint", "--ignore", "AXO301").code == 0


def test_files_need_no_sandbox(axo: Axo, tmp_path: Path) -> None:
    for index in range(2):
        (tmp_path / f"{index}.json").write_text(json.dumps(policy(ERROR, f"p{index}")))
    found = axo("policy", "lint", str(tmp_path))
    assert found.code == 1
    assert found.lines[0] == f"NetworkPolicy default/p0 ({tmp_path}/0.json:1): spec.podSelector"
    assert found.lines[1].startswith("  error AXO202 a label outside the identity is asked for: ")
    assert sum("Policies see only labels" in line for line in found.lines) == 1, "what a trap is, once"
    assert axo("policy", "lint", "-", stdin=json.dumps(policy({"podSelector": {}}))).code == 0


def test_ranges_of_ones_own(axo: Axo, tmp_path: Path) -> None:
    spec = {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.9.1.0/24"}}]}]}
    (tmp_path / "p.json").write_text(json.dumps(policy(spec)))
    assert axo("policy", "lint", str(tmp_path)).code == 0
    assert axo("policy", "lint", str(tmp_path), "--pod-cidr", "10.9.0.0/16").code == 1


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("gone.yaml",), 2, "gone.yaml"),
        (("--ignore", "AXO999"), 2, "no such code"),
        (("--pod-cidr", "10.9.0.1/16"), 2, "host bits"),
        (("--sandbox", "other"), 1, "there is no sandbox other"),
    ],
)
def test_calls_that_make_no_sense(
    axo: Axo, sandbox: Sandbox, words: tuple[str, ...], code: int, said: str
) -> None:
    found = axo("policy", "lint", *words)
    assert found.code == code
    assert said in found.err
