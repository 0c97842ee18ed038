"""From one set of tables to another, under running connections: how tables grow, and how agents with other
layouts follow each other.

The successors' programs are attached before their predecessors' everywhere, and wait. Then, for all places at
the same moment, a word in a map lets them begin: a connection that stands only in the old tables is still the
predecessors', and changes hands when its entry has been copied; a new one is the successors'. When all is
copied they do everything, programs of the final kind (which ask for no turn) take the predecessors' places,
and the new tables' pins those of the old (`bpf/succession.h` has the programs' side,
docs/decisions/ the argument that no packet is lost).

    <bpffs>/next/<name>    tables that are to take the places of those in maps/, and ``turn``

Killed at any moment, either the predecessors or the successors go on, in all places alike; `recover`, which
the next agent begins with, clears away what never began or completes what did.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from axoneme.datapath import attach, bpf, clsact
from axoneme.datapath.maps import Table
from axoneme.datapath.migration import carry
from axoneme.datapath.programs import OLD, TURN, Constants, Programs
from axoneme.datapath.tableset import TableSet, Types, pin_all, predecessor
from axoneme.datapath.uapi import AttachType, Command

log = logging.getLogger(__name__)

_WAIT, _SHARE, _ALL = range(3)
#: The tables of connections, in the order of copying. Entries move from the half-open ones to the others, so
#: these come after; and back when a connection begins anew, so the former come once more at the end.
_LIVE: Final = (
    "half_open_translations",
    "translations",
    "half_open",
    "flows",
    "half_open",
    "half_open_translations",
)
_WORD: Final = np.dtype(np.uint32)
_EPOCHS: Final = "epochs"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a program is attached: by a link with a pin, or (pods; kernels without tcx) by a filter."""

    program: str
    ifindex: int
    point: AttachType
    pin: Path | None


class Succession:
    """Successors, loaded and waiting; `place` them, then `take_over`, then `commit`."""

    def __init__(
        self, root: Path, folder: Path, constants: Constants, tables: TableSet, version: int
    ) -> None:
        """`tables` become this object's. ``version`` is the schema's."""
        self._root = root
        self._tables = tables
        self._versions = (tables.version, version)
        self.programs = Programs.load(folder, constants, tables, successor=True)
        (root / "next").mkdir(mode=0o700, exist_ok=True)
        made = [name for name in self.programs.fds if name not in tables.standing and name not in OLD]
        pin_all(self.programs.fds, root / "next", made)
        self._turn = Table(self.programs.fds[TURN], _WORD, _WORD)

    def place(self, place: Place) -> bool:
        """Puts the successor before its predecessor; False when there is none."""
        return attach.attach_ahead(self.programs.fd(place.program), place.ifindex, place.point, place.pin)

    def take_over(self) -> dict[str, int]:
        """From now on the successors do everything; how many entries of each table were carried over."""
        old = {name: table for name, each in self._tables.replaced.items() if (table := each.table())}
        new = {name: self.programs.table(name) for name in old}
        carried = {
            name: _carry_at_rest(name, table, new[name], self._versions)
            for name, table in old.items()
            if name not in _LIVE or self._unseen(name)
        }
        self._turn.put(0, _SHARE)
        bpf.wait_for_programs()  # what a predecessor was about to begin stands in its tables now
        for name, count in _carry_live(old, new, self._versions).items():
            carried[name] = carried.get(name, 0) + count
        self._turn.put(0, _ALL)
        for table in (*old.values(), *new.values()):
            table.close()
        return carried

    def _unseen(self, name: str) -> bool:
        """Whether the successors cannot look for keys in the predecessors' table: then as much as possible
        is carried over before they begin."""
        return self._tables.replaced[name].key_size() != bpf.map_info(self.programs.fds[name]).key_size

    def heirs(self) -> TableSet:
        """The tables, for the programs that stay."""
        fds = {name: os.dup(fd) for name, fd in self.programs.fds.items() if name != TURN and name not in OLD}
        return TableSet(standing=fds, sizes=dict(self._tables.sizes), version=self._versions[1])

    def relieve(self, place: Place) -> None:
        """Takes the successor away: the final program is there."""
        attach.detach_ahead(place.ifindex, place.point, place.pin)

    def commit(self) -> None:
        """Gives the new tables the names of the old ones."""
        _commit(self._root)
        self.close()

    def close(self) -> None:
        self._turn.close()
        self.programs.close()
        self._tables.close()


def _carry_at_rest(name: str, old: Table, new: Table, versions: tuple[int, int]) -> int:
    if name != _EPOCHS:
        return carry(old, new, versions)
    # What a slot stands for may be another: higher than every sum of before, so that all is decided anew.
    highest = int(old.read_all()[1]["slot"].max())
    values = np.zeros(1, new.value)
    values["slot"] = highest + 1
    new.write(np.zeros(1, new.key), values)
    return 1


def _carry_live(
    old: Mapping[str, Table], new: Mapping[str, Table], versions: tuple[int, int]
) -> dict[str, int]:
    carried: dict[str, int] = {}
    for name in _LIVE:
        if name in old:
            carried[name] = carried.get(name, 0) + carry(old[name], new[name], versions)
    return carried


def _commit(root: Path) -> None:
    following = root / "next"
    for pin in sorted(following.iterdir()):
        if pin.name != TURN:
            pin.rename(root / "maps" / pin.name)
    (following / TURN).unlink(missing_ok=True)
    following.rmdir()


# ---- after an agent that was killed in the middle -----------------------------------------------


def recover(root: Path) -> None:
    """Brings a succession that was cut off to its end, or to nothing if it had not begun."""
    following = root / "next"
    if not following.is_dir():
        return
    turn = _turn_of(following)
    if turn == _WAIT:
        log.warning("%s: an agent was ended before its programs began; they are removed", root)
        for place in _ahead(root):
            attach.detach_ahead(place.ifindex, place.point, place.pin)
        for pin in following.iterdir():
            pin.unlink()
        following.rmdir()
        return
    log.warning("%s: an agent was ended while its programs took over; it is completed", root)
    if turn == _SHARE:
        _complete(root)
    for place in _ahead(root):
        _promote(place)
    _commit(root)


def _turn_of(following: Path) -> int:
    try:
        with Table.pinned(following / TURN, _WORD, _WORD) as table:
            return int(table.get(0) or _WAIT)
    except (bpf.NotFound, ValueError):
        return _WAIT


def _complete(root: Path) -> None:
    """The copying, with types from the kernel: perhaps neither side's programs are of this release."""
    types = Types()
    old: dict[str, Table] = {}
    new: dict[str, Table] = {}
    versions = (0, 0)
    for name in dict.fromkeys(_LIVE):
        pins = (root / "maps" / name, root / "next" / name)
        if not all(pin.exists() for pin in pins):
            continue
        left, right = (predecessor(name, bpf.pinned(pin), types) for pin in pins)
        source, target = left.table(), right.table()
        if source and target:
            old[name], new[name], versions = source, target, (left.version, right.version)
        os.close(left.fd)
        os.close(right.fd)
    _carry_live(old, new, versions)
    with Table.pinned(root / "next" / TURN, _WORD, _WORD) as turn:
        turn.put(0, _ALL)


def _ahead(root: Path) -> Iterable[Place]:
    """Where successors stand, whoever put them there."""
    for pin in sorted((root / "links").glob("*-ahead")):
        behind = pin.with_name(pin.name.removesuffix("-ahead"))
        point = attach.INGRESS if behind.name.endswith("-ingress") else attach.EGRESS
        yield Place("", 0, point, behind)
    for ifindex, _ in socket.if_nameindex():
        for point in (attach.INGRESS, attach.EGRESS):
            if clsact.attached(ifindex, point, clsact.AHEAD):
                yield Place("", ifindex, point, None)


def _promote(place: Place) -> None:
    """Puts the successor itself into its predecessor's place."""
    if place.pin is None:
        program = bpf.by_id(
            Command.PROG_GET_FD_BY_ID, clsact.attached(place.ifindex, place.point, clsact.AHEAD)
        )
        try:
            clsact.attach(program, place.ifindex, place.point)
        finally:
            os.close(program)
        clsact.detach(place.ifindex, place.point, clsact.AHEAD)
        return
    link = bpf.pinned(attach.ahead_of(place.pin))
    try:
        attach.ahead_of(place.pin).rename(place.pin)  # the old link goes with its name
    finally:
        os.close(link)
