"""What Prometheus reads: OpenMetrics 1.0 (with exemplars) for who asks for it, else text format 0.0.4."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterable
from itertools import islice
from typing import Final

from axoneme.metrics.families import Family

OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"

#: Lines that are written before others get their turn: a millisecond's work.
_AT_ONCE: Final = 2000
#: gzip's own header and trailer, by zlib.
_GZIP: Final = 16 + zlib.MAX_WBITS


def wants_openmetrics(accept: str) -> bool:
    """By the header ``Accept``. (Whoever knows it, prefers it: no weights are compared.)"""
    return "application/openmetrics-text" in accept.lower()


async def exposition(families: Iterable[Family], openmetrics: bool, packed: bool = False) -> bytes:
    """The whole text; ``packed``: by gzip. Families of the same name stand together, under one heading."""
    squeeze = zlib.compressobj(1, zlib.DEFLATED, _GZIP) if packed else None
    parts: list[bytes] = []

    def put(text: str) -> None:
        data = text.encode()
        parts.append(squeeze.compress(data) if squeeze else data)

    told: set[str] = set()
    for family in sorted(families, key=lambda each: each.name):
        if family.name not in told:
            told.add(family.name)
            put(family.heading(openmetrics))
        lines = family.lines(openmetrics)
        while some := list(islice(lines, _AT_ONCE)):
            some.append("")
            put("\n".join(some))
            await asyncio.sleep(0)
    if openmetrics:
        put("# EOF\n")
    if squeeze:
        parts.append(squeeze.flush())
    return b"".join(parts)
