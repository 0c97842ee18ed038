"""Records on their way to another process, as they are: columns in bulk, and beside them what numbers mean.

A `Parcel` is one item of the stream ``flows.records``, and one line of a file that such a stream was written
to. The first has the layout of all; each brings the meaning of those numbers in its records that earlier ones
have not brought. To make one costs a small part of what it costs to encode its flows one by one, and whoever
receives it has what the flow server has: a `FlowLog` with which filters, encoders and columns work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Self

import msgspec
import numpy as np
import numpy.typing as npt

from axoneme.flows.encode import Rules
from axoneme.flows.events import L7, Records, Verdict, Vocabulary
from axoneme.flows.flow import Layer7, LostEvents
from axoneme.flows.flowlog import FlowLog
from axoneme.flows.names import End, Names
from axoneme.flows.recordsrequest import Position
from axoneme.flows.requests import Requests
from axoneme.flows.servicenames import ServiceNames, ServicePort
from axoneme.flows.store import FlowStore
from axoneme.model.policy import PolicyRef


class Layout(msgspec.Struct, frozen=True):
    """Of the records of ``node``: numpy's description of their fields, and the fields of `Vocabulary`."""

    node: str
    names: list[str]
    formats: list[str]
    offsets: list[int]
    itemsize: int
    vocabulary: dict[str, int | dict[int, str]]

    @classmethod
    def of(cls, log: FlowLog) -> Self:
        dtype = log.store.dtype
        assert dtype.names is not None
        assert dtype.fields is not None
        return cls(
            log.node,
            list(dtype.names),
            [_format(dtype[name]) for name in dtype.names],
            [dtype.fields[name][1] for name in dtype.names],
            dtype.itemsize,
            {
                field.name: getattr(log.vocabulary, field.name)
                for field in fields(log.vocabulary)
                if field.name != "event"
            },
        )

    def log(self, rules: Rules, requests: Requests) -> FlowLog:
        """For records of this layout: it knows what `FlowLog` knows, but has none of them in its store."""
        dtype = np.dtype(
            {
                "names": self.names,
                "formats": self.formats,
                "offsets": self.offsets,
                "itemsize": self.itemsize,
            }
        )
        terms: dict[str, Any] = {field.name: 0 for field in fields(Vocabulary)}  # of a release without them
        known = {name: value for name, value in self.vocabulary.items() if name in terms}
        vocabulary = Vocabulary(**{**terms, **known, "event": dtype})
        names = Names(vocabulary.reserved, vocabulary.first_local)
        return FlowLog(self.node, FlowStore(dtype, 1, 1), names, rules, ServiceNames(), requests, vocabulary)


class Parcel(msgspec.Struct, frozen=True, omit_defaults=True):
    """``records``: as they are in memory, in order of time. ``ends`` by row, the rest by their numbers.
    ``lost``: what is missing before them."""

    position: Position
    layout: Layout | None = None
    records: bytes = b""
    ends: dict[int, End] = {}
    rules: dict[int, tuple[PolicyRef, ...]] = {}
    services: dict[int, ServicePort] = {}
    requests: dict[int, Layer7] = {}
    lost: tuple[LostEvents, ...] = ()


class Packer:
    """Makes parcels of the records of one log for one receiver."""

    def __init__(self, log: FlowLog) -> None:
        self._log = log
        self._layout: Layout | None = Layout.of(log)
        self._ends: dict[int, End] = {}
        self._rules: dict[int, Sequence[PolicyRef]] = {}
        self._services: dict[int, ServicePort] = {}

    def pack(self, records: Records, position: Position, lost: tuple[LostEvents, ...] = ()) -> Parcel:
        """Records that the store still has, or had a moment ago: their rows must mean what they meant."""
        log = self._log
        layout, self._layout = self._layout, None
        ends = {row: log.names[row] for row in _numbers(records, "source_row", "destination_row")}
        rules = {number: log.rules(number) for number in _numbers(records, "egress_rule", "ingress_rule")}
        services = {number: log.services.get(number) for number in _numbers(records, "service")}
        asked = records["request"][records["kind"] == L7].tolist()
        requests = {number: log.requests.get(number) for number in asked}
        return Parcel(
            position,
            layout,
            records.tobytes(),
            _news(self._ends, ends),
            {number: tuple(refs) for number, refs in _news(self._rules, rules).items()},
            _news(self._services, services),
            {number: request for number, request in requests.items() if request is not None},
            lost,
        )


class Unpacker:
    """Makes records of parcels again. Numbers of ends and requests become others, which mean the same in
    `log` for ever, or of requests until ``requests`` more have come."""

    def __init__(self, requests: int = 1 << 17, request_bytes: int = 1 << 28) -> None:
        self._requests = Requests(requests, request_bytes)
        self._rules: dict[int, tuple[PolicyRef, ...]] = {}
        self._rows: npt.NDArray[np.uint32] = np.zeros(256, np.uint32)
        self._log: FlowLog | None = None

    @property
    def log(self) -> FlowLog:
        """What is known of the records so far; ValueError before the first parcel. Its store is empty."""
        if self._log is None:
            raise ValueError(
                "the first parcel has no layout: this is not the beginning of a stream of records"
            )
        return self._log

    def unpack(self, parcel: Parcel) -> Records:
        """Raises ValueError for a parcel that cannot be part of this stream."""
        if parcel.layout is not None:
            self._begin(parcel.layout)
        log = self.log
        if len(parcel.records) % log.store.dtype.itemsize:
            raise ValueError(f"{len(parcel.records)} bytes are no whole number of records")
        records: Records = np.frombuffer(parcel.records, log.store.dtype).copy()
        self._learn(log, parcel)
        for side in ("source_row", "destination_row"):
            records[side] = self._rows[records[side]]
        if parcel.requests:
            refused = log.vocabulary.verdicts(records) == Verdict.DROPPED
            for place in np.flatnonzero(records["kind"] == L7).tolist():
                request = parcel.requests.get(int(records["request"][place]))
                number = 0 if request is None else log.requests.put(request, bool(refused[place]))
                records["request"][place] = number
        return records

    def _begin(self, layout: Layout) -> None:
        log = layout.log(self._rules.get, self._requests)
        if self._log is None:
            self._log = log
        elif (self._log.node, self._log.store.dtype) != (log.node, log.store.dtype):
            raise ValueError("records of two layouts in one stream")

    def _learn(self, log: FlowLog, parcel: Parcel) -> None:
        highest = max(parcel.ends, default=0)
        if highest >= len(self._rows):
            grown = np.zeros(2 * highest, np.uint32)
            grown[: len(self._rows)] = self._rows
            self._rows = grown
        for row, end in parcel.ends.items():
            self._rows[row] = log.names.add(end)
        self._rules.update(parcel.rules)
        for number, service in parcel.services.items():
            log.services.put(number, service)


def _format(dtype: np.dtype[Any]) -> str:
    if dtype.subdtype is None:
        return dtype.str
    base, shape = dtype.subdtype
    return f"{shape}{base.str}"


def _numbers(records: Records, *columns: str) -> list[int]:
    """The different ones."""
    found: set[int] = set()
    for column in columns:
        found.update(np.unique(records[column]).tolist())
    return sorted(found)


def _news(told: dict[int, Any], known: dict[int, Any]) -> dict[int, Any]:
    """What has not been told yet, or otherwise; it is told now."""
    fresh = {
        number: meaning
        for number, meaning in known.items()
        if meaning is not None and told.get(number) is not meaning
    }
    told.update(fresh)
    return fresh
