"""`axo policy why`: which agent is asked what, and the exit code that scripts go by."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from axoneme.model.state import NodeState, encode, node_key
from axoneme.rpc import NOT_FOUND, RpcError

from .conftest import Axo, Params, Sandbox, serving


@pytest.fixture
def pods(sandbox: Sandbox) -> Sandbox:
    sandbox.endpoint(1, "web", "10.0.0.1", "node1", 1001)
    sandbox.endpoint(2, "db", "10.0.0.2", "node2", 1002)
    return sandbox


def service(name: str, address: str, *backends: object, kind: str = "ClusterIP") -> object:
    """One, on port 80, as an agent tells it."""
    frontend = {"address": address, "port": 80, "type": kind}
    return {
        "name": name,
        "port": "http",
        "protocol": "TCP",
        "numbers": [1],
        "frontends": [frontend],
        "backends": backends,
    }


def backend(address: str, **more: object) -> object:
    return {"number": 1, "services": [1], "address": address, "port": 8080, "state": "active"} | more


@contextmanager
def agents(
    sandbox: Sandbox, denied: str = "", denied_on: str = "", services: tuple[object, ...] = ()
) -> Iterator[list[tuple[str, Params]]]:
    """Agents on both nodes, which deny a direction; what each was asked, other than for services."""
    asked: list[tuple[str, Params]] = []

    def answering(node: str) -> object:
        def evaluate(params: Params) -> object:
            asked.append((node, params))
            if params.subject == "default/gone":
                raise RpcError(NOT_FOUND, "there is no pod default/gone on this node")
            closed = params.direction == denied and denied_on in ("", node)
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
            methods = {"policy.evaluate": answering(node), "services": lambda _: list(services)}
            stack.enter_context(serving(path, methods))  # type: ignore[arg-type]
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


def test_a_dns_name_is_for_the_senders_agent_to_judge(axo: Axo, pods: Sandbox) -> None:
    with agents(pods) as asked:
        found = axo("policy", "why", "--from", "web", "--to", "www.Example.com.", "--port", "443")
        assert found.code == 0 and found.lines[0] == "allowed: default/web -> www.example.com 443/TCP"
    assert [(node, params.peer) for node, params in asked] == [("node1", {"name": "www.example.com"})]
    assert axo("policy", "why", "--from", "web", "--to", "default/a.b", "--port", "443").code == 1


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


def test_a_service_s_address_is_about_the_backends_behind_it(axo: Axo, pods: Sandbox) -> None:
    pods.endpoint(3, "db-2", "10.0.0.3", "node2", 1002)
    behind = (backend("10.0.0.2"), backend("10.0.0.3"), backend("192.0.2.9", callers="outside"))
    shop = service("default/shop", "10.96.0.7", *behind, backend("10.0.0.1", state="leaving"))
    with agents(pods, denied="ingress", services=(shop,)) as asked:
        found = axo("policy", "why", "--from", "web", "--to", "10.96.0.7", "--port", "80")
        told = [(node, params.direction, params.peer, params.port) for node, params in asked]
        document = axo("policy", "why", "--from", "web", "--to", "10.96.0.7", "--port", "80", "-o", "json")
    assert found.code == document.code == 3
    assert found.lines[0] == "denied: default/web -> 10.96.0.7 80/TCP, port http of service default/shop"
    assert "behind it, denied: default/db 8080/TCP, default/db-2 8080/TCP" in found.lines
    assert told == [
        ("node1", "egress", {"identity": 1002}, 8080),
        ("node2", "ingress", {"identity": 1001}, 8080),
    ], "pods of one identity are judged once, and by the port that they listen on"
    assert (document.json["verdict"], document.json["service"]["name"]) == ("denied", "default/shop")
    assert [(each["verdict"], each["to"]["pod"]) for each in document.json["backends"]] == [("denied", "db")]


def test_a_service_of_which_some_backends_are_closed(axo: Axo, pods: Sandbox) -> None:
    pods.endpoint(3, "cache", "10.0.0.3", "node1", 1003)
    shop = service("default/shop", "10.96.0.7", backend("10.0.0.2"), backend("10.0.0.3"))
    with agents(pods, denied="ingress", denied_on="node2", services=(shop,)):
        found = axo("policy", "why", "--from", "web", "--to", "10.96.0.7", "--port", "80")
    assert found.code == 3
    assert found.lines[0].endswith("but not to all that is behind it (1 of 2)")


@pytest.mark.parametrize(
    ("port", "why"),
    [
        ("80", "has no backend here that takes connections"),
        ("81", "it has no 81/TCP"),
        ("80/UDP", "no 80/UDP"),
    ],
)
def test_what_a_service_refuses(axo: Axo, pods: Sandbox, port: str, why: str) -> None:
    with agents(pods, services=(service("default/empty", "10.96.0.7"),)) as asked:
        found = axo("policy", "why", "--from", "web", "--to", "10.96.0.7", "--port", port)
    assert found.code == 3 and found.lines[0].startswith("denied: ") and why in found.out
    assert not asked, "no policy is about what goes nowhere"


def test_node_ports_are_at_the_addresses_of_the_pod_s_node(axo: Axo, pods: Sandbox) -> None:
    nodes = (NodeState("node1", ["192.0.2.1"]), NodeState("node2", ["192.0.2.2"]))
    pods.put_raw({node_key(each.name): encode(each) for each in nodes})
    port = service("default/port", "0.0.0.0", backend("10.0.0.2"), kind="NodePort")
    with agents(pods, services=(port,)):
        here = axo("policy", "why", "--from", "web", "--to", "192.0.2.1", "--port", "80")
        there = axo("policy", "why", "--from", "web", "--to", "192.0.2.2", "--port", "80")
        closed = axo("policy", "why", "--from", "web", "--to", "192.0.2.1", "--port", "81")
    assert "service default/port" in here.lines[0]
    assert "service" not in there.lines[0] and "service" not in closed.lines[0]


def test_who_is_no_pod_is_not_told_of_services(axo: Axo, pods: Sandbox) -> None:
    with agents(pods, services=(service("default/shop", "10.96.0.7", backend("10.0.0.2")),)):
        found = axo("policy", "why", "--from", "192.0.2.7", "--to", "10.96.0.7", "--port", "80")
    assert found.code == 1 and "neither 192.0.2.7 nor 10.96.0.7 is a pod" in found.err
