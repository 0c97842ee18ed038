"""Daemons that are kept running: started, or adopted if they run already, and restarted when they end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from axoneme.sandbox import cgroups
from axoneme.sandbox.processes import Process, ProcessId, spawn

log = logging.getLogger(__name__)

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0
#: One that has run so long (seconds) is not in a loop of failures.
_STEADY = 10.0


@dataclass(frozen=True, slots=True)
class DaemonSpec:
    """`record` is the file that says which process it is, for a supervisor that comes after this one.

    Whoever is not `wanted` is not started, and may end.
    """

    name: str
    argv: Sequence[str]
    group: Path
    record: Path
    log: Path
    netns: Path | None = None
    wanted: asyncio.Event | None = None


class Daemon:
    """One daemon; `run` keeps it."""

    def __init__(self, spec: DaemonSpec, started: Callable[[], None] | None = None) -> None:
        """`started` is called whenever it has been started, or adopted."""
        self._spec = spec
        self._started = started
        self.restarts = 0
        self.process: Process | None = None

    async def run(self) -> None:
        """Until cancelled; the process lives on then."""
        loop = asyncio.get_running_loop()
        pause = _FIRST_PAUSE
        wanted = self._spec.wanted
        while True:
            self.process = self._adopt()
            if self.process is None and wanted is not None:
                await wanted.wait()
            began = loop.time()
            self.process = self.process or self._start()
            if self._started is not None:
                self._started()
            try:
                code = await self.process.wait()
            finally:
                self.process.close()
            self.process = None
            if wanted is not None and not wanted.is_set():
                continue
            if loop.time() - began >= _STEADY:
                pause = _FIRST_PAUSE
            self.restarts += 1
            log.warning(
                "%s has ended (%s); starting it again in %.1f s; its words are in %s",
                self._spec.name,
                "code unknown" if code is None else f"code {code}",
                pause,
                self._spec.log,
            )
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _adopt(self) -> Process | None:
        try:
            identity = msgspec.json.decode(self._spec.record.read_bytes(), type=ProcessId)
            return Process(identity) if identity.alive else None
        except (FileNotFoundError, ProcessLookupError, msgspec.DecodeError):
            return None

    def _start(self) -> Process:
        cgroups.make(self._spec.group)
        with self._spec.log.open("ab") as output:
            identity = spawn(self._spec.argv, group=self._spec.group, output=output, netns=self._spec.netns)
        self._spec.record.write_bytes(msgspec.json.encode(identity))
        return Process(identity)
