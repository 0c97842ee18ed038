"""The tables of the SQLite store, and connections to them."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

from axoneme.sources.store import StoreError, Unavailable

_VERSION = 1

# Rows live in the tree of the primary key itself: one page to touch, not two.
_TABLES = """
CREATE TABLE entries (
    key TEXT PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL, lease INTEGER
) WITHOUT ROWID;
CREATE INDEX entries_by_lease ON entries (lease) WHERE lease IS NOT NULL;
CREATE TABLE changes (  -- value NULL: deleted
    revision INTEGER, sequence INTEGER, key TEXT NOT NULL, value BLOB, PRIMARY KEY (revision, sequence)
) WITHOUT ROWID;
CREATE TABLE leases (id INTEGER PRIMARY KEY AUTOINCREMENT, ttl REAL NOT NULL, expires REAL NOT NULL);
CREATE INDEX leases_by_expiry ON leases (expires);
-- One row: the newest revision; the newest that `changes` has forgotten; the boot that `expires` counts from.
CREATE TABLE store (revision INTEGER NOT NULL, compacted INTEGER NOT NULL, boot TEXT NOT NULL);
"""


class WrongDatabase(StoreError):
    """The file is no store, or one of another version."""


def busy(error: sqlite3.DatabaseError) -> bool:
    """Whether another process is in the way, and only for a moment."""
    # Errors of Python's own (a closed connection) carry no code.
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def connect(path: Path, timeout: float = 0) -> sqlite3.Connection:
    """A connection that waits ``timeout`` seconds for a lock, and commits only when told to."""
    db = sqlite3.connect(path, timeout=timeout, isolation_level=None)
    try:
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute("PRAGMA wal_autocheckpoint=0")
    except BaseException:
        db.close()
        raise
    return db


def create(path: Path, boot: str, now: float, patience: float = 10.0) -> sqlite3.Connection:
    """A connection to the store in ``path``, which is made if it is not there.

    Blocks for as long as other processes do the same, at most ``patience`` seconds.
    """
    # SQLite gives its other files the mode of this one.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    deadline = time.monotonic() + patience
    while True:
        try:
            return _open(path, boot, now)
        except sqlite3.OperationalError as error:
            if not busy(error):
                raise Unavailable(f"{path}: {error}") from error
            if time.monotonic() > deadline:
                raise Unavailable(f"{path}: locked by another process for {patience:g} s") from error
            time.sleep(0.001)
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # its complaint may be no text
            raise WrongDatabase(f"{path}: not an Axoneme store: {error}") from error


def checkpoint(path: Path) -> None:
    """Copies the write-ahead log back into the database, so that it begins from its start again.

    First all that is there, without keeping anyone from reading or writing. Writers go on meanwhile,
    so this is repeated until little is left; for that rest they are locked out.
    """
    db = connect(path, timeout=1.0)
    try:
        for _ in range(5):
            _, pages, copied = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if pages - copied < 200:
                break
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        db.close()


def _open(path: Path, boot: str, now: float) -> sqlite3.Connection:
    db = connect(path)
    try:
        db.execute("PRAGMA journal_mode=WAL")
        _prepare(db, boot, now)
    except BaseException:
        db.close()
        raise
    return db


def _prepare(db: sqlite3.Connection, boot: str, now: float) -> None:
    db.execute("BEGIN IMMEDIATE")
    try:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            if db.execute("SELECT count(*) FROM sqlite_schema").fetchone() != (0,):
                raise sqlite3.DatabaseError("it has tables of something else")
            for statement in _TABLES.split(";\n"):
                db.execute(statement)
            db.execute("INSERT INTO store VALUES (0, 0, ?)", (boot,))
            db.execute(f"PRAGMA user_version={_VERSION}")
        elif version != _VERSION:
            raise sqlite3.DatabaseError(f"its version is {version}, this program knows {_VERSION}")
        if db.execute("SELECT boot FROM store").fetchone() != (boot,):
            # The clock began anew with the boot; so do the leases, for their holders were down too.
            db.execute("UPDATE leases SET expires = ? + ttl", (now,))
            db.execute("UPDATE store SET boot = ?", (boot,))
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
