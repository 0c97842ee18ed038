"""The operator's configuration: one file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from axoneme.model.paths import ManifestError
from axoneme.sources.config import StoreConfig
from axoneme.sources.tenure import Timing


class ConfigError(ValueError):
    """The file cannot be used; the text names the file, the field and the remedy."""


class OperatorConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``name`` tells this operator from the others of the cluster: usually that of its machine."""

    name: str
    store: StoreConfig
    families: tuple[Literal["ipv4", "ipv6"], ...] = ("ipv4", "ipv6")
    leadership: Timing = Timing()

    @property
    def versions(self) -> tuple[int, ...]:
        return tuple(4 if family == "ipv4" else 6 for family in self.families)


def load(path: Path) -> OperatorConfig:
    """Raises `ConfigError`."""
    from axoneme.model.yamltext import single

    try:
        config = msgspec.convert(single(path.read_bytes(), str(path)), OperatorConfig)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except ManifestError as error:
        raise ConfigError(f"{error}; see docs/load-balancer-addresses.md") from error
    except (msgspec.ValidationError, ValueError) as error:
        raise ConfigError(f"{path}: {error}; see docs/load-balancer-addresses.md") from error
    if missing := config.store.missing():
        raise ConfigError(f"{path}: {missing}")
    return config
