"""From a manifest to a refused request: policies above L4 with real clients, Envoy and the datapath.

One sandbox with two nodes; each server has a client on its own node and one on the other.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from runtime import Live, addresses, live

from axoneme.proxy.plan import PLAN, directory

PODS = "\n---\n".join(
    f"""apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: default, labels: {{app: {name.split("-")[0]}}}}}
spec:
  nodeName: {node}
  containers: [{{name: c, image: echo, ports: [{{containerPort: 80, name: http}}]}}]"""
    for name, node in (("web", "node1"), ("client-near", "node1"), ("client-far", "node2"))
)

#: Calls a server over one connection, as it is told on its input, and says the status of each answer.
CALLER = """
import http.client, json, sys
connection = http.client.HTTPConnection(sys.argv[1], 80, timeout=10)
connection.connect()
mine = connection.sock.getsockname()[1]
for line in sys.stdin:
    method, path, headers = json.loads(line)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        same = connection.sock is not None and connection.sock.getsockname()[1] == mine
        print(answer.status if same else "another connection", flush=True)
    except (OSError, http.client.HTTPException) as failure:
        print(type(failure).__name__, flush=True)
        connection.close()
"""


def policy(name: str, *rules: object, kind: str = "http") -> str:
    ports = [{"port": "80", "protocol": "TCP"}]
    spec = {
        "endpointSelector": {"matchLabels": {"app": "web"}},
        "ingress": [
            {
                "fromEndpoints": [{"matchLabels": {"app": "client"}}],
                "toPorts": [{"ports": ports, "rules": {kind: list(rules)}}],
            }
        ],
    }
    metadata = {"name": name, "namespace": "default"}
    return json.dumps(
        {"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": metadata, "spec": spec}
    )


class Caller:
    """A program in a pod, with one connection that it keeps."""

    def __init__(self, made: Live, pod: str, address: str) -> None:
        axo = (sys.executable, "-m", "axoneme.cli", "--sandbox", made.name, "exec", "-i", pod, "--")
        self._process = subprocess.Popen(
            [*axo, sys.executable, "-u", "-c", CALLER, address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, method: str, path: str, **headers: str) -> str:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps([method, path, headers]) + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(20)


@contextmanager
def callers(made: Live) -> Iterator[list[Caller]]:
    """Of both clients, by both families."""
    found = [
        Caller(made, pod, address)
        for pod in ("client-near", "client-far")
        for address in addresses(made.pod("web"))
    ]
    try:
        yield found
    finally:
        for caller in found:
            caller.close()


@pytest.fixture(scope="module")
def made() -> Iterator[Live]:
    with live("l7", PODS, dns=False) as runtime:
        yield runtime


def in_force(made: Live) -> list[dict[str, object]]:
    """Waits until the listeners that policies ask of node1 are ready."""

    def listeners() -> list[dict[str, object]] | None:
        found: list[dict[str, object]] = made.agent("node1").call("status")["listeners"]
        return found if found and all(each["state"] == "ready" for each in found) else None

    return made.wait(listeners, "listeners are ready", 30)


def put(made: Live, text: str) -> None:
    """Applies a policy, and waits until it is what the listener holds to."""
    plan = directory(made.layout.node("node1").state, "envoy") / PLAN
    before = plan.read_bytes() if plan.exists() else b""
    made.apply(text)
    made.wait(lambda: (plan.exists() and plan.read_bytes() != before) or None, "the plan is another one")
    in_force(made)


def test_only_what_the_rules_say_gets_through_and_the_connection_lives(made: Live) -> None:
    token = {"name": "X-Token", "valuePattern": "[0-9]+"}
    put(made, policy("a", {"method": "GET", "path": "/public/.*", "headerMatches": [token]}))
    with callers(made) as clients:
        for call in clients:
            assert call("GET", "/public/x", **{"X-Token": "42"}) == "200"
            assert call("GET", "/public/x", **{"X-Token": "x42"}) == "403"
            assert call("GET", "/public/x") == "403"
            assert call("POST", "/public/x", **{"X-Token": "42"}) == "403"
            assert call("GET", "/private", **{"X-Token": "42"}) == "403"
            assert call("GET", "/public/y", **{"X-Token": "7"}) == "200", "by the same connection"


def test_rules_change_under_connections_that_live(made: Live) -> None:
    put(made, policy("a", {"method": "GET"}))
    (before,) = in_force(made)
    with callers(made) as clients:
        assert [call("GET", "/x") for call in clients] == ["200"] * 4
        assert [call("PUT", "/x") for call in clients] == ["403"] * 4
        put(made, policy("a", {"method": "PUT"}))
        made.wait(lambda: all(call("GET", "/x") == "403" for call in clients) or None, "the new rules hold")
        assert [call("PUT", "/x") for call in clients] == ["200"] * 4
        (after,) = in_force(made)
        assert before["port"] == after["port"]


def test_why_says_which_rule_a_request_meets_or_comes_nearest_to(made: Live) -> None:
    put(made, policy("a", {"method": "GET", "path": "/public/.*"}))
    why = (
        sys.executable,
        "-m",
        "axoneme.cli",
        "--sandbox",
        made.name,
        "policy",
        "why",
        "--from",
        "client-far",
    )

    def asked(*request: str) -> tuple[int, str]:
        done = subprocess.run(
            [*why, "--to", "web", "--port", "80", *request],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stdout

    code, said = asked()
    assert code == 0 and "proxy    GET /public/.*" in said and "holds it to the rules for HTTP" in said
    code, said = asked("--method", "GET", "--path", "/public/x")
    assert code == 0 and "a proxy lets it pass by GET /public/.*" in said
    code, said = asked("--method", "PUT", "--path", "/public/x")
    assert code == 3 and "denied by a proxy" in said
    assert "nearest is GET /public/.*, but for the method (it wants GET, this has PUT)" in said


def test_a_new_agent_changes_nothing_for_who_is_connected(made: Live) -> None:
    put(made, policy("a", {"method": "GET", "path": "/kept"}))
    (before,) = in_force(made)
    with callers(made) as clients:
        assert [call("GET", "/kept") for call in clients] == ["200"] * 4
        dead = made.kill_agents()
        assert [call("GET", "/kept") for call in clients] == ["200"] * 4, "while there is none"
        assert [call("GET", "/x") for call in clients] == ["403"] * 4
        made.wait_for_new_agents(dead)
        (after,) = in_force(made)
        assert before["port"] == after["port"]
        assert [call("GET", "/kept") for call in clients] == ["200"] * 4
        assert [call("GET", "/x") for call in clients] == ["403"] * 4


def test_what_no_proxy_can_hold_to_together_is_refused(made: Live) -> None:
    put(made, policy("a", {"method": "GET", "path": "/conflict"}))
    axo = (sys.executable, "-m", "axoneme.cli", "--sandbox", made.name)
    done = subprocess.run(
        [*axo, "apply", "-f", "-"],
        check=False,
        input=policy("b", {"topic": "t"}, kind="kafka"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1 and made.get("CiliumNetworkPolicy", "b") is None
    assert "default/a spec.ingress[0].toPorts[0] and CiliumNetworkPolicy default/b" in done.stderr
    made.apply(policy("b", {"topic": "t"}, kind="kafka"))
    made.policies_loaded(2)
    told = made.wait(lambda: made.agent("node1").call("status")["problems"] or None, "it is told")
    assert set(told) == {f"objects/CiliumNetworkPolicy/default/{name}" for name in "ab"}
    near = made.pod("client-near")
    answer = made.probe(made.namespace(near), addresses(made.pod("web"))[0], 80, timeout=1)
    assert answer.verdict.name == "TIMEOUT", "nobody knows what may pass"
    made.delete("CiliumNetworkPolicy", "b")
    made.policies_loaded(1)
    in_force(made)
    with callers(made) as clients:
        assert [call("GET", "/conflict") for call in clients] == ["200"] * 4


def test_without_policy_nothing_listens(made: Live) -> None:
    made.delete("CiliumNetworkPolicy", "a")
    made.policies_loaded(0)
    folder = directory(made.layout.node("node1").state, "envoy")
    made.wait(lambda: not (folder / PLAN).exists() or None, "there is no plan")
    with callers(made) as clients:
        assert [call("DELETE", "/x") for call in clients] == ["200"] * 4
