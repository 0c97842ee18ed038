"""The echo server's process: `python -m axoneme.sandbox.echo SOCKET`."""

from __future__ import annotations

import asyncio
from pathlib import Path

from axoneme.sandbox.echo.listeners import Listeners
from axoneme.sandbox.playing import Players


def run(socket: Path) -> None:
    """Until it is ended."""
    players = Players(lambda wish: Listeners(Path(wish.netns), wish.identity))
    asyncio.run(players.listen(socket))
