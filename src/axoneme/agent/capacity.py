"""Whether a change fits the kernel's tables, before any of it is written.

A table that is too small is given more room, up to a limit. What does not fit then is refused as a whole: the
tables stay as they were, and whoever asked is told the numbers.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Mapping
from typing import Any

from axoneme.datapath.audit import WatchedTable
from axoneme.datapath.bpf import BpfError, MapFull
from axoneme.datapath.plane import Datapath

log = logging.getLogger(__name__)


class Room:
    """The room in a node's tables; ``limits`` is how far each may grow, absent: not at all."""

    def __init__(self, plane: Datapath, limits: Mapping[str, int]) -> None:
        self._plane = plane
        self._limits = limits

    def limit(self, name: str) -> int:
        """How many entries the table can have at most."""
        return max(self._limits.get(name, 0), self._table(name).room)

    def entries(self, name: str) -> int:
        return len(self._table(name))

    def _table(self, name: str) -> WatchedTable:
        table: WatchedTable = getattr(self._plane, name)
        return table

    def make(self, name: str, keys: Any) -> None:
        """Makes room for these (different) keys besides what is there. `MapFull` when there is none; then
        nothing has changed."""
        table = self._table(name)
        if len(table) + len(keys) > table.room:
            self.reach(name, len(table) + table.absent(keys))

    def reach(self, name: str, needed: int) -> None:
        """Makes room for so many entries in all. `MapFull` when that is too many."""
        room, limit = self._table(name).room, self.limit(name)
        if needed <= room:
            return
        if needed > limit:
            raise MapFull(
                errno.E2BIG,
                f"{name}: {limit:,} entries at most, {needed:,} needed; raise tables.{name} in the agent's "
                "configuration, or tables.growth",
            )
        size = room
        while size < needed:
            size *= 2
        try:
            self._plane.grow({name: min(size, limit)})
        except (BpfError, OSError) as error:
            raise MapFull(errno.E2BIG, f"{name}: {room:,} entries, {needed:,} needed, and {error}") from error
        log.info("%s: %d entries do not fit; now there is room for %d", name, needed, min(size, limit))
