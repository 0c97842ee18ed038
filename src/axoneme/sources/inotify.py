"""A bell between processes: whoever touches a file wakes those that listen to it.

inotify(7) through ctypes, because the standard library has no binding.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

_IN_MODIFY = 0x2


class Bell:
    """A file whose modification is the sound."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._path = path
        self._inotify = -1

    def ring(self) -> None:
        os.pwrite(self._file, b"\0", 0)

    def listen(self) -> int:
        """A descriptor that becomes readable when the bell rings; `silence` it then.

        OSError when the user's inotify instances are used up.
        """
        libc = ctypes.CDLL(None, use_errno=True)
        self._inotify = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if (
            self._inotify < 0
            or libc.inotify_add_watch(self._inotify, os.fsencode(self._path), _IN_MODIFY) < 0
        ):
            error = ctypes.get_errno()
            self.deafen()
            raise OSError(error, f"inotify: {os.strerror(error)}", str(self._path))
        return self._inotify

    def silence(self) -> None:
        """Forgets the rings so far."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._inotify, 4096):
                pass

    def deafen(self) -> None:
        """Ends what `listen` began."""
        if self._inotify >= 0:
            os.close(self._inotify)
            self._inotify = -1

    def close(self) -> None:
        self.deafen()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
