"""What the flow server needs of a node's configuration file, which it shares with the agent."""

from __future__ import annotations

from pathlib import Path

import msgspec

from axoneme.flows.capacity import HistoryConfig
from axoneme.hubble.config import HubbleConfig
from axoneme.metrics.config import MetricsConfig
from axoneme.model.l7event import SOCKET
from axoneme.sources.config import StoreConfig, read


class Proxies(msgspec.Struct, frozen=True):
    """``user``: whom proxies run as."""

    user: str = "nobody"


class FlowServerConfig(msgspec.Struct, frozen=True):
    """Fields that only the agent knows are passed over."""

    node: str
    directory: str
    store: StoreConfig
    cluster_name: str = "default"
    bpffs: str = ""
    state: str = ""
    flows_socket: str = ""
    flow_history: HistoryConfig = HistoryConfig()
    hubble: HubbleConfig = HubbleConfig()
    flow_logs: str = ""
    proxies: Proxies = Proxies()
    metrics: MetricsConfig = MetricsConfig()

    @property
    def maps(self) -> Path:
        return Path(self.bpffs or f"{self.directory}/bpf") / "maps"

    @property
    def state_path(self) -> Path:
        return Path(self.state or f"{self.directory}/state")

    @property
    def socket(self) -> Path:
        return Path(self.flows_socket or f"{self.directory}/flows.sock")

    @property
    def hubble_socket(self) -> Path:
        return self.socket.with_name("hubble.sock")

    @property
    def flow_logs_path(self) -> Path | None:
        """The file that says which flows are exported."""
        return Path(self.flow_logs) if self.flow_logs else None

    @property
    def proxies_socket(self) -> Path:
        return Path(self.directory) / SOCKET


def load(path: Path) -> FlowServerConfig:
    """Raises `axoneme.sources.config.ConfigError`."""
    return read(path, FlowServerConfig)
