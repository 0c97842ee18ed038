"""What policies said before their present version, which cannot be read or has no room in the kernel.

Nobody knows whom an unreadable object would have protected, and one that is refused protects nobody; so it
counts as it was, also for an agent that starts anew. The version before is written to the node's disk when
one comes that cannot be put in force, and goes when the object is mended or deleted.
"""

from __future__ import annotations

import logging
from pathlib import Path
from urllib.parse import quote

log = logging.getLogger(__name__)


class LastGood:
    """By key of the shared state: the last version that was in force."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._values: dict[str, bytes] = {}
        #: Versions that can be read, and are not in force yet.
        self._waiting: dict[str, bytes] = {}
        #: Of these the present version cannot be read.
        self._unreadable: set[str] = set()
        self._on_disk = {path.name for path in folder.iterdir()}

    def read(self, key: str, value: bytes | None) -> None:
        """The object can be read, or has been deleted (None)."""
        self._unreadable.discard(key)
        if value is not None:
            self._waiting[key] = value
            return
        self._waiting.pop(key, None)
        self._values.pop(key, None)
        self._forget(key)

    def accepted(self, key: str) -> None:
        """What has been read is in force."""
        if key in self._waiting:
            self._values[key] = self._waiting.pop(key)
            if key in self._unreadable:
                self._keep(key)
            else:
                self._forget(key)

    def refused(self, key: str) -> None:
        """What has been read is not put in force."""
        self._keep(key)

    def unreadable(self, key: str) -> bytes | None:
        """The object cannot be read: what it said before, where this agent has not heard that itself."""
        self._unreadable.add(key)
        if key in self._values or key in self._waiting:
            self._keep(key)
            return None
        return self.inherited(key)

    def inherited(self, key: str) -> bytes | None:
        """What the object said to an earlier agent, as long as this one has put nothing else in force."""
        name = quote(key, "")
        if key in self._values or name not in self._on_disk:
            return None
        try:
            return (self._folder / name).read_bytes()
        except OSError as error:
            log.error("%s: what it said before cannot be read from the disk: %s", key, error)
            return None

    def _keep(self, key: str) -> None:
        if key not in self._values:
            return
        name = quote(key, "")
        try:
            (self._folder / name).write_bytes(self._values[key])
            self._on_disk.add(name)
        except OSError as error:
            log.error("%s: its last version is not kept on the disk: %s", key, error)

    def _forget(self, key: str) -> None:
        if (name := quote(key, "")) in self._on_disk:
            self._on_disk.discard(name)
            (self._folder / name).unlink(missing_ok=True)
