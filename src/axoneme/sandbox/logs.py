"""Logs: what the processes of a sandbox write, kept short, read, and followed as it grows.

Processes append to their files themselves, so what they write is kept whoever has died. A file that has
grown too long is cut from outside.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Final

#: Bytes of a log; as many again are kept of what came before.
LIMIT: Final = 1 << 20
#: Seconds between two looks for more.
_LOOK: Final = 0.1


def bound(log: Path) -> None:
    """Moves a log that has grown too long aside; whoever writes to it writes on.

    It is copied and cut, not renamed: its writer holds the file open, for appending. What is written
    between copying and cutting is lost.
    """
    try:
        size = log.stat().st_size
    except FileNotFoundError:
        return
    if size < LIMIT:
        return
    with log.open("rb") as content:
        content.seek(-LIMIT, os.SEEK_END)
        _older(log).write_bytes(content.read())
    os.truncate(log, 0)


async def read(log: Path, tail: int | None, follow: bool) -> AsyncGenerator[str, None]:
    """A log as text, in pieces: all of it or the last `tail` lines, then what is added while `follow`.

    Nothing when there is no log yet.
    """
    place = log.stat().st_size if log.exists() else 0
    content = b"".join(each.read_bytes() for each in (_older(log), log) if each.exists())
    if tail is not None:
        content = b"".join(content.splitlines(keepends=True)[-tail:] if tail > 0 else [])
    if content:
        yield content.decode("utf-8", "replace")
    while follow:
        await asyncio.sleep(_LOOK)
        size = log.stat().st_size if log.exists() else 0
        if size < place:
            place = 0  # it has been cut
        if size > place:
            with log.open("rb") as more:
                more.seek(place)
                piece = more.read()
            place += len(piece)
            yield piece.decode("utf-8", "replace")


def _older(log: Path) -> Path:
    return log.with_name(f"{log.name}.1")
