"""`axo policy why`: which agent is asked what, and the exit code that scripts go by."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from axoneme.rpc import NOT_FOUND, RpcError

from .conftest import Axo, Params, Sandbox, serving


@pytest.fixture
def pods(sandbox: Sandbox) -> Sandbox:
    sandbox.endpoint(1, "web", "10.0.0.1", "node1", 1001)
    sandbox.endpoint(2, "db", "10.0.0.2", "node2", 1002)
    return sandbox


@contextmanager
def agents(sandbox: Sandbox, denied: str = "") -> Iterator[list[tuple[str, Params]]]:
    """Agents on both nodes, which deny a direction; what each was asked."""
    asked: list[tuple[str, Params]] = []

    def answering(node: str) -> object:
        def evaluate(params: Params) -> object:
            asked.append((node, params))
            if params.subject == "default/gone":
                raise RpcError(NOT_FOUND, "there is no pod default/gone on this node")
            closed = params.direction == denied
            rule = {
                "kind": "NetworkPolicy",
                "namespace": "default",
                "name": "closed",
                "rule": "spec.ingress[0]",
            }
            return {
                "verdict": "denied" if closed else "allowed",
                "allowed": not closed,
                "enforced": closed,
                "rules": [rule] if closed else [],
                "subject": {"identity": 1001, "labels": ["k8s:app=web"]},
                "peer": {"identity": 1002, "labels": ["k8s:app=db"]},
                "steps": ["a deny rule applies"] if closed else [],
                "nearest": [{"text": "rule a is near"}, {"text": "rule b is further"}] if closed else [],
                "more": "that this version does not know",
            }

        return evaluate

    with ExitStack() as stack:
        for node in ("node1", "node2"):
            path = sandbox.layout.node(node).agent_socket
            stack.enter_context(serving(path, {"policy.evaluate": answering(node)}))  # type: ignore[dict-item]
        yield asked


def test_each_direction_is_asked_where_its_subject_lives(axo: Axo, pods: Sandbox) -> None:
    with agents(pods) as asked:
        found = axo("policy", "why", "--from", "web", "--to", "default/db", "--port", "5432/tcp")
    assert found.code == 0
    assert found.lines[0] == "allowed: default/web -> default/db 5432/TCP"
    egress, ingress = asked
    assert egress[0] == "node1"
    assert (egress[1].direction, egress[1].subject, egress[1].peer) == (
        "egress",
        "default/web",
        {"identity": 1002},
    )
    assert ingress[0] == "node2"
    assert (ingress[1].direction, ingress[1].subject, ingress[1].peer) == (
        "ingress",
        "default/db",
        {"identity": 1001},
    )
    assert (ingress[1].protocol, ingress[1].port) == ("TCP", 5432)


@pytest.mark.parametrize("direction", ["egress", "ingress"])
def test_denied_in_either_direction_is_exit_code_3(axo: Axo, pods: Sandbox, direction: str) -> None:
    with agents(pods, denied=direction):
        found = axo("policy", "why", "--from", "web", "--to", "db", "--port", "80")
        document = axo("policy", "why", "--from", "web", "--to", "db", "--port", "80", "-o", "json")
    assert found.code == document.code == 3
    assert found.lines[0].startswith("denied: ")
    assert "NetworkPolicy default/closed spec.ingress[0]" in found.out
    assert "a deny rule applies" in found.out
    assert document.json["verdict"] == "denied"
    assert document.json[direction]["verdict"] == "denied"
    assert "nearest  rule a is near" in found.out and "rule b" not in found.out
    assert [each["text"] for each in document.json[direction]["nearest"]] == [
        "rule a is near",
        "rule b is further",
    ]


def test_addresses(axo: Axo, pods: Sandbox) -> None:
    with agents(pods) as asked:
        assert axo("policy", "why", "--from", "web", "--to", "192.0.2.7", "--port", "53/UDP").code == 0
        assert [(params.direction, params.peer) for _, params in asked] == [
            ("egress", {"address": "192.0.2.7"})
        ]
        asked.clear()
        assert axo("policy", "why", "--from", "2001:DB8:0::7", "--to", "10.0.0.2", "--port", "80").code == 0
        assert [(params.subject, params.peer) for _, params in asked] == [
            ("default/db", {"address": "2001:db8::7"})
        ], "an address that is a pod's means the pod"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--from", "nobody", "--to", "db", "--port", "80"), 1, '"nobody" not found'),
        (("--from", "192.0.2.1", "--to", "192.0.2.2", "--port", "80"), 1, "neither"),
        (("--from", "web", "--to", "db", "--port", "http"), 2, "80/TCP"),
        (("--from", "web", "--to", "db", "--port", "80/GRE"), 2, "TCP, UDP"),
        (("--from", "web", "--to", "db", "--port", "70000"), 2, "65535"),
        (("--from", "web", "--port", "80"), 2, "--to"),
        (("--from", "gone", "--to", "db", "--port", "80"), 1, "the agent of node1"),
    ],
)
def test_what_cannot_be_said(axo: Axo, pods: Sandbox, words: tuple[str, ...], code: int, said: str) -> None:
    pods.endpoint(3, "gone", "10.0.0.3", "node1", 1003)
    with agents(pods):
        found = axo("policy", "why", *words)
    assert found.code == code
    assert said in found.err


def test_without_its_agent_nothing_can_be_said(axo: Axo, pods: Sandbox) -> None:
    found = axo("policy", "why", "--from", "web", "--to", "db", "--port", "80")
    assert found.code == 1
    assert "agent of node1" in found.err
