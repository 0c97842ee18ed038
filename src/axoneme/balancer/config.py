"""The file of `axo lb run`: what the machine is, where its API listens, what is wanted or where that stands.

The machine's part is read once, at the start; ``pools`` and ``services`` are followed.
"""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from axoneme.model.balancer import Desired, check
from axoneme.model.paths import ManifestError, Place
from axoneme.model.shapes import convert
from axoneme.model.yamltext import single
from axoneme.sources.config import ConfigError, StoreConfig

_DESIRED = ("pools", "services")


class MachineConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``uplinks``: interfaces by which clients and backends are reached. ``directory``: of the socket and of
    what is pinned; ``state``: of what outlives the machine's restart."""

    name: str = ""
    uplinks: Annotated[tuple[str, ...], Meta(min_length=1)] = ("eth0",)
    directory: str = "/run/axoneme/lb"
    state: str = "/var/lib/axoneme/lb"
    bpffs: str = ""
    families: tuple[Literal["ipv4", "ipv6"], ...] = ("ipv4", "ipv6")
    cgroup: str = ""  # whose processes, on this machine itself, can call services; empty: nobody's
    #: Where packets that only pass through are sent on (`axoneme.datapath.xdp`).
    acceleration: Literal["disabled", "native", "generic", "best-effort"] = "disabled"
    #: Entries of the kernel's tables, at least; names as in bpf/maps.h.
    tables: dict[Literal["flows", "translations", "half_open", "half_open_translations"], int] = {}

    @property
    def called(self) -> str:
        return self.name or socket.gethostname()

    @property
    def bpffs_path(self) -> Path:
        return Path(self.bpffs or f"{self.directory}/bpf")

    @property
    def state_path(self) -> Path:
        return Path(self.state)


class ApiConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A unix socket, and, where it is stated, an address and port with TLS; on loopback also without.

    ``certificate``, ``key``: of the server, files in PEM. ``client_ca``: who must have signed the clients'.
    """

    socket: str = ""
    listen: str = ""
    certificate: str = ""
    key: str = ""
    client_ca: str = ""

    def address(self) -> tuple[str, int] | None:
        """Where to listen besides the socket."""
        if not self.listen:
            return None
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)


class Config(msgspec.Struct, frozen=True):
    """All but what is wanted; ``store`` says where that stands, None: in the file itself."""

    machine: MachineConfig = MachineConfig()
    api: ApiConfig = ApiConfig()
    store: StoreConfig | None = None
    prefix: str = "balancer/"

    @property
    def socket_path(self) -> Path:
        return Path(self.api.socket or f"{self.machine.directory}/api.sock")


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    machine: MachineConfig = MachineConfig()
    api: ApiConfig = ApiConfig()
    store: StoreConfig | None = None
    prefix: str = "balancer/"
    pools: Any = ()
    services: Any = ()


def parse(data: bytes, origin: str) -> tuple[Config, Desired]:
    """Of the text of a file. Raises `ManifestError`, with the field and the remedy."""
    try:
        value = single(data, origin)
        file = convert(value, _File)
        _check_api(file.api)
        if file.store is not None:
            for name in _DESIRED:
                if getattr(file, name):
                    Place(getattr(file, name), name).refuse(
                        "the file names a store, where this stands: keep it in one place only"
                    )
            if missing := file.store.missing():
                raise ManifestError("store", "part of it only", missing)
        desired = convert({name: getattr(file, name) or () for name in _DESIRED}, Desired)
        check(desired)
    except ManifestError as error:
        raise error.of(origin=origin) from None
    return Config(file.machine, file.api, file.store, file.prefix), desired


def load(path: Path) -> tuple[Config, Desired]:
    """Raises `axoneme.sources.config.ConfigError`."""
    try:
        return parse(path.read_bytes(), str(path))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except ManifestError as error:
        raise ConfigError(f"{error}; see docs/standalone-lb.md") from error


def _check_api(api: ApiConfig) -> None:
    place = Place(api.listen, "api.listen")
    try:
        address = api.address()
        loopback = address is None or ipaddress.ip_address(address[0]).is_loopback
        ports_fit = address is None or 0 < address[1] < 65536
    except ValueError:
        ports_fit = False
    if not ports_fit:
        place.refuse("an address and a port belong here, such as 127.0.0.1:9180 or [2001:db8::1]:9180")
    if bool(api.certificate) != bool(api.key):
        Place(api.certificate, "api.certificate").refuse("certificate and key belong together")
    if not loopback and not (api.certificate and api.client_ca):
        place.refuse(
            "whoever reaches this address could change everything: beyond loopback it needs certificate "
            "and key, and client_ca, by which clients are known"
        )
