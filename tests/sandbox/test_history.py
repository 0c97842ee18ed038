"""History of two real nodes: recorded, asked and exported while the processes that do it are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from runtime import Live, addresses, live

from axoneme import flows
from axoneme.history.recorded import NodeHistory, Wanted
from axoneme.sandbox.client import Protocol, Verdict
from axoneme.sandbox.processes import ProcessId

pytestmark = pytest.mark.slow

PODS = """
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec: {nodeName: node2, containers: [{name: c, image: x, ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client, labels: {app: client}}
spec: {nodeName: node1, containers: [{name: c, image: x}]}
---
apiVersion: v1
kind: Pod
metadata: {name: other, labels: {app: other}}
spec: {nodeName: node1, containers: [{name: c, image: x}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("history")


@pytest.fixture(scope="module")
def shop(folder: Path) -> Iterator[Live]:
    with live("history", PODS, dns=False, history=str(folder)) as runtime:
        yield runtime


def call(runtime: Live, pod: str) -> Verdict:
    address = addresses(runtime.pod("web"))[0]
    return runtime.probe(runtime.namespace(pod), address, 80, Protocol.HTTP, b"", timeout=1).verdict


def axo(runtime: Live, *arguments: str) -> str:
    command = (sys.executable, "-m", "axoneme.cli", "--sandbox", runtime.name, *arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def answer(runtime: Live, query: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in axo(runtime, "flows", "sql", "-o", "json", query).splitlines()]


CALLS = "SELECT count(*) AS n FROM flows WHERE node = 'node1' AND event = 'new' AND source_pod = 'client'"


def kill_keeper(runtime: Live, node: str) -> None:
    """SIGKILL, and wait until another is there."""
    record = runtime.layout.node(node).directory / "history.pid"

    def running() -> ProcessId | None:
        found = json.loads(record.read_text()) if record.exists() else None
        identity = ProcessId(**found) if found else None
        return identity if identity and identity.alive else None

    before = runtime.wait(running, "the keeper runs")
    os.kill(before.pid, signal.SIGKILL)
    runtime.wait(lambda: (now := running()) and now != before, "another keeper runs", 30)


def test_what_happened_is_asked_in_sql(shop: Live) -> None:
    for _ in range(3):
        assert call(shop, "client") is Verdict.CONNECTED
    assert call(shop, "other") is not Verdict.CONNECTED
    shop.wait(lambda: answer(shop, CALLS) == [{"n": 3}], "three calls are seen")
    drops = answer(
        shop,
        "SELECT DISTINCT node, source_pod, destination_pod, drop_reason, ingress_denied_by FROM flows"
        " WHERE verdict = 'DROPPED' AND source_pod = 'other'",
    )
    assert drops == [
        {
            "node": "node2",
            "source_pod": "other",
            "destination_pod": "web",
            "drop_reason": "POLICY_DENIED",
            "ingress_denied_by": ["NetworkPolicy default/web"],
        }
    ]


def test_killed_keepers_lose_and_double_nothing(shop: Live, folder: Path) -> None:
    begin = answer(shop, CALLS)[0]["n"]
    for _ in range(2):
        assert call(shop, "client") is Verdict.CONNECTED
        kill_keeper(shop, "node1")
    assert call(shop, "client") is Verdict.CONNECTED
    shop.wait(lambda: answer(shop, CALLS) == [{"n": begin + 3}], "each call is there once", 30)
    history = NodeHistory(folder / "node1")

    def recorded() -> bool:
        pages = history.pages(Wanted(filters=[]))
        found = [flow for page in pages for flow in page.log.encoder().flows(page.records)]
        calls = [flow for flow in found if flow.event == "new" and flow.source.pod_name == "client"]
        return len(calls) == begin + 3

    shop.wait(recorded, "all of them are on disk", 30)
    assert "yes" in axo(shop, "flows", "history")


def test_notebooks_get_tables(shop: Live) -> None:
    call(shop, "client")
    connection = flows.connect(shop.name)
    assert [source.node for source in connection.sources] == ["node1", "node2"]
    frame = connection.to_pandas({"from_pod": "default/client", "to_port": 80, "event": "new"})
    assert set(frame["node"]) == {"node1", "node2"}
    assert set(frame["destination_pod"]) == {"web"}
    assert frame["time"].is_monotonic_increasing
