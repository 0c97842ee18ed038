"""Parquet files of flows: how they are written, and what their footers say besides Parquet's own.

`AXONEME` in the key-value metadata has a `Footer` as JSON. Everything else is plain Parquet: columns of
`axoneme.history.schema`, zstd, row groups of 16,384 flows in order of time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from axoneme.flows.events import Records, join
from axoneme.flows.flow import LostEvents
from axoneme.flows.transfer import Layout, Unpacker
from axoneme.history.columns import batch
from axoneme.history.folder import draft_of, table_of
from axoneme.history.schema import COLUMNS, SCHEMA, WORDS
from axoneme.history.spooled import parcels

AXONEME: Final = b"axoneme"
#: Flows in a row group, and in memory while a file is made.
GROUP: Final = 16384


class Footer(msgspec.Struct, frozen=True):
    """``lost``: what is missing in or before this file."""

    layout: Layout
    lost: list[LostEvents] = []


def convert(spool: Path) -> Path | None:
    """Makes the table of a spool, and takes the spool away; None when there was nothing in it.

    Raises OSError, and then leaves everything as it was.
    """
    draft, table = draft_of(spool), table_of(spool)
    written = spool.stat().st_mtime_ns
    try:
        made = _write(spool, draft)
        if made:
            os.utime(draft, ns=(written, written))
            draft.rename(table)
            _sync(table.parent)
    finally:
        draft.unlink(missing_ok=True)
    spool.unlink()
    return table if made else None


def _write(spool: Path, draft: Path) -> bool:
    writer: pq.ParquetWriter | None = None
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640), "wb") as file:
        try:
            footer = None
            for made, at_its_end in _batches(spool):
                footer = at_its_end
                if made.num_rows:
                    writer = writer or pq.ParquetWriter(file, SCHEMA, **_OPTIONS)
                    writer.write_batch(made, row_group_size=GROUP)
            if writer is not None:
                writer.add_key_value_metadata({AXONEME: msgspec.json.encode(footer)})
        finally:
            if writer is not None:
                writer.close()
        file.flush()
        os.fsync(file.fileno())
    return writer is not None


def _batches(spool: Path) -> Iterator[tuple[pa.RecordBatch, Footer]]:
    """Of about `GROUP` flows each, with what the footer would be if it were the last."""
    unpacker = Unpacker()
    footer: Footer | None = None
    lost: dict[tuple[str, str], int] = {}
    pages: list[Records] = []
    count = 0
    for parcel in parcels(spool):
        try:
            records = unpacker.unpack(parcel)
        except ValueError:
            continue  # its beginning is missing: this is not what a flow server sent
        for each in parcel.lost:
            key = each.source, each.ring
            lost[key] = lost.get(key, 0) + each.num_events_lost
        told = [LostEvents(*key, number) for key, number in lost.items()]
        footer = Footer(footer.layout if footer else Layout.of(unpacker.log), told)
        pages.append(records)
        count += len(records)
        if count >= GROUP:
            yield batch(unpacker.log, join(*pages)), footer
            pages, count = [], 0
    if pages and footer:
        yield batch(unpacker.log, join(*pages)), footer


def footer(table: Path) -> Footer:
    """ValueError for a file that we have not written; OSError."""
    return footer_of(pq.read_metadata(table), table)


def footer_of(metadata: pq.FileMetaData, table: Path) -> Footer:
    text = (metadata.metadata or {}).get(AXONEME)
    if text is None:
        raise ValueError(f"{table}: has no {AXONEME.decode()!r} in its metadata: no history of flows")
    try:
        return msgspec.json.decode(text, type=Footer)
    except msgspec.MsgspecError as error:
        raise ValueError(f"{table}: is of another release: {error}") from error


def times(metadata: pq.FileMetaData) -> tuple[int, int] | None:
    """The first and the last time in a file, ns; None where its statistics do not say."""
    place = SCHEMA.get_field_index("time")
    found = [metadata.row_group(n).column(place).statistics for n in range(metadata.num_row_groups)]
    if not found or any(each is None or not each.has_min_max for each in found):
        return None
    return min(each.min.value for each in found), max(each.max.value for each in found)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


#: Columns whose values hardly repeat; of those, times are close to each other.
_DISTINCT: Final = ("time", "duration_ns", "source_port", "latency_ns")
_OPTIONS: Final = {
    "compression": "zstd",
    "compression_level": 1,
    "use_dictionary": [
        f"{each.name}.list.element" if each.type == WORDS else each.name
        for each in COLUMNS
        if each.name not in _DISTINCT
    ],
    "column_encoding": dict.fromkeys(("time", "duration_ns"), "DELTA_BINARY_PACKED"),
    "write_statistics": True,
}
