"""How many requests Envoy did not tell of, because they were beyond the budgets of its access logs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Final

import h11

from axoneme.proxy.envoy.bootstrap import ADMIN_SOCKET

#: Seconds between two questions, and for an answer.
_REST: Final = 1.0
_PATIENCE: Final = 5.0
_COUNTER: Final = "access_log.process_ratelimit.denied"


async def count(heard: asyncio.Event, leave_out: Callable[[int], None]) -> None:
    """Until cancelled. ``leave_out`` gets how many there were since the last time. Who tells nothing leaves
    nothing out: Envoy is asked after something was ``heard``, and once more when there is nothing new.
    """
    before = 0
    while True:
        await heard.wait()
        heard.clear()
        await asyncio.sleep(_REST)
        try:
            async with asyncio.timeout(_PATIENCE):
                total = await _total()
        except (OSError, TimeoutError, h11.RemoteProtocolError):  # there is none, or another one begins
            continue
        if total != before:
            leave_out(total - before if total > before else total)
            before = total
            heard.set()


async def _total() -> int:
    found = re.search(rb": (\d+)", await _asked(f"/stats?filter=^{re.escape(_COUNTER)}$"))
    return int(found[1]) if found else 0


async def _asked(target: str) -> bytes:
    """What Envoy answers."""
    talk, said = h11.Connection(h11.CLIENT), b""
    reader, writer = await asyncio.open_unix_connection(ADMIN_SOCKET)
    try:
        request = h11.Request(method="GET", target=target, headers=[("host", "envoy")])
        writer.write((talk.send(request) or b"") + (talk.send(h11.EndOfMessage()) or b""))
        while not isinstance(event := talk.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                talk.receive_data(await reader.read(4096))
            elif isinstance(event, h11.Data):
                said += event.data
    finally:
        writer.close()
    return said
