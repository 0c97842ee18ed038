"""What proxies need of a node's configuration file, which they share with the agent."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import msgspec

from axoneme.sources.config import read


class Refusal(enum.Enum):
    """How clients are told that they may not ask for a name. Some resolvers end their search at REFUSED."""

    REFUSED = "refused"
    NAME_ERROR = "nameError"


class ProxiesConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``user``: whom proxies run as. ``ports``: the first and the last of those that they listen at.
    ``dns_hold``: for how long, in seconds, an answer is held at most until the kernel knows its addresses."""

    user: str = "nobody"
    ports: tuple[int, int] = (11000, 19999)  # above those of the kubelet and kube-proxy
    dns_refusal: Refusal = Refusal.REFUSED
    dns_hold: Annotated[float, msgspec.Meta(ge=0, le=5)] = 0.1

    def check(self) -> None:
        """ValueError for what makes no sense."""
        first, last = self.ports
        if not 1024 <= first <= last <= 65535:
            raise ValueError(f"proxies.ports: from {first} to {last}; ports from 1024 to 65535 belong here")


class ProxyConfig(msgspec.Struct, frozen=True):
    """Fields that only the agent knows are passed over."""

    node: str
    directory: str
    state: str = ""
    bpffs: str = ""
    agent_socket: str = ""
    proxies: ProxiesConfig = ProxiesConfig()

    @property
    def state_path(self) -> Path:
        return Path(self.state or f"{self.directory}/state")

    @property
    def maps(self) -> Path:
        return Path(self.bpffs or f"{self.directory}/bpf") / "maps"

    @property
    def agent_socket_path(self) -> Path:
        return Path(self.agent_socket or f"{self.directory}/agent.sock")


def load(path: Path) -> ProxyConfig:
    """Raises `axoneme.sources.config.ConfigError`."""
    return read(path, ProxyConfig, page="docs/l7.md")
