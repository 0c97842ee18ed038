"""Reading a container's log, and following it as it grows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

#: Seconds between two looks for more.
_LOOK: Final = 0.1


async def read(log: Path, tail: int | None, follow: bool) -> AsyncIterator[str]:
    """The lines as text, in pieces. Nothing when there is no log yet."""
    older = log.with_suffix(".log.1")
    content = b"".join(each.read_bytes() for each in (older, log) if each.exists())
    place = log.stat().st_size if log.exists() else 0
    if tail is not None:
        content = b"".join(content.splitlines(keepends=True)[-tail:] if tail > 0 else [])
    if content:
        yield content.decode("utf-8", "replace")
    while follow:
        await asyncio.sleep(_LOOK)
        size = log.stat().st_size if log.exists() else 0
        if size < place:
            place = 0  # cut, because it had grown too long
        if size > place:
            with log.open("rb") as more:
                more.seek(place)
                piece = more.read()
            place += len(piece)
            yield piece.decode("utf-8", "replace")
