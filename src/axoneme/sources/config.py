"""Configuration files of the processes that share a store: how one is read, which store it names, and that
store itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from axoneme.model.paths import ManifestError
from axoneme.sources.store import Store

C = TypeVar("C", bound=msgspec.Struct)


class ConfigError(ValueError):
    """The file cannot be used; the text names the file, the field and the remedy."""


def read(path: Path, kind: type[C], check: Callable[[C], None] = lambda _: None, page: str = "") -> C:
    """A file's content as ``kind``. ``check`` raises ValueError for what the types do not tell; ``page`` of
    the docs knows the fields. Raises `ConfigError`."""
    from axoneme.model.yamltext import single

    hint = f"; see {page}" if page else ""
    try:
        config = msgspec.convert(single(path.read_bytes(), str(path)), kind)
        check(config)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except ManifestError as error:
        raise ConfigError(f"{error}{hint}") from error
    except (msgspec.ValidationError, ValueError) as error:
        raise ConfigError(f"{path}: {error}{hint}") from error
    return config


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

    def need(self, path: Path) -> None:
        """`ConfigError` about the file at ``path`` when something has been left out."""
        if missing := self.missing():
            raise ConfigError(f"{path}: {missing}")

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
