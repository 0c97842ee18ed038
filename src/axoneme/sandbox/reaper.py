"""Burying the dead that nobody else waits for.

The supervisor is a subreaper, so that containers are its children once their launchers have ended. It is
then also given orphans: processes inside a container whose parent outside of it was killed, such as an
exec probe that took too long. A PID namespace ends only when all in it have been waited for; without this
its first process would hang in its exit for ever, and the container with it.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Final

from axoneme.sandbox.processes import watched

#: Whoever has started a process waits for it well within this time (seconds).
_PATIENCE: Final = 1.0
_LOOK: Final = 0.01


async def bury_orphans() -> None:
    """Until cancelled."""
    loop = asyncio.get_running_loop()
    died = asyncio.Event()
    loop.add_signal_handler(signal.SIGCHLD, died.set)
    seen: dict[int, float] = {}
    try:
        while True:
            await died.wait()
            died.clear()
            while (pid := _first_dead()) is not None:
                since = seen.setdefault(pid, loop.time())
                # Only inside of containers can there be none who waits; for others give them time.
                if pid not in watched and (_nested(pid) or loop.time() - since > _PATIENCE):
                    os.waitpid(pid, os.WNOHANG)
                    continue
                await asyncio.sleep(_LOOK)
            seen.clear()
    finally:
        loop.remove_signal_handler(signal.SIGCHLD)


def _first_dead() -> int | None:
    """A child that has ended and has not been waited for; it is left as it is."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return found.si_pid if found else None


def _nested(pid: int) -> bool:
    """Whether the process is in a PID namespace below ours."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return any(line.startswith("NSpid:") and len(line.split()) > 2 for line in status.splitlines())
