"""Writes to the service tables, and the order in which they are safe.

What is pointed to is written before what points to it, and deleted after: so no frontend ever leads to a
service that is not there, no service counts a slot that is not there, and no slot names a backend that is
not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from axoneme.services.rows import Place

_PUT: Final = ("backends", "maglev", "slots", "source_ranges", "services", "frontends")
_DELETE: Final = ("frontends", "services", "maglev", "source_ranges", "slots", "backends")


class Step(NamedTuple):
    """Writes to one table, of different keys; ``values`` None: deletes them.

    ``maglev`` has the numbers of services as keys, and `axoneme.services.maglev.Shares` as values; of
    ``source_ranges`` only the keys say something.
    """

    table: str
    keys: Sequence[Any]
    values: Sequence[Any] | None


class Departed(NamedTuple):
    """A backend that no service has any more: flows and sockets that go there have to be ended."""

    number: int
    place: Place


@dataclass(slots=True)
class Changes:
    """What to write, in order, and what follows from it."""

    steps: list[Step] = field(default_factory=list)
    #: Name and port of the services whose numbers are in use from now on.
    named: dict[int, tuple[str, str]] = field(default_factory=dict)
    #: Numbers of services that are in use no longer.
    retired: list[int] = field(default_factory=list)
    departed: list[Departed] = field(default_factory=list)
    #: (service, backend) that takes no new connections of that service any more.
    withdrawn: list[tuple[int, int]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.steps)

    def __len__(self) -> int:
        """How many entries are written or deleted."""
        return sum(len(step.keys) for step in self.steps)


class Writes:
    """Rows that wait to be written; of each key the last write counts."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[Any, Any]] = {table: {} for table in _PUT}

    def put(self, table: str, key: Any, value: Any) -> None:
        self._rows[table][key] = value

    def drop(self, table: str, key: Any) -> None:
        self._rows[table][key] = None

    def take(self) -> list[Step]:
        """All of them, in order; none is left."""
        steps: list[Step] = []
        for table in _PUT:
            rows = {key: value for key, value in self._rows[table].items() if value is not None}
            if rows:
                steps.append(Step(table, list(rows), list(rows.values())))
        for table in _DELETE:
            keys = [key for key, value in self._rows[table].items() if value is None]
            if keys:
                steps.append(Step(table, keys, None))
        for waiting in self._rows.values():
            waiting.clear()
        return steps
