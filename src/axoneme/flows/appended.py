"""Files to which another process appends lines, read as they grow."""

from __future__ import annotations

import os
from pathlib import Path


class AppendedLines:
    """Where a reader stands in such a file."""

    def __init__(self) -> None:
        #: Of the file that was read last; 0: none was there yet.
        self.inode = 0
        #: Bytes of it, to the end of the last line.
        self.read = 0

    def of(self, path: Path) -> list[bytes]:
        """The lines that have been added; all of another file than before, or of one that has become shorter;
        none while there is no file. A line whose end is not written yet waits. OSError."""
        try:
            with open(path, "rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self.inode or status.st_size < self.read:
                    self.inode, self.read = status.st_ino, 0
                if status.st_size == self.read:
                    return []
                file.seek(self.read)
                data = file.read()
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self.read += len(whole)
        return whole.splitlines()
