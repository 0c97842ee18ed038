"""Identity numbers for sets of labels: the same on every node, given out through the store.

``by-labels/<hash>`` says which number a set of labels has, ``by-number/<n>`` which labels a number
stands for; both are written in one transaction, so two nodes that ask at once get one answer. The first
number tried for a set follows from its hash, so a cluster that is built anew gets its old numbers again.

``holds/<node>/<n>`` says that a node uses a number. Holds are durable, not leased: pods run on while
their agent is down, however long, and nobody may be given their number meanwhile. They go when the node
releases them, or when it has left the cluster: its ``state/nodes/<node>`` is gone, which is for others
to decide. A node must therefore have published its state before it acquires anything.

Numbers are collected in two steps, because a transaction cannot expect "nobody holds it". A number
without holds is first marked in ``by-labels``; once the mark is older than the grace period, and still
nobody holds the number, both keys are deleted, provided that the marked one is as it was. Whoever
acquires a marked number removes the mark in the transaction that writes the hold. So either the holder
is seen, or the deletion fails.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from axoneme.identity.numbers import FIRST_CLUSTER, LAST_CLUSTER, in_cluster
from axoneme.model.labels import Labels
from axoneme.model.state import IDENTITIES, NODES, IdentityState, encode, identity_key, node_key
from axoneme.sources.store import Conflict, Delete, Entry, Put, Store, StoreError

log = logging.getLogger(__name__)

BY_LABELS = "state/identities/by-labels/"
HOLDS = "state/identities/holds/"

_SIZE = LAST_CLUSTER - FIRST_CLUSTER + 1
#: Numbers tried one by one before all that are in use are listed.
_PROBES = 8
#: Holds deleted in one transaction, of which etcd takes 128 operations at most.
_BATCH = 100


class IdentitiesExhausted(StoreError):
    """Every number of the cluster has labels."""


class _Number(msgspec.Struct, frozen=True, omit_defaults=True):
    """The value of ``by-labels/<hash>``; ``unused_since`` is the mark, in seconds since 1970."""

    number: int
    unused_since: float | None = None


def hold_key(node: str, number: int) -> str:
    return f"{HOLDS}{node}/{number}"


def labels_key(labels: Labels) -> str:
    """``by-labels/`` and the SHA-256 of the labels' texts, sorted, one a line."""
    return BY_LABELS + hashlib.sha256("\n".join(labels.texts()).encode()).hexdigest()


class Identities:
    """The numbers that one node uses, and for whom. ``cluster`` is the cluster's number in a mesh."""

    def __init__(self, store: Store, node: str, cluster: int = 0) -> None:
        self._store = store
        self._node = node
        self._cluster = cluster
        self._numbers: dict[Labels, int] = {}
        self._users: dict[Labels, set[str]] = {}
        # Taking and giving up a hold must not overlap: the one could undo what the other relies on.
        self._lock = asyncio.Lock()

    async def acquire(self, labels: Labels, user: str) -> int:
        """The number of ``labels``, held by this node until ``user`` and all others have released it.

        ``user`` is any name, such as an endpoint's; acquiring again under one name changes nothing.
        IdentitiesExhausted when the labels are new and no number is left.
        """
        async with self._lock:
            if labels not in self._numbers:
                self._numbers[labels] = await self._take(labels)
                self._users[labels] = set()
            self._users[labels].add(user)
            return self._numbers[labels]

    async def release(self, labels: Labels, user: str) -> None:
        """``user`` needs the number no more.

        Should the store be unavailable just then, `Unavailable` is raised, the hold stays, and `prune`
        removes it later.
        """
        async with self._lock:
            users = self._users.get(labels, set())
            users.discard(user)
            if not users and labels in self._numbers:
                del self._users[labels]
                await self._store.delete(hold_key(self._node, self._numbers.pop(labels)))

    async def prune(self) -> int:
        """Gives up holds that nobody here uses, once those who do have acquired; how many those were.

        For the time after a restart, and after a release that failed.
        """
        async with self._lock:
            prefix = f"{HOLDS}{self._node}/"
            used = {hold_key(self._node, number) for number in self._numbers.values()}
            entries = (await self._store.list(prefix)).entries
            stale = [entry.key for entry in entries if entry.key not in used]
            for batch in _batches(stale):
                await self._store.transact({}, [Delete(key) for key in batch])
            return len(stale)

    async def _take(self, labels: Labels) -> int:
        key = labels_key(labels)
        while True:
            try:
                if entry := await self._store.get(key):
                    return await self._hold(entry)
                return await self._make(labels, key)
            except Conflict as error:
                log.debug("acquiring an identity anew: %s", error)

    async def _hold(self, entry: Entry) -> int:
        """A hold on a number that exists. Conflict when the number was marked or collected meanwhile."""
        record = msgspec.json.decode(entry.value, type=_Number)
        hold = hold_key(self._node, record.number)
        if await self._store.get(hold):  # from before a restart; marked or not, a collector will see it
            return record.number
        operations = [Put(hold, b"{}")]
        if record.unused_since is not None:
            operations.append(Put(entry.key, msgspec.json.encode(_Number(record.number))))
        await self._store.transact({entry.key: entry.revision}, operations)
        return record.number

    async def _make(self, labels: Labels, key: str) -> int:
        """A new number for labels that had none. Conflict when another node was faster."""
        value = encode(IdentityState(labels.texts()))
        start = int.from_bytes(bytes.fromhex(key.removeprefix(BY_LABELS))[:8], "big")
        for number in self._probes(start):
            try:
                return await self._write(key, number, value)
            except Conflict as error:
                if error.key == key:
                    raise
        free = await self._free_numbers(start)
        return await self._write(key, free, value)

    def _probes(self, start: int) -> Iterator[int]:
        for probe in range(_PROBES):
            # An odd stride comes round to every number only in time, which is all that is asked of it.
            offset = (start + probe * (start >> 32 | 1)) % _SIZE
            yield in_cluster(self._cluster, FIRST_CLUSTER + offset)

    async def _write(self, key: str, number: int, value: bytes) -> int:
        await self._store.transact(
            {key: 0, identity_key(number): 0},
            [
                Put(identity_key(number), value),
                Put(key, msgspec.json.encode(_Number(number))),
                Put(hold_key(self._node, number), b"{}"),
            ],
        )
        return number

    async def _free_numbers(self, start: int) -> int:
        listing = await self._store.list(IDENTITIES)
        used = {int(entry.key.removeprefix(IDENTITIES)) for entry in listing.entries}
        for offset in range(_SIZE):
            number = in_cluster(self._cluster, FIRST_CLUSTER + (start + offset) % _SIZE)
            if number not in used:
                return number
        raise IdentitiesExhausted(
            f"all {_SIZE} identity numbers of cluster {self._cluster} are in use, so a pod with new labels"
            " cannot come; labels that differ from pod to pod take a number each: leave them out of the"
            " identity with `labels` in the agent's configuration"
        )


@dataclass(frozen=True, slots=True)
class Collected:
    """What a round of the collector did: numbers marked, kept after all, deleted; nodes forgotten."""

    marked: tuple[int, ...] = ()
    kept: tuple[int, ...] = ()
    deleted: tuple[int, ...] = ()
    nodes: tuple[str, ...] = ()


class Collector:
    """Deletes numbers that nobody has held for ``grace`` seconds, and holds of nodes gone for as long.

    Any number of them may run at once. Times are seconds since 1970, given by the caller.
    """

    def __init__(self, store: Store, grace: float) -> None:
        self._store = store
        self._grace = grace
        self._gone_since: dict[str, float] = {}

    async def collect(self, now: float) -> Collected:
        """One round."""
        # In this order: a hold older than a mark that is seen here is seen here as well.
        numbers = (await self._store.list(BY_LABELS)).entries
        holds: dict[str, list[str]] = {}
        for entry in (await self._store.list(HOLDS)).entries:
            holds.setdefault(entry.key.split("/")[-2], []).append(entry.key)
        nodes = await self._forget_nodes(holds, now)
        held = {int(key.rsplit("/", 1)[1]) for keys in holds.values() for key in keys}
        done: dict[str, list[int]] = {"marked": [], "kept": [], "deleted": []}
        for entry in numbers:
            record = msgspec.json.decode(entry.value, type=_Number)
            if what := await self._step(entry, record, record.number in held, now):
                done[what].append(record.number)
        return Collected(tuple(done["marked"]), tuple(done["kept"]), tuple(done["deleted"]), nodes)

    async def _step(self, entry: Entry, record: _Number, held: bool, now: float) -> str | None:
        unused = record.unused_since
        operations: list[Put | Delete]
        if held:
            if unused is None:
                return None
            what = "kept"
            operations = [Put(entry.key, msgspec.json.encode(_Number(record.number)))]
        elif unused is None or unused > now:  # a mark from the future comes of a clock put right
            what = "marked"
            operations = [Put(entry.key, msgspec.json.encode(_Number(record.number, now)))]
        elif now - unused >= self._grace:
            what = "deleted"
            operations = [Delete(entry.key), Delete(identity_key(record.number))]
        else:
            return None
        try:
            await self._store.transact({entry.key: entry.revision}, operations)
        except Conflict:
            return None  # somebody acquired it just now, or another collector was here
        return what

    async def _forget_nodes(self, holds: dict[str, list[str]], now: float) -> tuple[str, ...]:
        """Deletes the holds of nodes that are gone; their numbers are for the next round to mark."""
        prefix = len(NODES)
        present = {entry.key[prefix:] for entry in (await self._store.list(NODES)).entries}
        gone = holds.keys() - present
        self._gone_since = {node: self._gone_since.get(node, now) for node in gone}
        forgotten = []
        for node in sorted(gone):
            if now - self._gone_since[node] < self._grace:
                continue
            try:
                for batch in _batches(holds[node]):
                    await self._store.transact({node_key(node): 0}, [Delete(key) for key in batch])
            except Conflict:
                continue  # it has come back
            forgotten.append(node)
        return tuple(forgotten)


def _batches(keys: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(keys), _BATCH):
        yield keys[start : start + _BATCH]
