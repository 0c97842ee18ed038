"""The agent is killed at random moments, while it starts and while pods come and go: it converges."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from alone import Alone, alone

from axoneme.rpc import NOT_FOUND, Client, RpcError

KILLS = 50 if os.environ.get("AXONEME_TEST_ALL") else 10
SEED = 20260417


@pytest.fixture
def one() -> Iterator[Alone]:
    with alone() as made:
        yield made


class Churn(threading.Thread):
    """Pods come and go, one after the other, until told to stop or the agent has gone."""

    def __init__(self, one: Alone, namespaces: list[Path], chance: random.Random) -> None:
        super().__init__(daemon=True)
        self._one, self._namespaces, self._chance = one, namespaces, chance
        self.start()

    def run(self) -> None:
        client = Client(self._one.node.folder / "agent.sock")
        with contextlib.suppress(RpcError):
            while True:
                number = self._chance.randrange(len(self._namespaces))
                name = f"churn{number}"
                try:
                    client.call("endpoint.detach", {"container_id": name, "ifname": "eth0"})
                except RpcError as error:
                    if error.code != NOT_FOUND:
                        raise
                    self._one.attach(name, self._namespaces[number], f"role{self._chance.randrange(3)}")


def begin_start(one: Alone) -> None:
    with (one.node.folder / "agent.log").open("ab") as log:
        one.node.process = subprocess.Popen(
            ["nsenter", f"--net={one.node.namespace}", "--", sys.executable, "-m", "axoneme.cli", "agent",
             "--config", str(one.node.folder / "agent.yaml")],
            stderr=log,
        )  # fmt: skip


def test_it_converges_wherever_it_was_killed(one: Alone, checker: Path) -> None:
    chance = random.Random(SEED)
    namespaces = [one.node.namespaces.add(f"churn{number}") for number in range(4)]
    began = time.monotonic()
    one.node.kill()
    one.node.start()
    takes = time.monotonic() - began
    with one.traffic(checker, f"agent killed at {KILLS} random moments") as report:
        for number in range(KILLS):
            if number % 2:  # while it starts
                one.node.kill()
                begin_start(one)
                time.sleep(chance.uniform(0, takes))
                one.node.kill()
            else:  # while pods come and go: an attachment takes some 15 ms
                churn = Churn(one, namespaces, chance)
                time.sleep(chance.uniform(0, 0.3))
                one.node.kill()
                churn.join()
            one.node.start()
            assert one.disagreements() == [], f"after kill {number + 1} of {KILLS} (seed {SEED})"
            assert one.problems() == {}
    assert report.clean(), str(report)
    for number in range(len(namespaces)):
        with contextlib.suppress(RpcError):
            one.node.client.call("endpoint.detach", {"container_id": f"churn{number}", "ifname": "eth0"})
    one.node.kill()
    one.node.start()
    assert one.disagreements() == []
    pods = {record["container_id"] for record in one.remembered().values()}
    assert {"a", "b", "stranger"} <= pods
    assert not any(name.startswith("churn") for name in pods)
