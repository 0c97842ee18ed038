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
    #: Frontends that were not there: what was sent to them went elsewhere.
    opened: list[Place] = field(default_factory=list)
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
    """Rows that wait to be written, and what stands in their place: what comes to the same is not written."""

    def __init__(self) -> None:
        self._after: dict[str, dict[Any, Any]] = {table: {} for table in _PUT}
        #: Where something stands.
        self._before: dict[str, dict[Any, Any]] = {table: {} for table in _PUT}

    def change(self, table: str, key: Any, before: Any, after: Any) -> None:
        """A row becomes another; None: there is none."""
        rows = self._after[table]
        if before is not None and key not in rows:
            self._before[table][key] = before
        rows[key] = after

    def take(self) -> list[Step]:
        """All of them, in order; none is left."""
        steps: list[Step] = []
        for table in _PUT:
            before = self._before[table]
            put = {
                key: row
                for key, row in self._after[table].items()
                if row is not None and row != before.get(key)
            }
            if put:
                steps.append(Step(table, list(put), list(put.values())))
        for table in _DELETE:
            after = self._after[table]
            keys = [key for key in self._before[table] if after[key] is None]
            if keys:
                steps.append(Step(table, keys, None))
        for waiting in (self._after, self._before):
            for rows in waiting.values():
                rows.clear()
        return steps
