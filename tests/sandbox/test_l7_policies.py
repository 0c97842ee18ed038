"""Policies on HTTP and gRPC from manifest to answer: agent, datapath, Envoy, and real clients and servers."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from envoys import Connection
from runtime import Document, Live, addresses, live_as

from axoneme.net import netns
from axoneme.proxy.following import read_report
from axoneme.proxy.plan import directory
from axoneme.sandbox.report import SandboxReport

HERE = Path(__file__).parent
WEB, GRPC, PLAIN = 8080, 50051, 8081
ENVOY = "type.googleapis.com/envoy."
REFUSED = b"Access denied: refused by network policy.\n"


def pod(name: str, node: str, *commands: list[str]) -> str:
    containers = [
        {"name": f"c{n}", "image": "local", "command": command} for n, command in enumerate(commands)
    ]
    metadata = {"name": name, "labels": {"app": name, "role": "client" if "client" in name else "server"}}
    spec = {"nodeName": node, "containers": containers}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})


def server(name: str, node: str) -> str:
    web = [sys.executable, str(HERE / "webserver.py")]
    grpc = [sys.executable, str(HERE / "grpcs.py"), "serve", f"[::]:{GRPC}"]
    return pod(name, node, [*web, str(WEB)], [*web, str(PLAIN)], grpc)


APP = "\n---\n".join(
    (
        pod("client", "node1", ["sleep", "infinity"]),
        pod("other-client", "node2", ["sleep", "infinity"]),
        server("near", "node1"),
        server("far", "node2"),
    )
)
HTTP = [
    {"method": "GET", "path": "/public/.*"},
    {"path": "/token", "headerMatches": [{"name": "X-Token", "valuePattern": "[0-9]+"}]},
]
METHODS = [{"method": "POST", "path": "/test.Greeter/(Hello|Echo)"}]


def rules(port: int, http: list[dict[str, Any]]) -> dict[str, Any]:
    return {"ports": [{"port": str(port), "protocol": "TCP"}], "rules": {"http": http}}


def policy(direction: str, http: list[dict[str, Any]] = HTTP, name: str = "") -> str:
    """For what servers are called with, or for what clients call."""
    subject, peers = ("server", "fromEndpoints") if direction == "ingress" else ("client", "toEndpoints")
    peer = "client" if direction == "ingress" else "server"
    entry = {
        peers: [{"matchLabels": {"role": peer}}],
        "toPorts": [
            rules(WEB, http),
            rules(GRPC, METHODS),
            {"ports": [{"port": str(PLAIN), "protocol": "TCP"}]},
        ],
    }
    return json.dumps(
        {
            "apiVersion": "cilium.io/v2",
            "kind": "CiliumNetworkPolicy",
            "metadata": {"name": name or direction},
            "spec": {"endpointSelector": {"matchLabels": {"role": subject}}, direction: [entry]},
        }
    )


class App(Live):
    """The servers, and clients of them."""

    def up(self, text: str = "", deadline: float = 60.0) -> SandboxReport:
        return super().up(text, deadline)

    def address(self, name: str, version: int) -> str:
        return next(each for each in addresses(self.pod(name)) if (":" in each) == (version == 6))

    def call(self, source: str, name: str, version: int, port: int = WEB) -> Connection:
        family = socket.AF_INET6 if version == 6 else socket.AF_INET
        made = netns.open_socket(self.namespace(source), family, socket.SOCK_STREAM)
        made.settimeout(10)
        made.connect((self.address(name, version), port))
        return Connection(made, "server.test")

    def run(self, source: str, *command: str) -> str:
        done = subprocess.run(
            ["nsenter", f"--net={self.namespace(source)}", *command],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def listeners(self) -> list[Document]:
        return [each for agent in self.agents() for each in agent.call("status")["listeners"]]

    def enforced(self, *texts: str) -> None:
        """Has these policies and no others, and waits until they are in force."""
        for each in self.every("CiliumNetworkPolicy"):
            self.delete("CiliumNetworkPolicy", each["metadata"]["name"])
        for each in texts:
            self.apply(each)
        self.policies_loaded(len(texts))

        def ready() -> bool:
            found = self.listeners()
            return bool(found or not texts) and all(each["state"] == "ready" for each in found)

        self.wait(ready, "listeners are ready", 30)

    def envoy(self, node: str) -> int:
        """The number of the process."""
        report = read_report(directory(self.layout.node(node).state, "envoy"))
        assert report is not None
        children = Path(f"/proc/{report.pid}/task/{report.pid}/children").read_text().split()
        return int(children[0])


@pytest.fixture(scope="module", params=["overlay", pytest.param("native", marks=pytest.mark.slow)])
def app(request: pytest.FixtureRequest) -> Iterator[App]:
    with live_as(App, f"l7-{request.param}", APP, routing=request.param) as made:

        def serves() -> bool:
            try:
                for name in ("near", "far"):
                    for port in (WEB, PLAIN, GRPC):
                        made.call("client", name, 4, port).socket.close()
            except OSError:
                return False
            return True

        made.wait(serves, "the servers serve", 30)
        yield made


def everywhere() -> Iterator[tuple[str, int]]:
    """Servers on the client's node and on another one, by both versions of IP."""
    return itertools.product(("near", "far"), (4, 6))


@pytest.mark.parametrize(
    "directions",
    [
        ["egress", "ingress"],
        pytest.param(["ingress"], marks=pytest.mark.slow),
        pytest.param(["egress"], marks=pytest.mark.slow),
    ],
    ids="+".join,
)
def test_requests(app: App, directions: list[str]) -> None:
    app.enforced(*map(policy, directions))
    for where, version in everywhere():
        connection = app.call("client", where, version)
        seen = connection.ask("/public/a").seen
        assert seen["client"][0].removeprefix("::ffff:") == app.address("client", version)
        refused = connection.ask("/private")
        assert (refused.status, refused.body) == (403, REFUSED)
        assert connection.status("/public/a", "POST") == 403
        assert connection.status("/token", X__Token="123") == 200
        assert connection.status("/token", X__Token="12a") == 403
        assert connection.status("/public/b") == 200
        # What is allowed by port alone is nobody's business.
        assert app.call("client", where, version, PLAIN).status("/private") == 200


def test_a_listener_that_somebody_has_written(app: App) -> None:
    """It answers itself below /mine, and passes on the rest to whom the client has called."""
    app.enforced()
    http_filter = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": f"{ENVOY}extensions.filters.http.router.v3.Router"},
    }
    manager = {
        "@type": f"{ENVOY}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "mine",
        "rds": {"route_config_name": "routes"},
        "http_filters": [http_filter],
    }
    routes = [
        {"match": {"prefix": "/mine"}, "direct_response": {"status": 418}},
        {"match": {"prefix": "/"}, "route": {"cluster": "onwards"}},
    ]
    app.apply(
        json.dumps(
            {
                "apiVersion": "cilium.io/v2",
                "kind": "CiliumEnvoyConfig",
                "metadata": {"name": "mine"},
                "spec": {
                    "resources": [
                        {
                            "@type": f"{ENVOY}config.listener.v3.Listener",
                            "name": "front",
                            "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
                        },
                        {
                            "@type": f"{ENVOY}config.route.v3.RouteConfiguration",
                            "name": "routes",
                            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}],
                        },
                        {
                            "@type": f"{ENVOY}config.cluster.v3.Cluster",
                            "name": "onwards",
                            "type": "ORIGINAL_DST",
                            "lb_policy": "CLUSTER_PROVIDED",
                            "connect_timeout": "5s",
                        },
                    ]
                },
            }
        )
    )
    entry = {
        "toEndpoints": [{"matchLabels": {"role": "server"}}],
        "toPorts": [
            {
                "ports": [{"port": str(WEB), "protocol": "TCP"}],
                "listener": {"envoyConfig": {"name": "mine"}, "name": "front"},
            }
        ],
    }
    handed = json.loads(policy("egress"))
    handed["spec"]["egress"] = [entry]
    app.enforced(json.dumps(handed))
    for where, version in everywhere():
        connection = app.call("client", where, version)
        assert connection.status("/mine/too") == 418
        seen = connection.ask("/private").seen
        assert seen["client"][0].removeprefix("::ffff:") == app.address("client", version)
    app.delete("CiliumEnvoyConfig", "mine")
    app.wait(lambda: any(each["state"] == "failed" for each in app.listeners()), "it is missed", 30)
    assert any("there is no CiliumEnvoyConfig default/mine" in each["problem"] for each in app.listeners())
    with pytest.raises((OSError, http.client.HTTPException)):
        app.call("client", "near", 4).ask("/mine")
    app.enforced()


def test_methods_of_grpc(app: App) -> None:
    app.enforced(policy("ingress"))
    for where, version in everywhere():
        address = app.address(where, version)
        place = f"[{address}]:{GRPC}" if version == 6 else f"{address}:{GRPC}"
        script = (sys.executable, str(HERE / "grpcs.py"), "call", place)
        said = json.loads(app.run("client", *script, "Hello", "Secret", "Echo", "Hello"))
        assert [each["code"] for each in said] == ["OK", "PERMISSION_DENIED", "OK", "OK"]
        assert said[0]["answer"] == said[3]["answer"], "the connection was another one"


#: What a program prints that calls /public/x, /private and /public/y, each with a client of its own kind.
CLIENTS = {
    "requests": """
import requests, sys
with requests.Session() as session:
    for path in ("public/x", "private", "public/y"):
        answer = session.get(f"{sys.argv[1]}/{path}", timeout=20)
        print(answer.status_code, answer.json()["client"][1] if answer.ok else answer.text.strip())
    try:
        session.get(f"{sys.argv[1]}/private", timeout=20).raise_for_status()
    except requests.HTTPError as error:
        print(error.response.status_code)
""",
    "httpx": """
import httpx, sys
with httpx.Client() as client:
    for path in ("public/x", "private", "public/y"):
        answer = client.get(f"{sys.argv[1]}/{path}", timeout=20)
        print(answer.status_code, answer.json()["client"][1] if answer.is_success else answer.text.strip())
""",
    "urllib": """
import sys, urllib.error, urllib.request
for path in ("public/x", "private", "public/y"):
    try:
        print(urllib.request.urlopen(f"{sys.argv[1]}/{path}", timeout=20).status)
    except urllib.error.HTTPError as error:
        print(error.code, error.read().decode().strip())
""",
}


@pytest.mark.slow
def test_clients_report_what_was_refused_and_go_on(app: App) -> None:
    app.enforced(policy("ingress"))
    url = f"http://{app.address('far', 4)}:{WEB}"
    words = REFUSED.decode().strip()
    for name in ("requests", "httpx"):
        said = app.run("client", sys.executable, "-c", CLIENTS[name], url).splitlines()
        first, refused, second, *raised = said
        assert refused == f"403 {words}"
        assert first == second, "the server was called by another connection"
        assert raised == (["403"] if name == "requests" else [])
    said = app.run("client", sys.executable, "-c", CLIENTS["urllib"], url).splitlines()
    assert said == ["200", f"403 {words}", "200"]
    asked = [part for path in ("private", "public/x") for part in ("-o", "/dev/null", f"{url}/{path}")]
    said = app.run("client", "curl", "-sS", "-w", "%{http_code}:%{num_connects}\\n", *asked).split()
    assert said == ["403:1", "200:0"]


def test_rules_change_under_a_connection(app: App) -> None:
    app.enforced(policy("ingress"))
    connection = app.call("client", "far", 4)
    assert connection.status("/other") == 403
    app.apply(policy("ingress", [{"path": "/other"}]))
    app.wait(lambda: connection.status("/other") == 200, "the new rule holds")
    assert connection.status("/public/x") == 403
    # Not so the connections of those whose rules were other ones all along.
    app.apply(policy("ingress"))
    app.wait(lambda: connection.status("/other") == 403, "the old rule holds")
    assert connection.status("/public/x") == 200


def test_a_live_connection_comes_under_rules(app: App) -> None:
    """It cannot be handed over in the middle: it is reset, and comes again through the proxy."""
    app.enforced()
    connection = app.call("client", "near", 4)
    assert connection.status("/private") == 200
    app.enforced(policy("ingress"))
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        for _ in range(10):
            assert connection.status("/public/x") == 200
    assert app.call("client", "near", 4).status("/private") == 403


class Caller:
    """Asks again and again, by a new connection after each failure, until it is stopped."""

    def __init__(self, app: App, port: int, path: str) -> None:
        self.answers: list[tuple[float, int]] = []  # when, and which status; 0: a connection that failed
        self._app, self._port, self._path = app, port, path
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        connection: Connection | None = None
        while not self._over.is_set():
            try:
                connection = connection or self._app.call("client", "near", 4, self._port)
                connection.socket.settimeout(3)
                self.answers.append((time.monotonic(), connection.status(self._path)))
            except (OSError, http.client.HTTPException):
                self.answers.append((time.monotonic(), 0))
                connection = None

    def passes_after(self, then: float) -> bool:
        return any(when > then and status == 200 for when, status in self.answers)

    def stop(self) -> None:
        self._over.set()
        self._thread.join()


def test_envoy_is_killed_under_load(app: App) -> None:
    app.enforced(policy("ingress"))
    judged, refused, plain = (
        Caller(app, port, path) for port, path in ((WEB, "/public/x"), (WEB, "/private"), (PLAIN, "/x"))
    )
    try:
        for _ in range(3):
            before = app.envoy("node1")
            os.kill(before, signal.SIGKILL)
            killed = time.monotonic()
            app.wait(lambda killed=killed: judged.passes_after(killed + 0.05), "requests pass again", 30)
            assert app.envoy("node1") != before
    finally:
        for caller in (judged, refused, plain):
            caller.stop()
    assert {status for _, status in judged.answers} <= {200, 0}
    assert {status for _, status in refused.answers} <= {403, 0}, "something passed unjudged"
    assert {status for _, status in plain.answers} == {200}, "a connection under L4 policy has noticed"
