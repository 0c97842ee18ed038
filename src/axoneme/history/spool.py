"""A file of parcels, one a line, as a flow server sent them: what is not yet in a table.

Lines are appended whole. Of one that a crash or a full disk has cut off, nothing counts: whoever wrote it
goes on from the position of the line before.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from axoneme.flows.recordsrequest import Position
from axoneme.history.folder import Folder

_TAIL: Final = 1 << 16


class _Placed(msgspec.Struct, frozen=True):
    position: Position


class Spool:
    """The writing side."""

    def __init__(self, path: Path) -> None:
        """A new one; OSError."""
        self.path = path
        self.size = 0
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)

    def write(self, line: bytes) -> None:
        """The whole of it or, with an OSError, nothing."""
        try:
            left = memoryview(line)
            while left:
                left = left[os.write(self._file, left) :]
        except OSError:
            os.ftruncate(self._file, self.size)
            os.lseek(self._file, self.size, os.SEEK_SET)
            raise
        self.size += len(line)

    def close(self) -> None:
        os.close(self._file)


def position(folder: Folder) -> Position | None:
    """Where whoever wrote these files stands in the flow server's memory."""
    for spool in reversed(folder.spools()):
        with suppress(FileNotFoundError):  # it has become a table meanwhile
            if found := last_position(spool):
                return found
    return remembered(folder)


def remembered(folder: Folder) -> Position | None:
    """Where he stood when he closed the last spool."""
    text = folder.remembered()
    try:
        return msgspec.json.decode(text, type=Position) if text else None
    except msgspec.MsgspecError:
        return None


def last_position(path: Path) -> Position | None:
    """Where the reader stood who wrote it; None when nothing whole is in it."""
    with open(path, "rb") as file:
        size, read = file.seek(0, os.SEEK_END), _TAIL
        while True:
            file.seek(max(0, size - read))
            lines = file.read().split(b"\n")
            # The last is what was cut off, or empty; the first may have begun earlier.
            for line in reversed(lines[1:-1] if read < size else lines[:-1]):
                try:
                    return msgspec.json.decode(line, type=_Placed).position
                except (msgspec.MsgspecError, UnicodeDecodeError):
                    continue
            if read >= size:
                return None
            read *= 8
