"""The operator's process, of which a cluster may have several: one of them works."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from axoneme.operator.addresses import AddressController
from axoneme.operator.config import OperatorConfig, load
from axoneme.operator.leadership import Leadership
from axoneme.rpc.daemon import until_told
from axoneme.sources.config import open_store
from axoneme.sources.store import Store

log = logging.getLogger(__name__)


def run(config_path: Path) -> None:
    """The process: until SIGTERM or SIGINT. Raises `axoneme.sources.config.ConfigError`."""
    asyncio.run(_main(load(config_path)))


async def _main(config: OperatorConfig) -> None:
    store = open_store(config.store)
    try:
        if await until_told(operate(config, store)):
            log.info("asked to stop; another operator may lead at once")
    finally:
        await store.close()


async def operate(config: OperatorConfig, store: Store) -> None:
    """Until cancelled."""

    async def work(fence: Mapping[str, int]) -> None:
        await AddressController(store, now, config.versions, fence).run()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(Leadership(store, "operator", config.name, work, config.leadership).run())
        if config.authority:
            # Not a leader's work: who holds the key may be another one, and no two of them harm each other.
            from axoneme.certificates.authority import Authority
            from axoneme.certificates.signer import Signer

            tasks.create_task(Signer(store, Authority(Path(config.authority))).run())


def now() -> str:
    """The time as Kubernetes writes it into objects (RFC 3339, whole seconds)."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
