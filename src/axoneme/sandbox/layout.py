"""Where the files of a sandbox are.

Everything of sandbox NAME lies in ``/run/axoneme/sandbox/NAME``, which is a mount of its own (a tmpfs):
taking that one mount away takes every namespace, bpffs and file with it, and a container that detaches
it in its own mount namespace keeps none of the sandbox's namespaces alive.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from axoneme.sandbox.errors import SandboxError

ROOT: Final = Path("/run/axoneme/sandbox")

#: The namespace that plays the world and the router between the nodes.
OUTSIDE: Final = "outside"

_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?")


def check_name(name: str) -> str:
    """A sandbox's name becomes a directory, a cgroup and part of socket paths: a short DNS label."""
    if not _NAME.fullmatch(name):
        raise SandboxError(
            f"sandbox name {name!r} is not usable: give 1 to 32 characters of a-z, 0-9 and '-', "
            "with a letter or digit at both ends"
        )
    return name


@dataclass(frozen=True, slots=True)
class NodeFiles:
    """One virtual node's directory, as its agent, its flow server and the commands know it."""

    directory: Path

    @property
    def config(self) -> Path:
        return self.directory / "agent.yaml"

    @property
    def agent_socket(self) -> Path:
        return self.directory / "agent.sock"

    @property
    def flows_socket(self) -> Path:
        return self.directory / "flows.sock"

    @property
    def history_socket(self) -> Path:
        return self.directory / "history.sock"

    @property
    def cni_socket(self) -> Path:
        return self.directory / "cni.sock"

    @property
    def bpffs(self) -> Path:
        return self.directory / "bpf"

    @property
    def state(self) -> Path:
        return self.directory / "state"


@dataclass(frozen=True, slots=True)
class Layout:
    """One sandbox's directory."""

    name: str

    @property
    def directory(self) -> Path:
        return ROOT / self.name

    @property
    def plan(self) -> Path:
        return self.directory / "sandbox.yaml"

    @property
    def store(self) -> Path:
        return self.directory / "store.db"

    @property
    def supervisor_socket(self) -> Path:
        return self.directory / "supervisor.sock"

    @property
    def supervisor_pid(self) -> Path:
        return self.directory / "supervisor.pid"

    @property
    def echo_socket(self) -> Path:
        return self.directory / "echo.sock"

    @property
    def dns_socket(self) -> Path:
        return self.directory / "dns.sock"

    @property
    def logs(self) -> Path:
        return self.directory / "logs"

    @property
    def authority(self) -> Path:
        """The directory of the authority that certifies nodes, where one is wanted: `axo ca init`."""
        return self.directory / "ca"

    @property
    def namespaces(self) -> Path:
        return self.directory / "netns"

    @property
    def pods(self) -> Path:
        return self.directory / "pods"

    @property
    def nodes(self) -> Path:
        return self.directory / "nodes"

    def node(self, node: str) -> NodeFiles:
        return NodeFiles(self.nodes / node)

    def namespace(self, name: str) -> Path:
        """The file that holds a network namespace: of a node, of ``outside``, or of ``pod-<uid>``."""
        return self.namespaces / name

    def pod_namespace(self, uid: str) -> Path:
        return self.namespaces / f"pod-{uid}"
