"""Requests and tried policies, seen in a sandbox: by annotations, in flows, foretold and suggested."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from click.testing import CliRunner
from runtime import Document, Live, addresses, live

from axoneme.cli.place import Place
from axoneme.cli.policypreview import BREAKS
from axoneme.cli.policypreview import preview as preview_command
from axoneme.cli.policysuggest import suggest as suggest_command
from axoneme.rpc import RpcError
from axoneme.sandbox.processes import ProcessId

POD = """\
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: shop, labels: {{app: {name}}}}}
spec:
  nodeName: node1
  containers:
  - {{name: echo, image: axoneme/echo, ports: [{{name: web, containerPort: 8080}}]}}
"""
NAMESPACE = "{{apiVersion: v1, kind: Namespace, metadata: {{name: shop, annotations: {annotations}}}}}\n"
WATCHED = NAMESPACE.format(annotations='{axoneme.io/visibility: "ingress/http:8080"}')
#: Only GET on /public/, of the client alone.
POLICY = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {{name: web, namespace: shop, annotations: {annotations}}}
spec:
  endpointSelector: {{matchLabels: {{app: web}}}}
  ingress:
  - fromEndpoints: [{{matchLabels: {{app: client}}}}]
    toPorts:
    - ports: [{{port: "8080", protocol: TCP}}]
      rules: {{http: [{{method: GET, path: "/public/.*"}}]}}
"""
AUDIT = '{axoneme.io/audit: "true"}'


class Shop:
    def __init__(self, runtime: Live) -> None:
        self.runtime = runtime

    def ask(self, who: str, path: str, method: str = "GET") -> int:
        """The status that the web answers with; 0 for no answer."""
        address = addresses(self.runtime.pod("web", "shop"))[0]
        namespace = self.runtime.namespace(who, "shop")
        done = subprocess.run(
            [
                *("nsenter", f"--net={namespace}", "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}"),
                *("-m", "3", "-X", method, f"http://{address}:8080{path}"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        return int(done.stdout)

    def listening(self, wanted: str, only: bool = False) -> None:
        """Waits until there is such a listener (of those that enforce, or watch, the only one)."""

        def there() -> bool:
            found = [each for agent in self.runtime.agents() for each in agent.call("status")["listeners"]]
            ready = all(each["state"] == "ready" for each in found)
            named = {f"{each['rules']}{' watched' if each['audit'] else ''}" for each in found}
            return ready and (named == {wanted} if only else wanted in named)

        try:
            self.runtime.wait(there, f"a listener for {wanted}", 30)
        except AssertionError as error:
            said = [agent.call("status")["listeners"] for agent in self.runtime.agents()]
            raise AssertionError(f"{error}\nlisteners: {said}") from None

    def flows(self, count: int = 1, **wanted: Any) -> list[Document]:
        """At least so many that a filter lets through."""
        return self.runtime.wait(
            lambda: found if len(found := self.runtime.flows(filters=[wanted])) >= count else None,
            f"{count} flows with {wanted}",
        )

    def axo(self, command: Any, *arguments: str) -> tuple[int, Any]:
        found = CliRunner().invoke(
            command, arguments, obj=Place(sandbox=self.runtime.name, named=True), standalone_mode=False
        )
        assert found.exception is None, found.output
        return found.return_value, json.loads(found.stdout)

    def policy(self, annotations: str) -> None:
        self.runtime.apply(POLICY.format(annotations=annotations))

    def without_policies(self) -> None:
        for kind in ("CiliumNetworkPolicy", "NetworkPolicy"):
            for each in self.runtime.every(kind):
                self.runtime.delete(kind, each["metadata"]["name"], "shop")
        self.runtime.policies_loaded(0)


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    pods = "".join(POD.format(name=name) for name in ("web", "client", "other"))
    with live("seen", WATCHED + pods, nodes=1) as runtime:
        made = Shop(runtime)
        made.listening("HTTP: 1 rule watched", only=True)
        yield made


def moment(since: int) -> str:
    return datetime.fromtimestamp(since / 1e9, UTC).isoformat()


def test_a_namespaces_annotation_shows_requests_and_restricts_nothing(shop: Shop) -> None:
    assert shop.ask("client", "/a?token=hunter2&page=2") == 200
    assert shop.ask("other", "/b", "DELETE") == 200
    (flow,) = shop.flows(http_path=["^/a$"])
    assert flow["l7"]["http"]["url"].endswith("/a?token=REDACTED&page=2")
    assert (flow["source"]["pod_name"], flow["destination"]["pod_name"]) == ("web", "client")
    assert (flow["verdict"], flow["l7"]["http"]["code"], flow["traffic_direction"]) == (
        "FORWARDED",
        200,
        "INGRESS",
    )
    assert shop.flows(http_method=["DELETE"], to_pod=["shop/other"])
    (connection, *_) = shop.flows(verdict=["REDIRECTED"], from_pod=["shop/client"], event=["new"])
    assert connection["proxy_port"] == flow["proxy_port"] > 0


def test_what_is_foretold_of_requests_is_what_happens(shop: Shop, tmp_path: Path) -> None:
    since = time.time_ns()
    calls = [("client", "/public/x", "GET"), ("client", "/secret", "GET"), ("client", "/public/x", "POST")]
    calls.append(("other", "/public/x", "GET"))
    assert [shop.ask(*call) for call in calls] == [200] * 4
    shop.flows(4, type=["l7"], since=since, event=["response"])
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY.format(annotations="{}"))
    code, report = shop.axo(preview_command, "-f", str(path), "--since", moment(since), "-o", "json")
    assert code == BREAKS
    assert sorted((each["source"]["workload"], each["request"]) for each in report["changed"]) == [
        ("pod/client", "GET /secret"),
        ("pod/client", "POST /public/x"),
        ("pod/other", "GET /public/x"),
    ]
    shop.policy("{}")
    shop.listening("HTTP: 1 rule")
    assert [shop.ask(*call) for call in calls] == [200, 403, 403, 0]
    refused = shop.flows(2, verdict=["DROPPED"], type=["l7"])
    for flow in refused:
        assert [each["name"] for each in flow["ingress_denied_by"]] == ["web"]
    shop.without_policies()
    shop.listening("HTTP: 1 rule watched", only=True)


def test_a_policy_that_is_only_tried_says_what_it_would_do(shop: Shop) -> None:
    shop.policy(AUDIT)
    shop.runtime.policies_loaded(1)
    since = time.time_ns()

    def said() -> bool:
        assert shop.ask("client", "/public/x") == 200
        assert shop.ask("client", "/secret") == 200
        assert shop.ask("other", "/public/x") == 200
        found = shop.runtime.flows(filters=[{"verdict": ["AUDIT"], "since": since}])
        clients = {(flow["destination"]["pod_name"], "l7" in flow) for flow in found}
        return {("client", True), ("web", False)} <= clients

    shop.runtime.wait(said, "tried verdicts")
    found = shop.flows(verdict=["AUDIT"], since=since)
    for flow in found:
        assert [each["name"] for each in flow["ingress_denied_by"]] == ["web"]
    requests = {
        (flow["destination"]["pod_name"], flow["l7"]["http"]["url"].rpartition(":8080")[2])
        for flow in found
        if "l7" in flow
    }
    assert requests <= {("client", "/secret"), ("other", "/public/x")}
    connections = {flow["source"]["pod_name"] for flow in found if "l7" not in flow}
    assert connections == {"other"}
    shop.without_policies()


def test_pods_may_ask_for_policies_to_be_only_tried(shop: Shop) -> None:
    shop.runtime.apply(NAMESPACE.format(annotations='{axoneme.io/audit: "true"}'))
    shop.policy("{}")
    shop.runtime.policies_loaded(1)
    since = time.time_ns()

    def said() -> list[Document]:
        assert shop.ask("other", "/public/x") in (200, 0)
        return shop.runtime.flows(filters=[{"verdict": ["AUDIT"], "since": since}])

    for flow in shop.runtime.wait(said, "tried verdicts"):
        assert [each["name"] for each in flow["ingress_denied_by"]] == ["web"]
    assert shop.ask("other", "/public/x") == 200
    shop.runtime.apply(NAMESPACE.format(annotations="{}"))
    shop.listening("HTTP: 1 rule")
    assert shop.ask("other", "/public/x") == 0
    shop.without_policies()
    shop.runtime.apply(WATCHED)
    shop.listening("HTTP: 1 rule watched", only=True)


def test_a_suggestion_has_the_requests_that_were_seen(shop: Shop) -> None:
    since = time.time_ns()
    assert [shop.ask("client", path) for path in ("/orders/1", "/orders/1?x=1")] == [200, 200]
    shop.flows(2, type=["l7"], since=since, event=["response"])
    _, made = shop.axo(suggest_command, "-n", "shop", "--since", moment(since), "-o", "json")
    shop.runtime.apply(yaml.safe_dump_all(made["items"]))
    shop.runtime.policies_loaded(len(made["items"]))
    shop.listening("HTTP: 2 rules")
    calls = [("client", path) for path in ("/orders/1", "/orders/1?y=2", "/orders/2", "/")]
    assert [shop.ask(*call) for call in [*calls, ("other", "/orders/1")]] == [200, 200, 403, 403, 0]
    assert shop.ask("client", "/orders/1", "POST") == 403


def test_requests_are_seen_again_after_the_flow_server_was_killed(shop: Shop) -> None:
    record = shop.runtime.layout.node("node1").directory / "flows.pid"
    dead = msgspec.json.decode(record.read_bytes(), type=ProcessId)
    os.kill(dead.pid, signal.SIGKILL)
    assert shop.ask("client", "/orders/1") == 200, "nobody waits for who watches"

    def seen() -> bool:
        shop.ask("client", "/orders/1?after")
        try:
            return bool(shop.runtime.flows(filters=[{"http_url": [r"\?after"]}]))
        except RpcError:
            return False

    shop.runtime.wait(seen, "requests", 30)
