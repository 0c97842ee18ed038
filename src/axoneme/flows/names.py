"""Who stands behind the ends of a flow: pod, workload, labels, node.

Each distinct answer is an `End` with a row number, and a flow record keeps the two row numbers that
held when it came in. What later happens to a pod, its labels or its address does not change history,
and a filter need look at each row once, not at each flow.

An end is found by its address (pods and nodes), else by its identity (what lies outside, and pods
that this node has not heard of yet). Rows that nothing refers to any more are given to others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from sys import intern

import numpy as np
import numpy.typing as npt

from axoneme.flows.addresses import AddressTable
from axoneme.flows.events import Records, words

Rows = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class End:
    """What is known of one end of flows; empty texts where there is nothing to know."""

    labels: tuple[str, ...] = ()
    namespace: str = ""
    pod: str = ""
    workload_kind: str = ""
    workload: str = ""
    node: str = ""


@dataclass(frozen=True, slots=True)
class _Owner:
    number: int
    row: int
    addresses: tuple[bytes, ...]


class Names:
    """Row 0 is the end of whom nothing is known.

    ``reserved`` names the identities with a fixed meaning, ``local_from`` is the first identity that
    means something on this node only: those are prefixes outside the cluster.
    """

    def __init__(self, reserved: Mapping[int, str], local_from: int) -> None:
        self._reserved = reserved
        self._local_from = local_from
        self._table = AddressTable()
        self._owners: dict[str, _Owner] = {}
        self._pods: Counter[tuple[str, str]] = Counter()
        self._counter = 0
        self._ends: list[End | None] = [End()]
        self._rows: dict[End, int] = {End(): 0}
        self._free: list[int] = []
        self._born = np.zeros(64, np.int64)
        self._identity_rows: dict[int, int] = {}
        self._identity_labels: dict[int, tuple[str, ...]] = {}
        self._label_sets: dict[tuple[str, ...], tuple[str, ...]] = {}
        #: Rises with every row that gets a new meaning.
        self.version = 0

    # ---- what is known -----------------------------------------------------------------------

    def put(self, key: str, addresses: Iterable[bytes], end: End) -> None:
        """``key`` (of the shared state) owns these addresses, of 16 bytes each, and is ``end``."""
        self.forget(key)
        self._counter += 1
        owner = _Owner(self._counter, self._row(end), tuple(addresses))
        self._owners[key] = owner
        self._pods[end.namespace, end.pod] += 1
        for address in owner.addresses:
            self._table.put(address, owner.row, owner.number)

    def forget(self, key: str) -> None:
        owner = self._owners.pop(key, None)
        if owner is not None:
            if (end := self._ends[owner.row]) is not None:
                self._pods[end.namespace, end.pod] -= 1
                if not self._pods[end.namespace, end.pod]:
                    del self._pods[end.namespace, end.pod]
            for address in owner.addresses:
                self._table.remove(address, owner.number)

    def has_pod(self, pod: tuple[str, str]) -> bool:
        """Whether there is one of this namespace and name."""
        return pod in self._pods

    def put_identity(self, identity: int, labels: Iterable[str]) -> None:
        self._identity_labels[identity] = tuple(labels)
        self._identity_rows.pop(identity, None)

    def forget_identity(self, identity: int) -> None:
        self._identity_labels.pop(identity, None)
        self._identity_rows.pop(identity, None)

    def knows_not(self, records: Records) -> bool:
        """Whether there are identities of this node among them whose labels nobody has told yet."""
        unknown: set[int] = set()
        for side in ("source", "destination"):
            numbers = records[f"{side}_identity"]
            local = numbers[numbers >= self._local_from]
            if local.size:
                unknown.update(np.unique(local).tolist())
        return not unknown <= self._identity_labels.keys()

    # ---- naming ------------------------------------------------------------------------------

    def resolve(self, records: Records) -> None:
        """Fills in ``source_row`` and ``destination_row``."""
        for side in ("source", "destination"):
            rows = self._table.look_up(words(records, side))
            unknown = np.flatnonzero(rows == 0)
            if unknown.size:
                numbers, inverse = np.unique(records[f"{side}_identity"][unknown], return_inverse=True)
                by_number = [self._identity_row(number) for number in numbers.tolist()]
                rows[unknown] = np.array(by_number, np.uint32)[inverse]
            records[f"{side}_row"] = rows

    def add(self, end: End) -> int:
        """The row of an end of which no address is known here; `collect` gives it up like others."""
        return self._row(end)

    def __getitem__(self, row: int) -> End:
        end = self._ends[row]
        if end is None:
            raise KeyError(row)
        return end

    def __len__(self) -> int:
        """One more than the highest row number."""
        return len(self._ends)

    def since(self, version: int) -> Iterator[tuple[int, End]]:
        """The rows that got their meaning after ``version``."""
        for row in np.flatnonzero(self._born[: len(self._ends)] > version).tolist():
            end = self._ends[row]
            if end is not None:
                yield row, end

    # ---- memory ------------------------------------------------------------------------------

    @property
    def crowded(self) -> bool:
        """Whether there are so many rows beside those of the present that `collect` is due."""
        return len(self._rows) > 2 * (len(self._owners) + len(self._identity_rows)) + 1024

    def collect(self, used: Iterable[Rows]) -> int:
        """Gives up the rows that neither the present nor a record (``used``) refers to; how many."""
        keep = np.zeros(len(self._ends), np.bool_)
        for rows in used:
            keep[rows] = True
        # What an identity is called can be found again; only what records show must stay.
        self._identity_rows = {number: row for number, row in self._identity_rows.items() if keep[row]}
        keep[[0, *(owner.row for owner in self._owners.values())]] = True
        dropped = 0
        for row in np.flatnonzero(~keep).tolist():
            end = self._ends[row]
            if end is not None:
                del self._rows[end]
                self._ends[row] = None
                self._free.append(row)
                dropped += 1
        self._label_sets = {end.labels: end.labels for end in self._rows}
        return dropped

    def _row(self, end: End) -> int:
        row = self._rows.get(end)
        if row is not None:
            return row
        end = self._share(end)
        if self._free:
            row = self._free.pop()
            self._ends[row] = end
        else:
            row = len(self._ends)
            self._ends.append(end)
            if row >= len(self._born):
                self._born = np.concatenate((self._born, np.zeros_like(self._born)))
        self._rows[end] = row
        self.version += 1
        self._born[row] = self.version
        return row

    def _identity_row(self, identity: int) -> int:
        row = self._identity_rows.get(identity)
        if row is None:
            row = self._identity_rows[identity] = self._row(End(labels=self._labels_of(identity)))
        return row

    def _labels_of(self, identity: int) -> tuple[str, ...]:
        known = self._identity_labels.get(identity)
        if known is not None:
            return known
        if identity in self._reserved:
            return (f"reserved:{self._reserved[identity]}",)
        return ("reserved:world",) if identity >= self._local_from else ()

    def _share(self, end: End) -> End:
        """The same end from parts that the pods of a workload or a node have in common."""
        return End(
            labels=self._label_sets.setdefault(end.labels, end.labels),
            namespace=intern(end.namespace),
            pod=end.pod,
            workload_kind=intern(end.workload_kind),
            workload=intern(end.workload),
            node=intern(end.node),
        )
