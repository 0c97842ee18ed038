"""What the keeper of a node's history says of itself."""

from __future__ import annotations

import msgspec


class RecordingStatus(msgspec.Struct, frozen=True):
    """``written`` and ``lost``: flows since the process started; ``problems``: what it cannot do just now."""

    directory: str
    tables: int
    spools: int
    bytes: int
    most_bytes: int
    written: int
    lost: int
    problems: list[str]
