"""A sandbox's subtree of control groups (cgroup v2): what is in it is the sandbox's, and nothing else is.

    axoneme/<sandbox>/supervisor          the supervisor and the echo server
    axoneme/<sandbox>/nodes/<node>/agent  the node's agent and flow server
    axoneme/<sandbox>/nodes/<node>/pods/<uid>

`kill` ends whatever is in a group and below it with one write, which no fork outruns; so `down` needs
no list of processes, and finds those of a crashed sandbox.
"""

from __future__ import annotations

import errno
import os
import time
from dataclasses import dataclass
from pathlib import Path

from axoneme.net import cgroup2
from axoneme.sandbox.errors import SandboxError


def hierarchy() -> Path:
    """Where the cgroup v2 hierarchy is mounted."""
    found = cgroup2.hierarchy()
    if found is None:
        raise SandboxError(
            "no cgroup v2 hierarchy is mounted; mount one: mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified"
        )
    return found


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups of one sandbox."""

    sandbox: str

    @property
    def root(self) -> Path:
        return hierarchy() / "axoneme" / self.sandbox

    @property
    def supervisor(self) -> Path:
        return self.root / "supervisor"

    def node(self, node: str) -> Path:
        return self.root / "nodes" / node

    def agent(self, node: str) -> Path:
        return self.node(node) / "agent"

    def pods(self, node: str) -> Path:
        return self.node(node) / "pods"

    def pod(self, node: str, uid: str) -> Path:
        return self.pods(node) / uid


def make(group: Path) -> Path:
    group.mkdir(parents=True, exist_ok=True)
    return group


def join(group: Path, pid: int) -> None:
    (group / "cgroup.procs").write_text(str(pid))


def members(group: Path) -> list[int]:
    """The processes in a group and below it; none when there is no such group."""
    return [int(line) for procs in group.rglob("cgroup.procs") for line in procs.read_text().split()]


def populated(group: Path) -> bool:
    try:
        return "populated 1" in (group / "cgroup.events").read_text()
    except FileNotFoundError:
        return False


def kill(group: Path) -> None:
    """Sends SIGKILL to everything in the group and below it, also what is being forked just now."""
    try:
        (group / "cgroup.kill").write_text("1")
    except FileNotFoundError:
        if not group.exists():
            return
        for pid in members(group):  # before Linux 5.14
            os.kill(pid, 9)


def remove(group: Path, deadline: float = 5.0) -> bool:
    """Removes an empty group with all below it, waiting up to `deadline` seconds for killed processes to
    be gone. False when there is no such group; raises SandboxError when something lives in it still."""
    if not group.exists():
        return False
    until = time.monotonic() + deadline
    while populated(group):
        if time.monotonic() > until:
            raise SandboxError(f"processes {members(group)} in {group} do not end")
        time.sleep(0.005)
    for directory, _, _ in os.walk(group, topdown=False):
        try:
            Path(directory).rmdir()
        except OSError as failure:
            if failure.errno not in (errno.ENOENT, errno.EBUSY):
                raise
            raise SandboxError(f"removing the control group {directory}: {failure.strerror}") from failure
    return True
