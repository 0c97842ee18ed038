"""A node has one agent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from axoneme.agent import lock
from axoneme.agent.lock import only_agent
from axoneme.sources.config import ConfigError


@pytest.fixture(autouse=True)
def own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests, and agents, may be in this network namespace."""
    monkeypatch.setattr(lock, "_NAME", f"\0test-{uuid.uuid4()}")


def test_a_second_agent_is_told_who_is_the_first(tmp_path: Path) -> None:
    with (
        only_agent(tmp_path / "state"),
        pytest.raises(ConfigError, match=f"state: .*process {os.getpid()};"),
        only_agent(tmp_path / "state"),
    ):
        pass


def test_another_directory_in_the_same_network_does_not_help(tmp_path: Path) -> None:
    with (
        only_agent(tmp_path / "one"),
        pytest.raises(ConfigError, match=f"network namespace, process {os.getpid()};"),
        only_agent(tmp_path / "two"),
    ):
        pass


def test_another_takes_over_when_the_first_has_ended(tmp_path: Path) -> None:
    for _ in range(2):
        with only_agent(tmp_path):
            pass


def test_one_that_was_killed_leaves_no_claim(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from axoneme.agent import lock\n"
        f"lock._NAME = {lock._NAME!r}\n"
        "with lock.only_agent(Path(sys.argv[1])): print('there', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"
    with pytest.raises(ConfigError, match=f"process {process.pid};"), only_agent(tmp_path):
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with only_agent(tmp_path):
        pass
