"""The disk is full: of the node's state, and of the shared state."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from alone import POLICY, POLICY_KEY, Alone, alone, fill, mounted

from axoneme.rpc import UNAVAILABLE, RpcError


@pytest.fixture
def disk() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=f"test-axo-{os.getpid()}-") as folder:
        mounted(Path(folder), "8m")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


def refused(one: Alone, name: str, namespace: Path) -> str:
    with pytest.raises(RpcError) as caught:
        one.attach(name, namespace)
    assert caught.value.code == UNAVAILABLE
    return caught.value.message


def test_the_disk_of_the_node_is_full(disk: Path, checker: Path) -> None:
    with alone(state=str(disk / "state")) as one:
        late = one.node.namespaces.add("late")
        with one.traffic(checker, "the node's disk full") as report:
            filler = fill(disk)
            message = refused(one, "late", late)
            assert "No space left on device" in message
            assert "nothing of it is left" in message
            assert one.disagreements() == []
            # Policy goes on, though what its rules are called cannot be written down.
            more = [f"members-{number}" for number in range(40)]  # more words than fit into a page
            one.node.write({f"{POLICY_KEY}-{name}": renamed(name) for name in more})
            one.node.wait(lambda: one.status()["policies"] == 41, "the other policies", one.status)
            one.node.wait(lambda: "rules.jsonl" in one.problems(), "its name", one.problems)
        assert report.clean(), str(report)
        filler.unlink()
        assert one.attach("late", late)
        one.node.wait(lambda: one.problems() == {}, "no problems", one.problems)
        assert one.disagreements() == []


def renamed(name: str) -> dict[str, object]:
    return {**POLICY, "metadata": {"name": name, "namespace": "default"}}


def test_the_disk_of_the_shared_state_is_full(disk: Path, checker: Path) -> None:
    with alone(store={"path": str(disk / "store.db")}) as one:
        late = one.node.namespaces.add("late")
        with one.traffic(checker, "the shared state's disk full") as report:
            filler = fill(disk)
            assert "disk is full" in refused(one, "late", late)
            assert one.status()["phase"] == "ready"
        assert report.clean(), str(report)
        filler.unlink()
        assert one.attach("late", late)
        one.node.wait(lambda: one.disagreements() == [], "all agree", one.disagreements)
