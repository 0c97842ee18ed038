"""The process that certifies a sandbox's nodes: it runs once `axo ca init` has made an authority."""

from __future__ import annotations

import asyncio
import sys

from axoneme.sandbox import cgroups
from axoneme.sandbox.daemons import Daemon, DaemonSpec
from axoneme.sandbox.layout import Layout
from axoneme.sources.inotify import Folders


async def certify(layout: Layout, groups: cgroups.Groups) -> None:
    """Until cancelled; the process lives on then."""
    wanted = asyncio.Event()
    daemon = Daemon(
        DaemonSpec(
            name="the authority",
            argv=(
                *(sys.executable, "-P", "-m", "axoneme.certificates"),
                *(str(layout.authority), str(layout.store)),
            ),
            group=groups.supervisor,
            record=layout.directory / "authority.pid",
            log=layout.logs / "authority.log",
            wanted=wanted,
        )
    )
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(daemon.run())
        # Renamed into its directory, which may have come only just now.
        layout.authority.mkdir(mode=0o700, exist_ok=True)
        folders = Folders([layout.authority])
        try:
            while not (layout.authority / "authority.json").exists():
                await folders.changed()
        finally:
            folders.close()
        wanted.set()
