"""How long ago, and how long, in the few letters that a column has."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|ms|s|m|h|d)")
_NANOSECONDS = {
    "ns": 1,
    "us": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
    "d": 86400 * 10**9,
}


def short(span: timedelta) -> str:
    """Two units at most, the smaller one only as long as it says something: ``95s``, ``5m30s``, ``3d4h``."""
    seconds = max(0, int(span.total_seconds()))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return _two(minutes, "m", seconds % 60, "s")
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return _two(days, "d", hours % 24, "h")
    return f"{days}d"


def since(moment: str, now: datetime) -> str:
    """The age of something made at ``moment`` (RFC 3339); ``<unknown>`` where nobody has written it down."""
    try:
        return short(now - datetime.fromisoformat(moment))
    except (ValueError, TypeError):
        return "<unknown>"


def nanoseconds(text: str) -> int | None:
    """A duration as ``90s`` or ``1h30m``; None when it is none."""
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(round(float(number) * _NANOSECONDS[unit]) for number, unit in parts)


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"
