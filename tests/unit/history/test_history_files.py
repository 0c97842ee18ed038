"""Spools and tables: nothing is lost or doubled, whoever is killed when."""

from __future__ import annotations

import errno
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest

from axoneme.flows.events import Records
from axoneme.flows.flow import LostEvents
from axoneme.flows.recordsrequest import Position
from axoneme.flows.transfer import Packer
from axoneme.history import tables
from axoneme.history.columns import batch
from axoneme.history.folder import Folder, draft_of, table_of
from axoneme.history.schema import SCHEMA
from axoneme.history.spool import Spool, last_position
from axoneme.history.spooled import parcels
from unit.history import logs

NOW = logs.START


def filled(path: Path, pages: int = 3) -> Records:
    """A spool with so many times the same records; those."""
    log = logs.some_log()
    records, packer, spool = logs.some_records(log), Packer(log), Spool(path)
    for number in range(pages):
        lost = (LostEvents("HUBBLE_RING_BUFFER", "flows", 5),) if number else ()
        parcel = packer.pack(records, Position("memory", number, 0), lost)
        spool.write(msgspec.json.encode(parcel) + b"\n")
    spool.close()
    return records


def test_a_table_has_all_that_was_in_the_spool(tmp_path: Path) -> None:
    path = Folder(tmp_path).new_spool(NOW)
    records = filled(path)
    table = tables.convert(path)
    assert table is not None
    assert not path.exists()
    log = logs.some_log()
    rows = batch(log, logs.some_records(log)).to_pylist()
    assert pq.read_table(table).to_pylist() == rows * 3
    footer = tables.footer(table)
    assert footer.lost == [LostEvents("HUBBLE_RING_BUFFER", "flows", 10)]
    first, last = int(records["wall"][0]), int(records["wall"][-1])
    assert tables.times(pq.read_metadata(table)) == (first, last)


def test_any_parquet_tool_finds_the_promised_columns(tmp_path: Path) -> None:
    import duckdb

    path = Folder(tmp_path).new_spool(NOW)
    filled(path)
    table = tables.convert(path)
    described = duckdb.sql(f"describe select * from '{table}'").fetchall()
    assert [name for name, *_ in described] == SCHEMA.names
    kinds = {name: kind for name, kind, *_ in described}
    assert (kinds["source_labels"], kinds["time"]) == ("VARCHAR[]", "TIMESTAMPTZ_NS")
    assert pq.ParquetFile(table).metadata.row_group(0).column(0).compression == "ZSTD"


@pytest.mark.parametrize("cut", [1, 100, 2000])
def test_a_line_that_was_cut_off_does_not_count(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.spool"
    filled(path)
    os.truncate(path, path.stat().st_size - cut)
    assert len(list(parcels(path))) == 2
    assert last_position(path) == Position("memory", 1, 0)


def test_the_last_position_is_found_behind_long_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.spool"
    line = b'{"position":{"server":"memory","flows":7,"drops":1},"records":"%b"}\n' % (b"A" * 500_000)
    path.write_bytes(line * 2 + line[:100_000])
    assert last_position(path) == Position("memory", 7, 1)
    path.write_bytes(line[:100])
    assert last_position(path) is None


def test_a_spool_without_flows_becomes_nothing(tmp_path: Path) -> None:
    path = Folder(tmp_path).new_spool(NOW)
    path.write_bytes(b"")
    assert tables.convert(path) is None
    assert list(tmp_path.iterdir()) == []


def test_lines_that_are_no_parcels_are_passed_over(tmp_path: Path) -> None:
    path = Folder(tmp_path).new_spool(NOW)
    records = filled(path)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\n\xff\x00{}\n", 1))
    table = tables.convert(path)
    assert pq.read_metadata(table).num_rows == 3 * len(records)


def test_killed_before_the_table_is_whole_it_is_made_again(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    path = folder.new_spool(NOW)
    records = filled(path)
    draft_of(path).write_bytes(b"half a table")
    assert folder.tables() == []
    folder.clear()
    assert folder.spools() == [path]
    table = tables.convert(path)
    assert pq.read_metadata(table).num_rows == 3 * len(records)


def test_killed_before_the_spool_is_gone_nothing_is_there_twice(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    path = folder.new_spool(NOW)
    filled(path)
    content = path.read_bytes()
    tables.convert(path)
    path.write_bytes(content)
    assert folder.spools() == []
    folder.clear()
    assert not path.exists()
    assert folder.tables() == [table_of(path)]


def test_a_full_disk_leaves_the_spool_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path / "a.spool")
    spool.write(b'{"position":1}\n')
    write, room = os.write, [4]

    def full(file: int, data: Any) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        room[0], taken = 0, write(file, data[: room[0]])
        return taken

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            spool.write(b'{"position":2}\n')
    assert spool.path.read_bytes() == b'{"position":1}\n'
    spool.write(b'{"position":3}\n')
    assert spool.path.read_bytes() == b'{"position":1}\n{"position":3}\n'


def test_a_full_disk_leaves_no_half_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Folder(tmp_path).new_spool(NOW)
    filled(path)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        tables.convert(path)
    assert list(tmp_path.iterdir()) == [path]


def test_names_rise_also_when_the_clock_is_set_back(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    made = []
    for now in (NOW, NOW, NOW - 3600 * 10**9, NOW + 5):
        made.append(folder.new_spool(now))
        made[-1].touch()
    assert all(before.name < after.name for before, after in pairwise(made))


class TestLimits:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Folder:
        for number in range(5):
            path = tmp_path / f"2026010{number}T000000.000000Z.parquet"
            path.write_bytes(bytes(8192))
            os.utime(path, (1000 + number, 1000 + number))
        return Folder(tmp_path)

    def test_the_oldest_goes_first(self, folder: Folder) -> None:
        assert folder.size() == 5 * 8192
        gone = folder.prune(3 * 8192, 0, None)
        assert [each.name[:8] for each in gone] == ["20260100", "20260101"]
        assert folder.size() == 3 * 8192

    def test_what_is_too_old_goes(self, folder: Folder) -> None:
        assert len(folder.prune(1 << 30, 1003, None)) == 3

    def test_what_is_being_written_stays(self, folder: Folder) -> None:
        newest = folder.tables()[-1]
        folder.prune(0, 0, newest)
        assert folder.tables() == [newest]
