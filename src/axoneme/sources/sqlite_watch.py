"""Watches on the SQLite store: who waits for what, and who must wake.

All watchers of a process share one listener on the bell. When it rings, the process reads the keys
that have changed, once, and wakes those watchers whose prefix is among them; the others are moved on
to the newest revision without reading anything, so that a quiet prefix is never `Compacted` because
of a busy one.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from axoneme.sources.inotify import Bell
from axoneme.sources.store import Change, Compacted, Unavailable

log = logging.getLogger(__name__)

#: Seconds between two looks when the bell keeps silent.
_PERIOD = 1.0
#: The same where there is no bell to hear.
_PERIOD_DEAF = 0.05
#: Seconds after which a look that found the file locked is repeated.
_AGAIN = 0.002
#: Changes in a batch, unless a single transaction made more.
_BATCH = 1000
#: Revisions in one look above which every watcher looks for itself.
_MANY = 5000

_LOG = (
    "SELECT key, CAST(value AS BLOB), revision FROM changes"
    " WHERE revision > ? AND revision <= ? AND key >= ? AND key < ? ORDER BY revision, sequence"
)


class Watcher:
    """``after`` is the revision up to which the watcher knows everything."""

    def __init__(self, prefix: str, after: int) -> None:
        self.prefix = prefix
        self.after = after
        self._event = asyncio.Event()

    def wake(self) -> None:
        self._event.set()

    @property
    def awake(self) -> bool:
        return self._event.is_set()

    async def woken(self) -> None:
        await self._event.wait()
        self._event.clear()


class Watchers:
    """The watchers of one store in one process; idle, without timer or listener, while there are none.

    ``glance`` tells the newest revision, None while the file is locked; it may raise `Unavailable`.
    """

    def __init__(self, bell: Path, db: sqlite3.Connection, glance: Callable[[], int | None]) -> None:
        self._bell = Bell(bell)
        self._db = db
        self._glance = glance
        self._watchers: set[Watcher] = set()
        #: The revision up to which each watcher was woken if something concerned it; None: unknown.
        self._seen: int | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listening = -1
        self._period = _PERIOD
        self._timer: asyncio.TimerHandle | None = None
        self._retry: asyncio.TimerHandle | None = None

    @contextmanager
    def watcher(self, prefix: str, after: int) -> Iterator[Watcher]:
        watcher = Watcher(prefix, after)
        if not self._loop:
            self._start()
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)
            if not self._watchers:
                self._stop()

    def ring(self) -> None:
        """To every process: a write has been committed."""
        self._bell.ring()

    def close(self) -> None:
        self._stop()
        for watcher in self._watchers:
            watcher.wake()
        self._bell.close()

    def _start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._seen = None
        try:
            self._listening = self._bell.listen()
        except OSError as error:
            log.warning("changes by other processes are noticed late: %s", error)
            self._period = _PERIOD_DEAF
        else:
            self._period = _PERIOD
            self._loop.add_reader(self._listening, self._rung)
        self._timer = self._loop.call_later(self._period, self._tick)

    def _stop(self) -> None:
        if self._loop and self._listening >= 0:
            self._loop.remove_reader(self._listening)
            self._bell.deafen()
        self._loop, self._listening = None, -1
        for handle in (self._timer, self._retry):
            if handle:
                handle.cancel()
        self._timer = self._retry = None

    def _rung(self) -> None:
        self._bell.silence()
        self._look()

    def _tick(self) -> None:
        if self._loop:
            self._timer = self._loop.call_later(self._period, self._tick)
            self._look()

    def _look_again(self) -> None:
        self._retry = None
        self._look()

    def _look(self) -> None:
        try:
            newest = self._glance()
            if newest is not None:
                self._advance(newest)
            elif self._loop and not self._retry:
                self._retry = self._loop.call_later(_AGAIN, self._look_again)
        except (Unavailable, sqlite3.DatabaseError, TypeError, ValueError):
            self._seen = None
            for watcher in self._watchers:  # each of them will meet the error, and report it
                watcher.wake()

    def _advance(self, newest: int) -> None:
        if newest == self._seen:
            return
        keys = None if self._seen is None else _changed_keys(self._db, self._seen, newest)
        for watcher in self._watchers:
            if keys is None or any(key.startswith(watcher.prefix) for key in keys):
                watcher.wake()
            elif not watcher.awake and self._seen is not None and watcher.after >= self._seen:
                watcher.after = max(watcher.after, newest)
        self._seen = newest


def _changed_keys(db: sqlite3.Connection, after: int, upto: int) -> list[str] | None:
    """The keys that changed in between; None when they are too many to look through, or forgotten."""
    (compacted,) = db.execute("SELECT compacted FROM store").fetchone()
    if not compacted <= after <= upto or upto - after > _MANY:
        return None
    query = "SELECT DISTINCT key FROM changes WHERE revision > ? AND revision <= ?"
    return [key for (key,) in db.execute(query, (after, upto))]


def changes_between(db: sqlite3.Connection, after: int, keys: tuple[str, str]) -> tuple[list[Change], int]:
    """A batch of changes after a revision, and the revision up to which these are all.

    ``keys`` are the first that counts and the first that does not. `Compacted` as in `Store.watch`.
    """
    db.execute("BEGIN")
    try:
        revision, compacted = db.execute("SELECT revision, compacted FROM store").fetchone()
        if not compacted <= after <= revision:
            raise Compacted(after, compacted + 1)
        rows = db.execute(_LOG + " LIMIT ?", (after, revision, *keys, _BATCH)).fetchall()
        if len(rows) == _BATCH:  # the last transaction may be cut off
            first, last = rows[0][2], rows[-1][2]
            revision = last if first == last else last - 1
            rows = [row for row in rows if row[2] < last] or db.execute(_LOG, (after, last, *keys)).fetchall()
        return [Change(*row) for row in rows], revision
    finally:
        db.execute("ROLLBACK")
