"""Which store a configuration file names, and the store itself."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from axoneme.sources.store import Store


class StoreConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the shared state is kept: a file (``path``), or etcd at ``endpoints``.

    ``ca``, ``certificate`` and ``key`` are files for TLS with etcd.
    """

    kind: Literal["sqlite", "etcd"] = "sqlite"
    path: str = ""
    endpoints: list[str] = []
    ca: str = ""
    certificate: str = ""
    key: str = ""

    def missing(self) -> str:
        """What has been left out, as a sentence; empty when nothing has."""
        if self.kind == "sqlite" and not self.path:
            return "store.path is missing: name the file that all nodes of this machine share"
        if self.kind == "etcd" and not self.endpoints:
            return "store.endpoints is missing: name etcd's addresses, such as https://192.0.2.1:2379"
        return ""


def open_store(config: StoreConfig) -> Store:
    if config.kind == "etcd":
        from axoneme.sources.etcd import EtcdStore, Tls

        files = (Path(name) if name else None for name in (config.ca, config.certificate, config.key))
        return EtcdStore(config.endpoints, tls=Tls(*files) if config.ca else None)
    from axoneme.sources.sqlite import SqliteStore

    return SqliteStore(Path(config.path))
