"""Whether a change fits the kernel's tables, before any of it is written.

A table that is too small is given more room, up to a limit. What does not fit then is refused as a whole:
the tables stay as they were, and whoever asked is told the numbers. New entries are written before those that
they replace are deleted, so there must be room for both.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Collection, Mapping

import msgspec

from axoneme.datapath.audit import WatchedTable
from axoneme.datapath.bpf import BpfError, MapFull
from axoneme.datapath.plane import Datapath
from axoneme.policy.arrays import key_array
from axoneme.policy.table import Key

log = logging.getLogger(__name__)


class Need(msgspec.Struct, frozen=True):
    """How many entries a table needs, and how many it can have; a ``problem`` when those are fewer."""

    table: str
    needed: int
    limit: int
    problem: str = ""


def lack(name: str, needed: int, limit: int) -> str:
    """The problem of a table that cannot have so many entries."""
    return (
        f"{name}: {limit:,} entries at most, {needed:,} needed; raise tables.{name} in the agent's "
        "configuration, or tables.growth"
    )


class Room:
    """The room in a node's tables; ``limits`` is how far each may grow, absent: not at all."""

    def __init__(self, plane: Datapath, limits: Mapping[str, int]) -> None:
        self._plane = plane
        self._limits = limits

    def need(self, name: str, needed: int) -> Need:
        limit = max(self._limits.get(name, 0), self._table(name).room)
        return Need(name, needed, limit, lack(name, needed, limit) if needed > limit else "")

    def entries(self, name: str) -> int:
        return len(self._table(name))

    def entries_with(self, keys: Collection[Key]) -> int:
        """How many policy entries there are when these have come."""
        table = self._plane.policies
        return len(table) + table.absent(key_array(list(keys), table.key))

    def _table(self, name: str) -> WatchedTable:
        table: WatchedTable = getattr(self._plane, name)
        return table

    def make(self, keys: Collection[Key]) -> None:
        """Makes room for these policy entries besides what is there. `MapFull` when there is none; then
        nothing has changed."""
        table = self._plane.policies
        if len(table) + len(keys) > table.room:
            self.reach("policies", self.entries_with(keys))

    def reach(self, name: str, needed: int) -> None:
        """Makes room for so many entries in all. `MapFull` when that is too many."""
        room = self._table(name).room
        if needed <= room:
            return
        need = self.need(name, needed)
        if need.problem:
            raise MapFull(errno.E2BIG, need.problem)
        size = room
        while size < needed:
            size *= 2
        try:
            self._plane.grow({name: min(size, need.limit)})
        except (BpfError, OSError) as error:
            raise MapFull(errno.E2BIG, f"{name}: {room:,} entries, {needed:,} needed, and {error}") from error
        log.info("%s: %d entries do not fit; now there is room for %d", name, needed, min(size, need.limit))
