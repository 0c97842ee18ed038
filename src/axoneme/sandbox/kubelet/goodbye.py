"""What a container does before it is told to end: its ``preStop``.

Applications use it to serve on for a while, until all the world has heard that they are going.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from axoneme.sandbox.objects import LifecycleHandler, Probe

#: For a hook there is no time limit but the pod's own (seconds).
_NO_LIMIT: Final = 1e6
_SLEEP: Final = re.compile(r"(?:/\S+/)?sleep (\d+(?:\.\d+)?)s?")


async def say(hook: LifecycleHandler, played: bool, carry_out: Callable[[Probe], Awaitable[None]]) -> None:
    """Until it is done; `carry_out` does what a probe can do, and raises ProbeFailed.

    In place of an image (`played`) no command is run, but the most common one is understood: to sleep.
    """
    if hook.sleep is not None:
        await asyncio.sleep(hook.sleep.seconds)
    elif hook.exec is not None and played:
        await asyncio.sleep(pause(hook.exec.command))
    elif hook.exec is not None or hook.http_get is not None:
        await carry_out(Probe(exec=hook.exec, http_get=hook.http_get, timeout_seconds=_NO_LIMIT))


def pause(command: Sequence[str]) -> float:
    """Seconds for which a command only sleeps, by itself or in a shell; 0 for any other command."""
    text = command[2] if len(command) == 3 and command[1] == "-c" else " ".join(command)
    found = _SLEEP.fullmatch(text.strip())
    return float(found[1]) if found else 0.0
