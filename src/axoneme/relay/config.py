"""A relay's configuration file."""

from __future__ import annotations

from pathlib import Path

import msgspec

from axoneme.certificates.files import CertificateFiles, Files
from axoneme.hubble.address import Address
from axoneme.relay.gathering import Limits
from axoneme.sources.config import StoreConfig, read


class MetricsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``listen``: ``address:port`` or ``:port`` of /metrics; nowhere, when it is empty."""

    listen: str = ""


class RelayConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nodes are found in ``store``, or by ``peer_service`` (the address of a node's), or they are ``peers``:
    name to address. ``port`` is that of the nodes in the store. ``directory``: the node's, whose certificates
    are used unless ``tls`` names others. ``sort_window``: seconds."""

    listen: str = "127.0.0.1:4245"
    store: StoreConfig | None = None
    peer_service: str = ""
    peers: dict[str, str] = {}
    port: int = 4244
    cluster_name: str = "default"
    directory: str = "/run/axoneme"
    state: str = ""
    tls: CertificateFiles = CertificateFiles()
    sort_window: float = Limits().window
    metrics: MetricsConfig = MetricsConfig()

    @property
    def files(self) -> Files:
        return self.tls.files(Path(self.state or f"{self.directory}/state"))


def _check(config: RelayConfig) -> None:
    sources = {"store": config.store, "peer_service": config.peer_service, "peers": config.peers}
    given = [name for name, value in sources.items() if value]
    if len(given) != 1:
        raise ValueError(
            f"{' and '.join(given) or 'neither store nor peer_service nor peers'} "
            "given: name one of store, peer_service and peers, where the relay finds the nodes"
        )
    if config.store is not None and (missing := config.store.missing()):
        raise ValueError(missing)
    for field, text in (("listen", config.listen), ("peer_service", config.peer_service)):
        if text:
            _address(field, text)
    for name, text in config.peers.items():
        _address(f"peers.{name}", text)
    if not 0 < config.port < 65536:
        raise ValueError(f"port: {config.port} is none; Hubble's is 4244")
    if not 0 <= config.sort_window <= 10:
        raise ValueError(f"sort_window: {config.sort_window:g}; give 0 to 10 seconds")
    config.tls.check("tls")


def _address(field: str, text: str) -> None:
    try:
        Address.parse(text)
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from error


def load(path: Path) -> RelayConfig:
    """Raises `axoneme.sources.config.ConfigError`."""
    return read(path, RelayConfig, _check, "docs/relay.md")
