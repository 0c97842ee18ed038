"""What is fuzzed: a parser, the property it must keep for every input, and inputs to begin with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

#: Inputs on which a property once failed, a folder for each target.
FOUND = Path(__file__).parent / "found"


@dataclass(frozen=True, slots=True)
class Target:
    """``check`` takes an input and raises when the property does not hold; what the parser is documented
    to raise it catches. ``seeds`` are sound inputs; ``json``: they are JSON, and mutated as such.

    An input that takes longer than ``seconds``, or more memory than ``megabytes`` in all, has failed too.
    """

    name: str
    check: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]
    json: bool = False
    longest: int = 1 << 14
    seconds: int = 10
    megabytes: int = 1024

    def found(self) -> list[Path]:
        return sorted((FOUND / self.name).glob("*"))


def says_why(error: Exception) -> None:
    """An error that a user meets says something, and can be printed."""
    text = str(error)
    assert text.strip(), f"{type(error).__name__} without a word"
    text.encode()
    assert len(text) < 20_000, f"an error of {len(text)} characters"
