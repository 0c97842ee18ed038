"""Numbers of before a restart are not given out again, whatever has become of what they stood for."""

from __future__ import annotations

from pathlib import Path

from axoneme.agent.highmark import HighMark


def test_after_a_restart_numbers_go_on_above_all_that_were_reached(tmp_path: Path) -> None:
    path = tmp_path / "highest"
    mark = HighMark(path)
    assert mark.after == 0
    for number in (1, 17, 5000, 30):
        mark.reach(number)
        assert HighMark(path).after >= number
    assert HighMark(path).after >= 5000


def test_the_file_is_written_once_for_thousands_of_numbers(tmp_path: Path) -> None:
    path = tmp_path / "highest"
    mark = HighMark(path)
    mark.reach(1)
    path.write_text("untouched")
    mark.reach(4000)
    assert path.read_text() == "untouched"
    mark.reach(4098)
    assert int(path.read_text()) > 4098


def test_a_damaged_file_or_a_full_disk_stops_nobody(tmp_path: Path) -> None:
    path = tmp_path / "highest"
    path.write_bytes(b"\xff nonsense")
    assert HighMark(path).after == 0
    nowhere = HighMark(tmp_path / "missing" / "highest")
    nowhere.reach(5)
    assert nowhere.after == 0
