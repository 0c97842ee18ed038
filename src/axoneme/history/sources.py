"""Where the flows of nodes are: the socket of each one's flow server, and the folder of its history."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from axoneme.flows.capacity import RecordingConfig
from axoneme.sources.config import ConfigError, read

#: Where sandboxes are: `axoneme.sandbox.layout` says so.
SANDBOXES: Final = Path("/run/axoneme/sandbox")
SOCKET: Final = "history.sock"


class NodeConfig(msgspec.Struct, frozen=True):
    """What is needed of a node's file; the rest is passed over."""

    node: str
    directory: str
    flows_socket: str = ""
    history: RecordingConfig | None = None

    @property
    def flows(self) -> Path:
        return Path(self.flows_socket or f"{self.directory}/flows.sock")

    @property
    def socket(self) -> Path:
        """Of the process that keeps its history."""
        return Path(self.directory) / SOCKET


@dataclass(frozen=True, slots=True)
class Source:
    """Of one node; ``history`` is None where it keeps none."""

    node: str
    flows: Path
    history: Path | None = None


def load(config: Path) -> NodeConfig:
    """Raises `ConfigError`."""
    return read(config, NodeConfig)


def of_node(config: Path) -> Source:
    """By the file that its agent reads; raises `ConfigError`."""
    found = load(config)
    return Source(found.node, found.flows, Path(found.history.directory) if found.history else None)


def find(sandbox: str = "", config: Path | str = "") -> list[Source]:
    """Of a machine that is a node, by its configuration, or of the nodes of a sandbox; by default what
    AXO_CONFIG or AXO_SANDBOX in the environment say, as for `axo`. Raises `ConfigError`."""
    if not sandbox and (config := config or os.environ.get("AXO_CONFIG", "")):
        return [of_node(Path(config))]
    name = sandbox or os.environ.get("AXO_SANDBOX", "") or "default"
    nodes = sorted((SANDBOXES / name / "nodes").glob("*/agent.yaml"))
    if not nodes:
        raise ConfigError(f"{SANDBOXES / name}: there is no sandbox {name}; `axo sandbox up` makes one")
    return [of_node(each) for each in nodes]
