"""The process."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from axoneme.rpc.daemon import until_told
from axoneme.ui.config import UiConfig, load
from axoneme.ui.server import serve

log = logging.getLogger(__name__)


def run(config_path: Path) -> None:
    """Until SIGTERM or SIGINT. Raises `axoneme.sources.config.ConfigError`."""
    run_with(load(config_path))


def run_with(config: UiConfig) -> None:
    if asyncio.run(until_told(serve(config))):
        log.info("asked to stop")
