"""The columns of `axo top`, and what stands in them: as many as the width has room for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from axoneme.cli.edgerates import Row


class Column(NamedTuple):
    title: str
    width: int
    text: Callable[[Row], str]
    #: Columns with less of it are shown before those with more.
    rank: int = 0


def rate(value: float) -> str:
    """``0.5``, ``12``, ``3.4k``; nothing for nothing."""
    if value < 0.05:
        return ""
    if value < 10:
        return f"{value:.1f}"
    for unit in ("", "k", "M", "G"):
        if value < 1000:
            return f"{value:.0f}{unit}" if value >= 100 or not unit else f"{value:.1f}{unit}"
        value /= 1000
    return f"{value:.0f}T"


def duration(us: int) -> str:
    """``85us``, ``1.2ms``, ``340ms``, ``2.1s``."""
    if not us:
        return ""
    for unit, size in (("us", 1), ("ms", 1000), ("s", 1_000_000)):
        value = us / size
        if value < 999.5 or unit == "s":
            return f"{value:.0f}{unit}" if value >= 99.5 or unit == "us" else f"{value:.1f}{unit}"
    raise AssertionError


_NUMBERS: Final = (
    Column("CONN/S", 7, lambda row: rate(row.connections)),
    Column("OPEN", 5, lambda row: str(row.open or ""), 1),
    Column("B/S", 7, lambda row: rate(row.sent + row.received)),
    Column("SENT/S", 7, lambda row: rate(row.sent), 3),
    Column("RECV/S", 7, lambda row: rate(row.received), 3),
    Column("DROP/S", 7, lambda row: rate(row.drops)),
    Column("RTT", 7, lambda row: duration(row.rtt)),
    Column("SHAKE", 7, lambda row: duration(row.handshake), 2),
    Column("RETR/S", 7, lambda row: rate(row.retransmissions)),
)
#: Of each end, at least and at most.
_NARROW, _WIDE = 18, 48


def columns(width: int) -> list[Column]:
    """With a place between two of them."""
    shown = {column.title for column in _NUMBERS if column.rank == 0}
    for rank in (1, 2, 3):
        more = shown | {column.title for column in _NUMBERS if column.rank == rank}
        if _needed(more) + 2 * _NARROW + 12 * rank <= width:
            shown = more
    left = max(2 * _NARROW, width - _needed(shown) - 2)
    source = min(_WIDE, left // 2 - 1)
    destination = min(_WIDE, left - source)
    return [
        Column("SOURCE", source, lambda row: row.source),
        Column("DESTINATION", destination, lambda row: row.destination),
        *(column for column in _NUMBERS if column.title in shown),
    ]


def _needed(titles: Iterable[str]) -> int:
    return sum(column.width + 1 for column in _NUMBERS if column.title in titles)


def cells(row: Row, shown: Iterable[Column]) -> list[str]:
    """As wide as their columns: names from the left, numbers from the right."""
    return [
        _cut(column.text(row), column.width).ljust(column.width)
        if column.title in ("SOURCE", "DESTINATION")
        else column.text(row).rjust(column.width)
        for column in shown
    ]


def heads(shown: Iterable[Column]) -> list[str]:
    return [
        column.title.ljust(column.width)
        if column.title in ("SOURCE", "DESTINATION")
        else column.title.rjust(column.width)
        for column in shown
    ]


def lines(rows: Iterable[Row], width: int) -> list[str]:
    shown = columns(width)
    return [" ".join(each).rstrip() for each in (heads(shown), *(cells(row, shown) for row in rows))]


def _cut(text: str, width: int) -> str:
    """The end of a name says more than its middle."""
    if len(text) <= width:
        return text
    head = width // 2 - 1
    return f"{text[:head]}…{text[len(text) - (width - head - 1) :]}"
