"""What policies said before their present version, which cannot be read.

Nobody knows whom such an object would have protected; so it counts as it was, also for an agent that starts
anew. The version before is written to the node's disk when one comes that cannot be read, and goes when the
object is mended or deleted.
"""

from __future__ import annotations

import logging
from pathlib import Path
from urllib.parse import quote

log = logging.getLogger(__name__)


class LastGood:
    """By key of the shared state: the last version that could be read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._values: dict[str, bytes] = {}
        self._on_disk = {path.name for path in folder.iterdir()}

    def read(self, key: str, value: bytes | None) -> None:
        """The object can be read, or has been deleted (None)."""
        if value is None:
            self._values.pop(key, None)
        else:
            self._values[key] = value
        if (name := quote(key, "")) in self._on_disk:
            self._on_disk.discard(name)
            (self._folder / name).unlink(missing_ok=True)

    def unreadable(self, key: str) -> bytes | None:
        """The object cannot be read: what it said before, where this agent has not heard that itself."""
        name = quote(key, "")
        try:
            if key in self._values:
                (self._folder / name).write_bytes(self._values[key])
                self._on_disk.add(name)
            elif name in self._on_disk:
                return (self._folder / name).read_bytes()
        except OSError as error:
            log.error("%s: its last version is not kept on the disk: %s", key, error)
        return None
