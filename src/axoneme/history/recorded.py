"""What was recorded, read again: as flow records that filters, encoders and counts work with, as flows, or as
Arrow tables. What no table has yet is read from the spools, so the past reaches up to a moment ago.

All of it blocks, and reads as it goes: whoever has an event loop calls it in a thread.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from axoneme.flows.events import Mask, Records, join, take
from axoneme.flows.flow import Item, LostEvents
from axoneme.flows.flowfilter import FlowFilter
from axoneme.flows.flowlog import FlowLog
from axoneme.flows.recordsrequest import Position
from axoneme.flows.transfer import Unpacker
from axoneme.history import columns, tables
from axoneme.history.folder import Folder
from axoneme.history.rebuild import Rebuilder
from axoneme.history.schema import SCHEMA
from axoneme.history.spool import remembered
from axoneme.history.spooled import parcels

log = logging.getLogger(__name__)

#: Records that become flows at once.
_PAGE = 4096
_LARGEST = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Wanted:
    """Flows between two times (ns of the wall clock, both included) that one of the filters accepts (or all,
    without any) and none of the ``not_filters``; with ``last``, so many, the last ones."""

    since: int = 0
    until: int = _LARGEST
    filters: Sequence[FlowFilter] = ()
    not_filters: Sequence[FlowFilter] = ()
    last: int | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Records in order of time, what their numbers mean, and what is missing before them."""

    log: FlowLog
    records: Records
    lost: tuple[LostEvents, ...] = ()


class Recorded:
    """Of some nodes, each with the folder of its history."""

    def __init__(self, directories: Mapping[str, Path]) -> None:
        self._nodes = {node: NodeHistory(directory) for node, directory in directories.items()}

    def span(self) -> tuple[int, int] | None:
        """The first and the last time of which there is something."""
        spans = [span for each in self._nodes.values() if (span := each.span())]
        return (min(first for first, _ in spans), max(last for _, last in spans)) if spans else None

    def pages(self, wanted: Wanted) -> Iterator[Page]:
        """Of one node after the other; each in order of time. Raises `FilterError`."""
        for node in self._nodes.values():
            yield from node.pages(wanted)

    def read(self, wanted: Wanted) -> Iterator[Item]:
        """Of all nodes together, in order of time; what is missing stands where it is missing."""
        streams = [_items(node.pages(wanted)) for node in self._nodes.values()]
        merged = (item for _, item in heapq.merge(*streams, key=lambda each: each[0]))
        if wanted.last is None:
            return merged
        found = list(merged)
        flows = [place for place, item in enumerate(found) if item.flow is not None]
        start = flows[-wanted.last] if 0 < wanted.last < len(flows) else 0 if wanted.last else len(found)
        return iter(found[start:])


class NodeHistory:
    """Of one node."""

    def __init__(self, directory: Path) -> None:
        self._folder = Folder(directory)

    def span(self) -> tuple[int, int] | None:
        """The first and the last time of which there is something."""
        spans = [span for part in self._files().parts if (span := part.span)]
        return (min(first for first, _ in spans), max(last for _, last in spans)) if spans else None

    def pages(self, wanted: Wanted) -> Iterator[Page]:
        """Raises `FilterError`."""
        parts = [part for part in self._files().parts if part.touches(wanted)]
        if wanted.last is None:
            for part in parts:
                yield from part.pages(wanted)
            return
        found: list[Page] = []
        count = 0
        for part in reversed(parts):
            pages = list(part.pages(wanted))
            found.extend(reversed(pages))
            count += sum(len(page.records) for page in pages)
            if count >= wanted.last:
                break
        yield from _last(found[::-1], count - wanted.last)

    def batches(self, wanted: Wanted) -> tuple[Iterator[pa.RecordBatch], Position | None]:
        """Arrow, with the columns of `axoneme.history.schema`, and up to where in a flow server's memory that
        goes; ``last`` does not count."""
        files = self._files()
        parts = [part for part in files.parts if part.touches(wanted)]
        return (batch for part in parts for batch in part.batches(wanted)), files.position

    def files(self, since: int = 0) -> tuple[list[Path], pa.Table, Position | None]:
        """The tables with something since then, what stands in no table yet, and up to where that goes."""
        files, wanted = self._files(), Wanted(since)
        tables = [part.path for part in files.parts if isinstance(part, _Table) and part.touches(wanted)]
        rest = [part for part in files.parts if isinstance(part, _Spooled) and part.touches(wanted)]
        batches = [batch for part in rest for batch in part.batches(wanted)]
        return tables, pa.Table.from_batches(batches, SCHEMA), files.position

    def _files(self) -> _Files:
        """As of one moment, although somebody writes, makes tables and takes old ones away."""
        while True:
            there = (self._folder.spools(), self._folder.tables())
            spools = [_Spooled(path) for path in there[0]]
            with suppress(FileNotFoundError):
                for each in reversed(spools):
                    each.read()
                position = next((each.position for each in reversed(spools) if each.position), None)
                position = position or remembered(self._folder)
                if there == (self._folder.spools(), self._folder.tables()):
                    return _Files([*map(_Table, there[1]), *spools], position)


@dataclass(frozen=True, slots=True)
class _Files:
    """In order of time, and where whoever wrote them stands in the flow server's memory."""

    parts: list[_Table | _Spooled]
    position: Position | None


class _Table:
    """A table. One that has been taken away meanwhile, because it is too old, is empty."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def span(self) -> tuple[int, int] | None:
        try:
            return _facts(self.path)[1]
        except FileNotFoundError:
            return None
        except (ValueError, pa.ArrowInvalid) as error:
            log.warning("%s is passed over: %s", self.path, error)
            return None

    def touches(self, wanted: Wanted) -> bool:
        span = self.span
        return span is not None and span[0] <= wanted.until and span[1] >= wanted.since

    def pages(self, wanted: Wanted) -> Iterator[Page]:
        footer = _facts(self.path)[0]
        rebuilder = Rebuilder(footer.layout)
        accepts = rebuilder.log.matcher(wanted.filters, wanted.not_filters).mask
        lost = tuple(footer.lost)
        for batch in self._groups(wanted):
            records = _chosen(rebuilder.records(batch), wanted, accepts)
            if len(records) or lost:
                yield Page(rebuilder.log, records, lost)
                lost = ()

    def batches(self, wanted: Wanted) -> Iterator[pa.RecordBatch]:
        rebuilder = Rebuilder(_facts(self.path)[0].layout)
        accepts = rebuilder.log.matcher(wanted.filters, wanted.not_filters).mask
        for batch in self._groups(wanted):
            if wanted.filters or wanted.not_filters:
                records = rebuilder.records(batch)
                mask = accepts(records) & _between(records["wall"], wanted)
            else:
                mask = _between(batch.column("time").cast(pa.int64()).to_numpy(), wanted)
            if mask.all():
                yield batch
            elif mask.any():
                yield batch.filter(pa.array(mask))

    def _groups(self, wanted: Wanted) -> Iterator[pa.RecordBatch]:
        try:
            file = pq.ParquetFile(self.path)
        except FileNotFoundError:
            return
        with file:
            place = file.schema_arrow.get_field_index("time")
            for number in range(file.num_row_groups):
                times = file.metadata.row_group(number).column(place).statistics
                if times is not None and times.has_min_max:
                    first, last = times.min.value, times.max.value
                    if first > wanted.until or last < wanted.since:
                        continue
                likely = _likely(file.read_row_group(number, ["time", "verdict"]), wanted)
                if not likely.any():
                    continue
                table = _conformed(file.read_row_group(number))
                if not likely.all():
                    table = table.filter(pa.array(likely))
                yield from table.combine_chunks().to_batches()


@lru_cache(8192)
def _facts(path: Path) -> tuple[tables.Footer, tuple[int, int] | None]:
    """The footer of a table, which never changes, and its times."""
    metadata = pq.read_metadata(path)
    return tables.footer_of(metadata, path), tables.times(metadata)


class _Spooled:
    """A spool: read as a whole, when it is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.position: Position | None = None

    def read(self) -> None:
        """FileNotFoundError when it is a table by now, or gone."""
        self._content  # noqa: B018

    @cached_property
    def _content(self) -> Page | None:
        """None when nothing is in it."""
        unpacker = Unpacker()
        pages: list[Records] = []
        lost: list[LostEvents] = []
        for parcel in parcels(self.path):
            try:
                pages.append(unpacker.unpack(parcel))
            except ValueError:
                continue
            self.position = parcel.position
            lost.extend(parcel.lost)
        return Page(unpacker.log, join(*pages), tuple(lost)) if pages else None

    @property
    def span(self) -> tuple[int, int] | None:
        page = self._content
        if page is None or not len(page.records):
            return None
        times = page.records["wall"]
        return int(times.min()), int(times.max())

    def touches(self, wanted: Wanted) -> bool:
        span = self.span
        return span is not None and span[0] <= wanted.until and span[1] >= wanted.since

    def pages(self, wanted: Wanted) -> Iterator[Page]:
        page = self._content
        if page is not None:
            accepts = page.log.matcher(wanted.filters, wanted.not_filters).mask
            records = _chosen(page.records, wanted, accepts)
            if len(records) or page.lost:
                yield Page(page.log, records, page.lost)

    def batches(self, wanted: Wanted) -> Iterator[pa.RecordBatch]:
        for page in self.pages(wanted):
            if len(page.records):
                yield columns.batch(page.log, page.records)


def _likely(table: pa.Table, wanted: Wanted) -> Mask:
    """Which rows can be wanted, as far as that is seen from two columns: most filters ask for verdicts."""
    mask = _between(table["time"].cast(pa.int64()).to_numpy(), wanted)
    if wanted.filters and all(each.verdict for each in wanted.filters):
        verdicts = sorted({verdict.upper() for each in wanted.filters for verdict in each.verdict})
        found = pc.is_in(table["verdict"].cast(pa.string()), pa.array(verdicts))
        mask &= found.to_numpy(zero_copy_only=False)
    return mask


def _conformed(table: pa.Table) -> pa.Table:
    """With the columns of today: those that older files do not have are empty."""
    if table.schema.equals(SCHEMA):
        return table
    there = set(table.schema.names)
    made = [
        table[field.name].cast(field.type) if field.name in there else pa.nulls(len(table), field.type)
        for field in SCHEMA
    ]
    return pa.table(made, SCHEMA)


def _between(times: np.ndarray[tuple[int], np.dtype[np.int64]], wanted: Wanted) -> Mask:
    mask: Mask = (times >= wanted.since) & (times <= wanted.until)
    return mask


def _chosen(records: Records, wanted: Wanted, accepts: Callable[[Records], Mask]) -> Records:
    between = _between(records["wall"], wanted)
    if not between.all():
        records = take(records, between)
    mask = accepts(records)
    return records if mask.all() else take(records, mask)


def _last(pages: list[Page], superfluous: int) -> Iterator[Page]:
    for page in pages:
        if superfluous <= 0:
            yield page
        elif superfluous < len(page.records):
            yield Page(page.log, page.records[superfluous:])
        superfluous -= len(page.records)


def _items(pages: Iterator[Page]) -> Iterator[tuple[int, Item]]:
    """With the time of each."""
    for page in pages:
        encoder, node = page.log.encoder(), page.log.node
        time = int(page.records["wall"][0]) if len(page.records) else 0
        yield from ((time, Item(lost_events=each, node_name=node)) for each in page.lost)
        for start in range(0, len(page.records), _PAGE):
            part = page.records[start : start + _PAGE]
            for wall, flow in zip(part["wall"].tolist(), encoder.flows(part), strict=True):
                yield wall, Item(flow=flow, node_name=node)
