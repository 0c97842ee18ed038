"""The journal: what it says of services, also after a restart; a disk that is full for a while."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from axoneme.flows.rules import RuleJournal, RuleWriter
from axoneme.flows.servicenames import ServicePort
from axoneme.model.policy import Direction, PolicyRef

REFS = (PolicyRef("NetworkPolicy", "default", "a"),)


class FullDisk:
    """A file that takes ``room`` bytes and no more."""

    def __init__(self, file: object, room: int) -> None:
        self.file, self.room = file, room

    def write(self, data: bytes) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = data[: self.room]
        self.room -= len(taken)
        return self.file.write(taken)  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize("room", [0, 1, 40, 100])
def test_what_the_disk_does_not_take_is_written_later(tmp_path: Path, room: int) -> None:
    path = tmp_path / "rules.jsonl"
    writer = RuleWriter(path)
    disk = FullDisk(writer._file, room)
    writer._file = disk  # type: ignore[assignment]
    writer.rules({1: REFS})
    writer.default(300, Direction.INGRESS, 1)
    assert "No space left" in writer.problem
    disk.room = 1 << 20
    writer.retry()
    assert writer.problem == ""
    journal = RuleJournal(path)
    assert journal.refs(1) == REFS
    assert journal.default_of(300, Direction.INGRESS) == 1
    assert journal.malformed == 0


def test_what_a_service_number_stands_for_is_written_once_and_read_by_both_sides(tmp_path: Path) -> None:
    path = tmp_path / "rules.jsonl"
    web, dns = ServicePort("shop/web", "http"), ServicePort("kube-system/kube-dns", "53/UDP")
    RuleWriter(path).services({7: web, 8: web})
    journal = RuleJournal(path)
    journal.catch_up()
    assert [journal.services.get(number) for number in (7, 8, 9)] == [web, web, None]
    successor = RuleWriter(path)
    successor.services({7: web, 8: web})
    assert len(path.read_bytes().splitlines()) == 2
    successor.services({8: dns})
    journal.catch_up()
    assert [journal.services.get(number) for number in (7, 8)] == [web, dns]
