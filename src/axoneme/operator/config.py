"""The operator's configuration: one file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from axoneme.sources.config import StoreConfig, read
from axoneme.sources.tenure import Timing


class OperatorConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``name`` tells this operator from the others of the cluster: usually that of its machine.
    ``authority``: the directory of `axo ca`, where this one is to certify nodes; empty: it does not."""

    name: str
    store: StoreConfig
    families: tuple[Literal["ipv4", "ipv6"], ...] = ("ipv4", "ipv6")
    leadership: Timing = Timing()
    authority: str = ""

    @property
    def versions(self) -> tuple[int, ...]:
        return tuple(4 if family == "ipv4" else 6 for family in self.families)


def load(path: Path) -> OperatorConfig:
    """Raises `axoneme.sources.config.ConfigError`."""
    config = read(path, OperatorConfig, page="docs/load-balancer-addresses.md")
    config.store.need(path)
    return config
