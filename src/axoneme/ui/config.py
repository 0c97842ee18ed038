"""The web UI's configuration: one file, or what `axo ui --sandbox` knows of a sandbox."""

from __future__ import annotations

import re
from ipaddress import ip_network
from pathlib import Path
from typing import Literal

import msgspec

from axoneme.certificates.files import Files
from axoneme.hubble.address import Address
from axoneme.rpc.listening import TlsFiles, is_loopback, listening_at
from axoneme.sources.config import ConfigError, StoreConfig, read

_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)*")
_PAGE = "docs/ui.md"


class ProxyConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A proxy that has asked users who they are. ``addresses``: where it calls from, addresses or ranges: of
    nobody else ``user_header`` is believed."""

    addresses: list[str]
    user_header: str = "X-Forwarded-User"


class NodeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a node's processes answer, and its durable history; empty: this is not to be had here."""

    flows: str = ""
    agent: str = ""
    history: str = ""


class RelayConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where all nodes' flows come from in a cluster: ``address`` as ``HOST:PORT`` or ``unix:///PATH``. The
    three files are for TLS, which other machines need: a relay there has to have a certificate of ``ca``,
    made out to ``server_name`` or else to the host."""

    address: str
    server_name: str = ""
    certificate: str = ""
    key: str = ""
    ca: str = ""

    def files(self) -> Files | None:
        named = (self.certificate, self.key, self.ca)
        return Files(*map(Path, named)) if all(named) else None

    def check(self) -> None:
        if not Address.parse(self.address).local and self.files() is None:
            raise ValueError(
                f"relay: {self.address} is another machine, and flows do not go there and back without TLS: "
                "name certificate, key and ca"
            )


class UiConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``place``: what the page calls itself. ``prefix``: the path below which everything is. ``hosts``: names
    by which browsers call it, besides addresses and ``localhost``. ``login``: ``none`` lets everybody in, on
    loopback only. ``relay`` in place of the ``flows`` of nodes."""

    place: str = "cluster"
    listen: str = "127.0.0.1:12000"
    prefix: str = ""
    hosts: list[str] = []
    certificate: str = ""
    key: str = ""
    login: Literal["token", "none"] = "token"
    token_file: str = ""
    proxy: ProxyConfig | None = None
    nodes: dict[str, NodeConfig] = {}
    relay: RelayConfig | None = None
    store: StoreConfig | None = None
    enforcement: Literal["default", "always", "never"] = "default"

    def address(self) -> tuple[str, int]:
        return listening_at(self.listen, "listen")

    def tls(self) -> TlsFiles | None:
        return TlsFiles(Path(self.certificate), Path(self.key)) if self.certificate else None

    def flow_sockets(self) -> dict[str, Path]:
        return {name: Path(node.flows) for name, node in self.nodes.items() if node.flows}

    def agent_sockets(self) -> dict[str, Path]:
        return {name: Path(node.agent) for name, node in self.nodes.items() if node.agent}

    def history(self) -> dict[str, Path]:
        return {name: Path(node.history) for name, node in self.nodes.items() if node.history}

    def check(self) -> None:
        """ValueError for what the types do not tell."""
        here, _ = self.address()
        if bool(self.certificate) != bool(self.key):
            raise ValueError("certificate and key belong together: give both, or none")
        if not is_loopback(here) and not self.certificate:
            raise ValueError(
                f"listen: {self.listen} can be reached from other machines, and flows do not leave this one "
                "without TLS: give certificate and key, or listen at 127.0.0.1"
            )
        if not is_loopback(here) and self.login == "none":
            raise ValueError(f"login: none lets everybody in, and {self.listen} is not on loopback")
        if self.login == "token" and not self.token_file and self.proxy is None:
            raise ValueError("token_file is missing: name a file with a token, or a proxy that asks users")
        if not _PREFIX.fullmatch(self.prefix):
            raise ValueError(f"prefix: {self.prefix!r} is not like /axoneme: no / at its end, no other signs")
        if self.relay:
            self.relay.check()
        for text in self.proxy.addresses if self.proxy else ():
            ip_network(text)


def load(path: Path) -> UiConfig:
    """Raises `ConfigError`."""
    config = read(path, UiConfig, UiConfig.check, _PAGE)
    if config.store:
        config.store.need(path)
    if not config.relay and not config.flow_sockets():
        raise ConfigError(
            f"{path}: whose flows are to be shown? Name a relay, or nodes with flows; see {_PAGE}"
        )
    return config
