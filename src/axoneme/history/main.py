"""``axo history`` as a process."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from axoneme.history.keeper import Keeper
from axoneme.history.sources import load
from axoneme.rpc import privileges
from axoneme.rpc.daemon import until_told
from axoneme.sources.config import ConfigError

log = logging.getLogger(__name__)


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
