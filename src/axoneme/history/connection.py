"""Flows for programs and notebooks: `axoneme.flows.connect` is `connect`."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa

from axoneme.flows.flowfilter import FlowFilter
from axoneme.flows.recordsrequest import RecordsRequest
from axoneme.history import live, sql
from axoneme.history.recorded import NodeHistory, Wanted
from axoneme.history.schema import SCHEMA
from axoneme.history.sources import Source, find
from axoneme.rpc import RpcError

if TYPE_CHECKING:
    import pandas as pd

#: A time: ns of the wall clock, a moment (without zone: the local one), or how long ago.
Moment = int | datetime | timedelta
#: A filter as a value, or by the names of its fields: ``{"pod": "shop/web", "verdict": ["DROPPED"]}``.
Filter = FlowFilter | dict[str, Any]


def connect(sandbox: str = "", *, config: Path | str = "") -> Connection:
    """The flows of a sandbox's nodes, or of a machine by the file that its agent reads; by default what
    AXO_SANDBOX or AXO_CONFIG in the environment say.

        from axoneme import flows
        flows.connect("demo").to_pandas({"verdict": "DROPPED"}, since=timedelta(minutes=5))

    Raises `axoneme.sources.config.ConfigError`.
    """
    return Connection(find(sandbox, config))


class Connection:
    """Flows of some nodes: those in the memory of their flow servers, and those that they have recorded."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = list(sources)

    def to_arrow(
        self,
        where: Filter | Sequence[Filter] = (),
        without: Filter | Sequence[Filter] = (),
        *,
        since: Moment | None = None,
        until: Moment | None = None,
        last: int | None = None,
    ) -> pa.Table:
        """The flows that a filter of ``where`` accepts and none of ``without``, in order of time.

        Raises `axoneme.flows.flowfilter.FilterError`; `axoneme.rpc.RpcError` where a node does not answer.
        """
        wanted = _wanted(where, without, since, until)
        found = [batch for source in self.sources for batch in _of(source, wanted)]
        table = pa.Table.from_batches(found, SCHEMA).sort_by("time")
        return table if last is None else table.slice(max(0, len(table) - last))

    def to_pandas(
        self,
        where: Filter | Sequence[Filter] = (),
        without: Filter | Sequence[Filter] = (),
        *,
        since: Moment | None = None,
        until: Moment | None = None,
        last: int | None = None,
    ) -> pd.DataFrame:
        """As `to_arrow`."""
        return self.to_arrow(where, without, since=since, until=until, last=last).to_pandas()

    def follow(
        self,
        where: Filter | Sequence[Filter] = (),
        without: Filter | Sequence[Filter] = (),
        *,
        until: Moment | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Flows from now on, each batch of one node, as they come. Close the iterator to end it."""
        wanted = _wanted(where, without, None, until)
        request = RecordsRequest(
            list(wanted.filters),
            list(wanted.not_filters),
            follow=True,
            until=None if until is None else wanted.until,
        )
        return _followed(self.sources, request)

    def sql(self, query: str, since: Moment | None = None) -> pa.Table:
        """The answer to a query over the table ``flows``; `axoneme.history.sql.QueryError`."""
        return sql.query(self.sources, query, 0 if since is None else nanoseconds(since))


def nanoseconds(moment: Moment) -> int:
    """Of the wall clock."""
    if isinstance(moment, timedelta):
        return time.time_ns() - moment // timedelta(microseconds=1) * 1000
    if isinstance(moment, datetime):
        whole = moment.astimezone()
        return int(whole.replace(microsecond=0).timestamp()) * 1_000_000_000 + whole.microsecond * 1000
    return moment


def _wanted(
    where: Filter | Sequence[Filter],
    without: Filter | Sequence[Filter],
    since: Moment | None,
    until: Moment | None,
) -> Wanted:
    bounds = Wanted()
    return Wanted(
        bounds.since if since is None else nanoseconds(since),
        bounds.until if until is None else nanoseconds(until),
        _filters(where),
        _filters(without),
    )


def _filters(given: Filter | Sequence[Filter]) -> list[FlowFilter]:
    several = [given] if isinstance(given, FlowFilter | dict) else given
    return [each if isinstance(each, FlowFilter) else _filter(each) for each in several]


def _filter(fields: dict[str, Any]) -> FlowFilter:
    """A single value stands for a list of one."""
    times = ("since", "until")
    listed = {
        name: value if name in times or isinstance(value, list | tuple) else [value]
        for name, value in fields.items()
    }
    try:
        return msgspec.convert(listed, FlowFilter)
    except msgspec.ValidationError as error:
        raise ValueError(f"filter {fields}: {error}") from None


def _of(source: Source, wanted: Wanted) -> Iterator[pa.RecordBatch]:
    """What was recorded, and then what is in memory behind that."""
    after = None
    if source.history is not None:
        recorded, after = NodeHistory(source.history).batches(wanted)
        yield from recorded
    request = RecordsRequest(
        list(wanted.filters),
        list(wanted.not_filters),
        since=wanted.since,
        until=wanted.until,
        after=after,
    )
    for batch in live.batches(source.flows, request):
        yield from _later(batch, wanted)


def _later(batch: pa.RecordBatch, wanted: Wanted) -> Iterator[pa.RecordBatch]:
    """Behind a position there may be flows that are older than what is wanted."""
    mask = pa.array(batch.column("time").cast(pa.int64()).to_numpy() >= wanted.since)
    kept = batch.filter(mask)
    if kept.num_rows:
        yield kept


def _followed(sources: Sequence[Source], request: RecordsRequest) -> Iterator[pa.RecordBatch]:
    """A thread for each node; the slowest part is whoever reads the result."""
    found: queue.Queue[pa.RecordBatch | RpcError | None] = queue.Queue(maxsize=2)
    ended = threading.Event()

    def put(item: pa.RecordBatch | RpcError | None) -> None:
        while not ended.is_set():
            try:
                found.put(item, timeout=0.2)
                return
            except queue.Full:
                continue

    def read(source: Source) -> None:
        try:
            for batch in live.batches(source.flows, request):
                put(batch)
                if ended.is_set():
                    return
            put(None)
        except RpcError as error:
            put(error)

    threads = [threading.Thread(target=read, args=(source,), daemon=True) for source in sources]
    for each in threads:
        each.start()
    running = len(threads)
    try:
        while running:
            item = found.get()
            if isinstance(item, RpcError):
                raise item
            if item is None:
                running -= 1
            else:
                yield item
    finally:
        ended.set()
