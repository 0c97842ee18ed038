"""What is said of one thing, a line each: a name, and behind it what there is to say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

_WIDTH = 22


def field(name: str, value: str) -> str:
    """One line."""
    return f"{name + ':':<{_WIDTH}} {value}".rstrip()


def many(name: str, values: Sequence[str]) -> Iterator[str]:
    """A field with a line for each value."""
    for number, value in enumerate(values or ["<none>"]):
        yield f"{f'{name}:' if not number else '':<{_WIDTH}} {value}"


def section(name: str, lines: Sequence[str]) -> Iterator[str]:
    """A heading, and lines below it."""
    yield f"{name}:" if lines else field(name, "<none>")
    yield from (f"  {line}" for line in lines)
