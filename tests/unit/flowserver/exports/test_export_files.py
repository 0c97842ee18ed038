"""Files that rotate, field masks, and the file that says what goes where."""

from __future__ import annotations

import errno
import gzip
import os
from pathlib import Path
from typing import Any

import pytest

from axoneme.flowserver.exports.config import parse
from axoneme.flowserver.exports.files import RotatingFile
from axoneme.flowserver.exports.masks import FieldMask
from axoneme.sources.config import ConfigError
from unit.history import logs

LINE = b"x" * 99 + b"\n"


def content(folder: Path) -> list[bytes]:
    """Of all files, the oldest first; the one being written is the last."""
    aside = sorted(each for each in folder.iterdir() if each.name != "flows.log")
    return [
        gzip.decompress(each.read_bytes()) if each.suffix == ".gz" else each.read_bytes()
        for each in [*aside, folder / "flows.log"]
    ]


@pytest.mark.parametrize("compress", [False, True])
def test_a_full_file_is_put_aside_and_the_oldest_goes(tmp_path: Path, compress: bool) -> None:
    file = RotatingFile(tmp_path / "flows.log", 250, 2, compress)
    for number in range(9):
        file.write(b"%99d\n" % number)
    file.close()
    lines = b"".join(content(tmp_path)).split()
    assert lines == [b"4", b"5", b"6", b"7", b"8"]
    names = sorted(each.name for each in tmp_path.iterdir())
    assert len(names) == 3
    assert names[-1] == "flows.log"
    assert all(name.endswith(".log.gz" if compress else ".log") for name in names[:-1])
    assert all(each.stat().st_mode & 0o777 == 0o600 for each in tmp_path.iterdir())


def test_a_file_that_is_there_is_gone_on_with(tmp_path: Path) -> None:
    for _ in range(2):
        file = RotatingFile(tmp_path / "flows.log", 1000, 2, False)
        file.write(LINE)
        file.close()
    assert content(tmp_path) == [LINE * 2]


def test_a_file_that_somebody_else_took_away_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "flows.log"
    file = RotatingFile(path, 1000, 2, False)
    file.write(LINE)
    path.rename(tmp_path / "taken")
    file.write(LINE)
    assert path.read_bytes() == LINE
    path.unlink()
    file.write(LINE)
    assert path.read_bytes() == LINE


def test_a_file_that_cannot_be_made_anew_closes_nobody_elses(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "flows.log"
    file = RotatingFile(path, 3 * len(LINE), 2, False)
    for full in (False, True):
        file.write(LINE * (3 if full else 1))
        path.parent.rename(tmp_path / f"taken{full}")
        with pytest.raises(FileNotFoundError):
            file.write(LINE)
        with open(os.devnull) as others:  # it has the lowest number that is free
            with pytest.raises(FileNotFoundError):
                file.write(LINE)
            os.fstat(others.fileno())
        path.parent.mkdir()
        file.write(LINE)
        assert path.read_bytes() == LINE


def test_of_a_line_that_did_not_fit_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = RotatingFile(tmp_path / "flows.log", 1000, 2, False)
    file.write(LINE)
    write, calls = os.write, [0]

    def full(to: int, data: Any) -> int:
        calls[0] += 1
        if calls[0] > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(to, data[:10])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            file.write(LINE)
    file.write(LINE)
    assert content(tmp_path) == [LINE * 2]


# ---- field masks -------------------------------------------------------------------------------------


def test_a_mask_leaves_what_it_names() -> None:
    log = logs.some_log()
    flow = log.encoder().flows(logs.some_records(log))[0]
    mask = FieldMask(
        [
            *("verdict", "source.pod_name", "source.labels", "l4.TCP.destination_port"),
            *("ingress_allowed_by.name", "l7.http.url", "ethernet.source"),
        ]
    )
    assert mask.of(flow) == {
        "verdict": "FORWARDED",
        "source": {"pod_name": "client-1", "labels": ("k8s:app=client", "k8s:tier=a,b")},
        "l4": {"TCP": {"destination_port": 80}},
        "ingress_allowed_by": [{"name": "web"}],
    }


def test_a_field_with_all_its_parts_counts_more_than_one_of_them() -> None:
    log = logs.some_log()
    flow = log.encoder().flows(logs.some_records(log))[0]
    for paths in (["source", "source.pod_name"], ["source.pod_name", "source"]):
        assert FieldMask(paths).of(flow) == {"source": flow.source}


def test_no_mask_is_everything() -> None:
    log = logs.some_log()
    flow = log.encoder().flows(logs.some_records(log))[0]
    assert FieldMask([]).of(flow) is flow


# ---- configuration -----------------------------------------------------------------------------------

CILIUMS = b"""
flowLogs:
- name: "test001"
  filePath: "/var/log/network/flow-log/pa/test001.log"
  fieldMask: []
  includeFilters: []
  excludeFilters: []
  fileMaxSizeMb: 0
  fileMaxBackups: 0
  fileCompress: false
  end: "2023-10-09T23:59:59-07:00"
- name: "test002"
  filePath: "/var/log/network/flow-log/pa/test002.log"
  fieldMask: ["source.namespace", "source.pod_name", "destination.namespace", "verdict"]
  fieldAggregate: []
  aggregationInterval: "0s"
  includeFilters:
  - source_pod: ["default/"]
    event_type:
    - type: 1
  - destination_pod: ["frontend/nginx-975996d4c-7hhgt"]
  excludeFilters: []
  fileMaxSizeMb: 10
  fileMaxBackups: 3
  fileCompress: true
  end: 2023-10-09T23:59:59-07:00
"""


def test_files_in_the_form_of_ciliums_are_read() -> None:
    found = parse(CILIUMS, "flowlogs.yaml")
    assert list(found) == ["test001", "test002"]
    assert {each.until for each in found.values()} == {1696921199 * 10**9}
    assert found["test002"].include_filters[0]["event_type"] == [{"type": 1}]
    assert parse(b"", "empty") == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"flowLogs: [{name: a}]", r"flowLogs\[0\] a: needs either filePath or otlp"),
        (b"flowLogs: [{name: a, filePath: flows.log}]", "not absolute"),
        (b"flowLogs: [{name: a, filePath: /a, fieldMask: [source.nobody]}]", r"'source\.nobody' is no field"),
        (b"flowLogs: [{name: a, filePath: /a, end: soon}]", r"RFC3339.*flowLogs\[0\]\.end"),
        (b"flowLogs: [{name: a, filePath: /a, fieldAggregate: [source]}]", "fieldAggregate"),
        (b"flowLogs: [{name: a, filePath: /a, fileMaxSize: 4}]", "fileMaxSize"),
        (b"flowLogs: [{name: a, filePath: /a}, {name: a, filePath: /b}]", "name: a: twice"),
        (b"flowLogs: [{name: a, filePath: /a}, {name: b, filePath: /a}]", "filePath: /a: twice"),
        (b"flowLogs: [{name: a, otlp: {endpoint: 'http://collector:4318'}}]", "in the clear"),
        (b"flowLogs: [{name: a, otlp: {endpoint: 'collector:4318'}}]", "is no URL"),
        (b"flowLogs: [{name: a, otlp: {endpoint: 'https://c', key: /k}}]", "belong together"),
        (b"flowLogs: [", "flowlogs.yaml"),
    ],
)
def test_what_cannot_be_meant_is_named(text: bytes, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse(text, "flowlogs.yaml")
