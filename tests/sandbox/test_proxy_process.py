"""What all proxies have in common as processes: who they are, what they may, when they end."""

from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from axoneme.proxy.following import read_report, write_plan
from axoneme.proxy.plan import PLAN, Plan, directory

#: A proxy that does what proxies do with their plans, and tells of itself.
STAND_IN = """
import os, re, socket, subprocess, sys, types
from pathlib import Path
from axoneme.proxy.plan import Report
from axoneme.proxy import process
import logging
logging.basicConfig(level="INFO")

def start(surroundings):
    return work(surroundings)

async def work(surroundings):
    following = surroundings.following
    agent = surroundings.reachable(surroundings.config.agent_socket_path)
    async for plan in following.plans():
        child = subprocess.run(["grep", "-E", "^(Uid|CapEff|CapBnd|NoNewPrivs)", "/proc/self/status"],
                               capture_output=True, text=True, check=True).stdout
        with socket.socket() as one:
            one.setsockopt(socket.SOL_IP, socket.IP_TRANSPARENT, 1)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 7)
        Path("seen").write_text(f"{child}agent {agent.read_text()}")
        following.report(Report(revision=plan.revision))

module = types.ModuleType("axoneme.proxy.kafka.process")
module.start = start
sys.modules["axoneme.proxy.kafka"] = types.ModuleType("axoneme.proxy.kafka")
sys.modules["axoneme.proxy.kafka.process"] = module
process.run("kafka", Path(sys.argv[1]))
"""


def plan(revision: int) -> Plan:
    return Plan(node="node1", revision=revision, families=(4, 6), events="")


class Started:
    def __init__(self, outer: Path) -> None:
        """``outer`` is closed to all but root."""
        place = outer / "run"
        place.mkdir(mode=0o755)
        self.config = place / "agent.yaml"
        self.config.write_text(json.dumps({"node": "node1", "directory": str(place)}))
        outer.chmod(0o700)
        (place / "agent.sock").write_text("here")
        (place / "agent.sock").chmod(0o644)
        self.folder = directory(place / "state", "kafka")
        self.folder.mkdir(parents=True)
        write_plan(self.folder, plan(1))
        self.process = subprocess.Popen([sys.executable, "-c", STAND_IN, str(self.config)])

    def until_it_has(self, revision: int) -> None:
        end = time.monotonic() + 20
        while (report := read_report(self.folder)) is None or report.revision < revision:
            assert self.process.poll() is None, "it has ended"
            assert time.monotonic() < end, report
            time.sleep(0.01)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Started]:
    it = Started(tmp_path)
    yield it
    it.process.kill()
    it.process.wait()


def test_it_is_unprivileged_and_reaches_what_it_needs(started: Started) -> None:
    started.until_it_has(1)
    seen = (started.folder / "seen").read_text()
    uid = pwd.getpwnam("nobody").pw_uid
    assert f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}" in seen
    net_raw = f"{1 << 13:016x}"
    assert f"CapEff:\t{net_raw}" in seen
    assert f"CapBnd:\t{net_raw}" in seen
    assert "NoNewPrivs:\t1" in seen
    assert "agent here" in seen
    assert started.folder.stat().st_uid == uid


def test_it_follows_its_plan_and_ends_without_one(started: Started) -> None:
    started.until_it_has(1)
    write_plan(started.folder, plan(2))
    started.until_it_has(2)
    (started.folder / PLAN).unlink()
    assert started.process.wait(20) == 0


def test_it_ends_when_told(started: Started) -> None:
    started.until_it_has(1)
    os.kill(started.process.pid, signal.SIGTERM)
    assert started.process.wait(20) == 0


def test_a_user_who_does_not_exist_is_named(started: Started) -> None:
    started.config.write_text(
        json.dumps({"node": "n", "directory": str(started.config.parent), "proxies": {"user": "no-such"}})
    )
    words = subprocess.run(
        [sys.executable, "-m", "axoneme.cli", "proxy", "envoy", "--config", str(started.config)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert words.returncode == 1
    assert "proxies.user: this machine has no user 'no-such'" in words.stderr
