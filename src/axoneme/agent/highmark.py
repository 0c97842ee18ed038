"""The highest number that a node has given out, on its disk: so that none is given out again soon.

A number may be remembered longer than it stands in a table: by sockets, flows, counters. What the tables
hold at a restart is therefore not enough to go on counting from. The file runs ahead, so that it is seldom
written.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from axoneme.agent import files

log = logging.getLogger(__name__)

#: In the agent's state directory.
FILE_NAME: Final = "highest-number"
#: How far the file runs ahead.
_AHEAD: Final = 4096


class HighMark:
    """``after``: no number up to this one is new."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.after = 0
        try:
            self.after = max(0, int(path.read_text()))
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            log.warning("%s: %s; numbers go on from what the kernel holds", path, error)
        self._reached = self.after

    def reach(self, number: int) -> None:
        """Before this number gets into a table."""
        if number <= self._reached:
            return
        self._reached = number + _AHEAD
        try:
            files.replace(self._path, f"{self._reached}\n".encode())
        except OSError as error:  # services must not wait for a disk
            log.warning("%s: %s; after a restart numbers may be given out again", self._path, error)
