"""Shared state as every part sees it: keys with values, one counter of revisions, watches, leases.

This is the part of etcd's model that we need, small enough to be kept by SQLite on one machine:

- Keys are text with ``/`` between parts; a prefix is any beginning of a key, so end one that means a
  folder with ``/``. Values are bytes.
- Every transaction that changes something raises the store's revision by one, and stamps the keys that
  it changed with the new revision. A deletion leaves no trace but its change.
- A watch delivers every change after a revision exactly once, in order, and never half a transaction.
  Old changes are forgotten (compacted) in time: `Compacted` tells a watcher to list anew. `follow`
  does all of that for whoever wants a prefix kept up to date.
- A key may hang on a lease; it is deleted, with an ordinary change, soon after nobody has kept the
  lease alive for its time to live.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Protocol

import msgspec


class Entry(msgspec.Struct, frozen=True):
    """A key that exists. ``revision`` is that of its last modification, for `Store.transact`."""

    key: str
    value: bytes
    revision: int


class Change(msgspec.Struct, frozen=True):
    """What became of a key at ``revision``; ``value`` is None when it was deleted."""

    key: str
    value: bytes | None
    revision: int


#: A batch, in the order of revisions.
Changes = list[Change]


class Listing(msgspec.Struct, frozen=True):
    """A snapshot: the entries, in the order of their keys, and the store's revision at that moment."""

    entries: list[Entry]
    revision: int


class Lease(msgspec.Struct, frozen=True):
    """``ttl`` in seconds, as granted; a store may have rounded it up."""

    id: int
    ttl: float


class Put(msgspec.Struct, frozen=True):
    """Writes a key. Without ``lease`` the key no longer hangs on one that it had before."""

    key: str
    value: bytes
    lease: Lease | None = None


class Delete(msgspec.Struct, frozen=True):
    """Removes a key; nothing happens when there is none."""

    key: str


class StoreError(Exception):
    """Something that a user of the store must expect."""


class Conflict(StoreError):
    """A transaction found another revision of ``key`` than it expected, and changed nothing.

    ``found`` is the revision that the key had, 0 for no such key.
    """

    def __init__(self, key: str, expected: int, found: int) -> None:
        super().__init__(f"{key}: expected revision {expected}, found {found}")
        self.key = key
        self.expected = expected
        self.found = found


class Compacted(StoreError):
    """The changes after revision ``after`` are no longer all there: list anew, then watch from there."""

    def __init__(self, after: int, oldest: int) -> None:
        super().__init__(f"changes after revision {after} are forgotten; the oldest kept is {oldest}")
        self.after = after
        self.oldest = oldest


class LeaseExpired(StoreError):
    """The lease has run out or been revoked, and its keys are gone."""

    def __init__(self, lease: Lease) -> None:
        super().__init__(f"lease {lease.id} has expired")
        self.lease = lease


class Unavailable(StoreError):
    """The store cannot be reached or used just now; whether a write happened is unknown."""


class Store(Protocol):
    """All methods raise `Unavailable` when the store cannot be reached."""

    async def get(self, key: str) -> Entry | None: ...

    async def list(self, prefix: str) -> Listing: ...

    def watch(self, prefix: str, after: int) -> AsyncGenerator[Changes, None]:
        """Changes of keys under ``prefix`` with revisions above ``after``, for ever, in batches.

        `Compacted` when some of them are forgotten, or when the store never was at ``after``. Leave it
        early under ``contextlib.aclosing``.
        """
        ...

    async def put(self, key: str, value: bytes, lease: Lease | None = None) -> int:
        """The revision of the write. LeaseExpired if the lease is none any more."""
        ...

    async def delete(self, key: str) -> bool:
        """Whether the key existed."""
        ...

    async def transact(self, expect: Mapping[str, int], operations: Sequence[Put | Delete]) -> int:
        """All of the operations or, with `Conflict`, none.

        ``expect`` maps keys to the revision of their last modification, 0 for a key that must not
        exist. The result is the revision of the write, or the store's when nothing had to be changed.
        ValueError when two operations name one key.
        """
        ...

    async def grant(self, ttl: float) -> Lease: ...

    async def keep_alive(self, lease: Lease) -> None:
        """Lets the lease's time begin anew; LeaseExpired when it is too late."""
        ...

    async def revoke(self, lease: Lease) -> None:
        """Ends the lease and deletes its keys; nothing happens when it has expired already."""
        ...

    async def close(self) -> None: ...


def distinct(operations: Sequence[Put | Delete]) -> None:
    """ValueError when two operations of a transaction name one key."""
    keys = [operation.key for operation in operations]
    if len(set(keys)) < len(keys):
        twice = sorted({key for key in keys if keys.count(key) > 1})
        raise ValueError(f"a transaction names a key twice: {', '.join(twice)}")
