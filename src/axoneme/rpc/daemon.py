"""A server's life as a process: it works until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine


async def until_told(work: Coroutine[object, object, None]) -> bool:
    """Runs it until it ends by itself (False), or SIGTERM or SIGINT cancels it (True). Of several of its
    tasks that fail, one failure is raised: the others were only told to stop."""
    working = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, working.cancel)
    try:
        await working
    except asyncio.CancelledError:
        return True
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
    return False
