"""Processes of a node are killed, or started twice, under traffic: no packet is lost, none passes wrongly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest
from members import Members

from axoneme.sandbox.processes import ProcessId

AXO = (sys.executable, "-m", "axoneme.cli")


def process(sandbox: Members, node: str, name: str) -> ProcessId:
    """The agent or flow server that the supervisor has started last."""
    record = sandbox.layout.node(node).directory / f"{name}.pid"
    return msgspec.json.decode(record.read_bytes(), type=ProcessId)


def nodes(sandbox: Members) -> list[str]:
    return [node.name for node in sandbox.plan.all_nodes()]


def test_agents_are_killed(sandbox: Members, checker: Path) -> None:
    with sandbox.traffic(checker, "agents killed, twice") as report:
        for _ in range(2):
            sandbox.wait_for_new_agents(sandbox.kill_agents())
    assert report.clean(), str(report)


@pytest.mark.slow
def test_agents_stay_dead_for_a_while(sandbox: Members, checker: Path) -> None:
    killed: set[ProcessId] = set()
    with sandbox.traffic(checker, "agents dead for 3 s") as report:
        until = time.monotonic() + 3
        while time.monotonic() < until:
            for node in nodes(sandbox):
                agent = process(sandbox, node, "agent")
                if agent not in killed and agent.alive:
                    os.kill(agent.pid, signal.SIGKILL)
                    killed.add(agent)
            time.sleep(0.01)
        sandbox.wait_for_new_agents([each.pid for each in killed])
    assert report.clean(), str(report)
    assert len(killed) > 2, "also those that came after the first"


class Follower(threading.Thread):
    """`axo observe --follow`, whose flows are looked at as they come."""

    def __init__(self, name: str) -> None:
        super().__init__(daemon=True)
        self._process = subprocess.Popen(
            [*AXO, "observe", "--sandbox", name, "--follow", "-o", "json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self.start()

    def run(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line)

    def nodes_since(self, line: int) -> set[str]:
        return {json.loads(each)["node_name"] for each in self.lines[line:]}

    def finish(self) -> str:
        self._process.terminate()
        self.join()
        assert self._process.stderr is not None
        words = self._process.stderr.read()
        self._process.communicate()
        return words


def test_flow_servers_are_killed(sandbox: Members, checker: Path) -> None:
    everywhere = set(nodes(sandbox))
    with sandbox.traffic(checker, "flow servers killed") as report:
        follower = Follower(sandbox.name)
        try:
            sandbox.wait(lambda: follower.nodes_since(0) == everywhere, "flows of both nodes")
            for node in everywhere:
                os.kill(process(sandbox, node, "flows").pid, signal.SIGKILL)
            sandbox.settle()
            seen = len(follower.lines)
            sandbox.wait(lambda: follower.nodes_since(seen) == everywhere, "flows of both nodes again")
        finally:
            words = follower.finish()
    assert report.clean(), str(report)
    for node in everywhere:
        assert f"{node}: no flows from there" in words
        assert f"{node}: its flow server answers again" in words


def test_a_second_agent_is_refused(sandbox: Members, checker: Path) -> None:
    first = sandbox.agent_pid("node1")
    writes = sandbox.agent("node1").call("status")["writes"]
    files = sandbox.layout.node("node1")
    with sandbox.traffic(checker, "a second agent on the node") as report:
        second = subprocess.run(
            ["nsenter", f"--net={sandbox.layout.namespace('node1')}", "--", *AXO, "agent", "--config",
             files.config],
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )  # fmt: skip
    assert report.clean(), str(report)
    assert second.returncode == 1
    assert second.stderr.splitlines() == [
        f"axo agent: {files.state}: another agent works with this directory, process {first}; end it first, "
        "or give this one a directory of its own"
    ]
    status = sandbox.agent("node1").call("status")
    assert (status["pid"], status["writes"]) == (first, writes)
