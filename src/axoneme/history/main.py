"""``axo history`` as a process."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import msgspec

from axoneme.flows.capacity import RecordingConfig
from axoneme.history.keeper import Keeper
from axoneme.rpc import privileges
from axoneme.rpc.daemon import until_told
from axoneme.sources.config import ConfigError, read

log = logging.getLogger(__name__)

SOCKET = "history.sock"


class HistoryConfig(msgspec.Struct, frozen=True):
    """What is needed of a node's file; the rest is passed over."""

    directory: str
    flows_socket: str = ""
    history: RecordingConfig | None = None

    @property
    def flows(self) -> Path:
        return Path(self.flows_socket or f"{self.directory}/flows.sock")

    @property
    def socket(self) -> Path:
        return Path(self.directory) / SOCKET


def load(path: Path) -> HistoryConfig:
    """Raises `ConfigError`."""
    return read(path, HistoryConfig)


def run(config_path: Path) -> None:
    """Until SIGTERM or SIGINT. Raises `ConfigError`."""
    config = load(config_path)
    if config.history is None:
        raise ConfigError(
            f"{config_path}: history: not there, so it is not known where flows shall be kept; "
            "give `history: {directory: /var/lib/axoneme/history}` (docs/history.md)"
        )
    privileges.keep_only(())
    asyncio.run(_main(Keeper(config.history, config.flows, config.socket)))


async def _main(keeper: Keeper) -> None:
    if await until_told(keeper.run()):
        log.info("asked to stop")
