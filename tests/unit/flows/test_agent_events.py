"""What the agent writes down of what it does, and how others read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from axoneme.flows import agentevents
from axoneme.flows.agentevents import EndpointChange, EventReader, EventWriter, PolicyChange, Started


def writer(path: Path) -> EventWriter:
    now = iter(range(1, 10_000_000))
    return EventWriter(path, lambda: next(now))


def test_what_is_written_is_read_in_order(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    reader, told = EventReader(path), writer(path)
    reader.catch_up()
    assert reader.next == 0
    told.policy("NetworkPolicy", "shop", "web", 2)
    told.policy("NetworkPolicy", "shop", "web", 0)
    told.endpoint(4, "shop", "web-1", ["k8s:app=web"], False)
    told.started()
    reader.catch_up()
    assert list(reader.since(0)) == [
        PolicyChange(1, "NetworkPolicy", "shop", "web", 1, 2),
        PolicyChange(2, "NetworkPolicy", "shop", "web", 2, 0, True),
        EndpointChange(3, 4, "shop", "web-1", ["k8s:app=web"]),
        Started(4),
    ]
    told.endpoint(4, "shop", "web-1", [], True)
    reader.catch_up()
    assert [event.time for event in reader.since(3)] == [4, 5]


def test_lines_that_a_crash_cut_off_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"event":"pol')
    reader = EventReader(path)
    reader.catch_up()
    with path.open("ab") as file:
        file.write(b'\n{"event":"nothing","time":1}\n{"event":"started","time":2}\n{"event":"sta')
    reader.catch_up()
    assert list(reader.since(0)) == [Started(2)]


def test_a_file_that_is_full_is_followed_by_another_and_none_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agentevents, "_LARGEST", 1000)
    path = tmp_path / "events.jsonl"
    told, steady = writer(path), EventReader(path)
    for number in range(1, 200):
        told.endpoint(number, "shop", "web", [], False)
        if number % 7 == 0:
            steady.catch_up()
    steady.catch_up()
    assert [event.time for event in steady.since(0)] == list(range(1, 200))
    assert sum(each.stat().st_size for each in tmp_path.iterdir()) < 3000
    late = EventReader(path)
    late.catch_up()
    times = [event.time for event in late.since(0)]
    assert times == list(range(times[0], 200))
    assert len(times) > 10


def test_nobody_waits_for_a_disk_that_takes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    told = writer(tmp_path / "missing" / "events.jsonl")
    told.started()
    told.started()
    assert len(caplog.records) == 1
